// The kernels with AVX2.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace ragrig {
namespace avx2 {

constexpr int kPartBytes = 32;
constexpr int kTileParts = 2;
constexpr int tile_rows(int parts) { return parts == 1 ? 10 : 6; }
static inline float add_lanes(const float __attribute__((vector_size(32))) & part) {
  const __m256 whole = reinterpret_cast<__m256>(part);
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(whole), _mm256_extractf128_ps(whole, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
#include "tile.hpp"

#include "attend_body.hpp"

#include "linear_body.hpp"

}  // namespace avx2

const Ops kAvx2 = {
    avx2::piece_tokens, avx2::attend_floats, avx2::attend, avx2::turned_floats,
    avx2::turn_tasks,   avx2::turn,          avx2::linear,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
