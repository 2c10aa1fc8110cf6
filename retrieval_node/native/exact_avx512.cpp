// Exact distances with AVX-512: the 16 lanes are one register.
#include <cstdint>
#include <cstring>

#include "exact_kernels.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

namespace ragrig {
namespace exact_avx512 {

constexpr int kVectorBytes = 64;
inline void widen16(const uint16_t* halves, float* floats) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves));
  // With a mask: the plain form warns of its own undefined register.
  _mm512_storeu_ps(floats, _mm512_maskz_cvtph_ps(0xFFFF, half));
}
#include "exact_body.hpp"

}  // namespace exact_avx512

const ExactOps kExactAvx512 = {
    exact_avx512::distances_of<true, float>,    exact_avx512::distances_of<false, float>,
    exact_avx512::distances_of<true, uint16_t>, exact_avx512::distances_of<false, uint16_t>,
    exact_avx512::widen_all,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
