// Exact distances with AVX2.
#include <cstdint>
#include <cstring>

#include "exact_kernels.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,f16c")

namespace ragrig {
namespace exact_avx2 {

constexpr int kVectorBytes = 32;
inline void widen16(const uint16_t* halves, float* floats) {
  const __m128i* from = reinterpret_cast<const __m128i*>(halves);
  _mm256_storeu_ps(floats, _mm256_cvtph_ps(_mm_loadu_si128(from)));
  _mm256_storeu_ps(floats + 8, _mm256_cvtph_ps(_mm_loadu_si128(from + 1)));
}
#include "exact_body.hpp"

}  // namespace exact_avx2

const ExactOps kExactAvx2 = {
    exact_avx2::distances_of<true, float>,    exact_avx2::distances_of<false, float>,
    exact_avx2::distances_of<true, uint16_t>, exact_avx2::distances_of<false, uint16_t>,
    exact_avx2::widen_all,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
