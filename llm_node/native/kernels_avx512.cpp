// The kernels with AVX-512.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")

namespace ragrig {
namespace avx512 {

constexpr int kPartBytes = 64;
constexpr int kTileParts = 4;
constexpr int tile_rows(int parts) { return parts <= 2 ? 12 : parts == 3 ? 8 : 6; }
static inline float add_lanes(const float __attribute__((vector_size(64))) & part) {
  const __m512 whole = reinterpret_cast<__m512>(part);
  // With a mask: the plain forms warn of their own undefined register.
  const __m256 half =
      _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, whole, 0),
                    _mm512_maskz_extractf32x8_ps(0xFF, whole, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
#include "tile.hpp"

#include "attend_body.hpp"

#include "linear_body.hpp"

}  // namespace avx512

const Ops kAvx512 = {
    avx512::piece_tokens, avx512::attend_floats, avx512::attend, avx512::turned_floats,
    avx512::turn_tasks,   avx512::turn,          avx512::linear,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
