// Tables from integers with AVX2: 32 codewords at once, two components a product.
#include "contract_kernels.hpp"
#include "layout.hpp"
#include "maker.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2")

namespace ragrig {
namespace {

constexpr int kWide = 8;    // codewords of a register
constexpr int kAtOnce = 4;  // registers of sums

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

using Register = __m256i;

struct Finish {
  __m128i norm_shift, sum_shift;
  Register low, factor;
  bool narrow;

  explicit Finish(const TableOrder& order)
      : norm_shift(_mm_cvtsi32_si128(order.norm_shift)),
        sum_shift(_mm_cvtsi32_si128(order.sum_shift)),
        low{},
        factor(_mm256_set1_epi16(static_cast<int16_t>(order.factor))),
        narrow(order.narrow) {}

  void column(int32_t offset) { low = _mm256_set1_epi32(offset); }

  static bool over_a_byte(Register entries) {
    const Register high = _mm256_set1_epi16(static_cast<int16_t>(0xFF00));
    return !_mm256_testz_si256(entries, high);
  }

  // 16 entries as words, of the sums of 2 x 8 codewords.
  __m256i operator()(const int32_t* norms, __m256i first, __m256i second) const {
    const __m256i packed = _mm256_packus_epi32(sums(norms, first), sums(norms + kWide, second));
    const __m256i words = _mm256_permute4x64_epi64(packed, 0xD8);
    const __m256i entries = _mm256_mulhi_epu16(words, factor);
    if (!narrow) return entries;
    return _mm256_srli_epi16(_mm256_adds_epu16(entries, _mm256_set1_epi16(128)), 8);
  }

 private:
  __m256i sums(const int32_t* norms, __m256i dots) const {
    const __m256i norm = _mm256_srl_epi32(load(norms), norm_shift);
    const __m256i lifted = _mm256_sub_epi32(_mm256_sub_epi32(norm, dots), low);
    return _mm256_min_epu32(_mm256_srl_epi32(lifted, sum_shift), _mm256_set1_epi32(65535));
  }
};

// 32 codewords of a column; the or of their entries.
inline __m256i part(const int16_t* words, int64_t pairs, const int16_t* vector,
                    const int32_t* norms, const Finish& finish, uint8_t* low) {
  __m256i dots[kAtOnce];
#pragma GCC unroll 4
  for (int i = 0; i < kAtOnce; i++) dots[i] = _mm256_setzero_si256();
  for (int64_t p = 0; p < pairs; p++) {
    int32_t both;
    __builtin_memcpy(&both, vector + 2 * p, sizeof(both));
    const __m256i own = _mm256_set1_epi32(both);
    const int16_t* from = words + p * 2 * kCodes;
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; i++) {
      dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(load(from + i * 2 * kWide), own));
    }
  }
  const __m256i a = finish(norms, dots[0], dots[1]);
  const __m256i b = finish(norms + 2 * kWide, dots[2], dots[3]);
  const __m256i byte = _mm256_set1_epi16(255);
  const __m256i lows = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
  const __m256i highs = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(low), _mm256_permute4x64_epi64(lows, 0xD8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + kCodes),
                      _mm256_permute4x64_epi64(highs, 0xD8));
  return _mm256_or_si256(a, b);
}

#include "maker_body.hpp"

}  // namespace

bool make_table_avx2(const IntegerBook& book, const TableOrder& order, uint8_t* split) {
  return make_table(book, order, split);
}

}  // namespace ragrig
#pragma GCC pop_options
#endif
