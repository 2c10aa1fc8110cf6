// Tables from integers with AVX-512: 64 codewords at once, two components a product.
#include "contract_kernels.hpp"
#include "layout.hpp"
#include "maker.hpp"

#if RAGRIG_X86
#include <immintrin.h>

// GCC 12 warns about its own intrinsics' undefined operands.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")

namespace ragrig {
namespace {

constexpr int kWide = 16;    // codewords of a register
constexpr int kAtOnce = 8;   // registers of sums; fewer would wait for each other

using Register = __m512i;

struct Finish {
  __m128i norm_shift, sum_shift;
  Register low, factor;
  bool narrow;

  explicit Finish(const TableOrder& order)
      : norm_shift(_mm_cvtsi32_si128(order.norm_shift)),
        sum_shift(_mm_cvtsi32_si128(order.sum_shift)),
        low{},
        factor(_mm512_set1_epi16(static_cast<int16_t>(order.factor))),
        narrow(order.narrow) {}

  void column(int32_t offset) { low = _mm512_set1_epi32(offset); }

  static bool over_a_byte(Register entries) {
    const Register high = _mm512_set1_epi16(static_cast<int16_t>(0xFF00));
    return _mm512_test_epi16_mask(entries, high) != 0;
  }

  // 32 entries as words, of the sums of 2 x 16 codewords.
  __m512i operator()(const int32_t* norms, __m512i first, __m512i second) const {
    const __m512i words =
        _mm512_inserti64x4(_mm512_castsi256_si512(sums(norms, first)), sums(norms + kWide, second), 1);
    const __m512i entries = _mm512_mulhi_epu16(words, factor);
    if (!narrow) return entries;
    return _mm512_srli_epi16(_mm512_adds_epu16(entries, _mm512_set1_epi16(128)), 8);
  }

 private:
  __m256i sums(const int32_t* norms, __m512i dots) const {
    // A shift of 32 and more leaves nothing of a norm.
    const __m512i norm = _mm512_srl_epi32(_mm512_loadu_si512(norms), norm_shift);
    const __m512i lifted = _mm512_sub_epi32(_mm512_sub_epi32(norm, dots), low);
    return _mm512_cvtusepi32_epi16(_mm512_srl_epi32(lifted, sum_shift));
  }
};

// 128 codewords of a column; the or of their entries.
inline __m512i part(const int16_t* words, int64_t pairs, const int16_t* vector,
                    const int32_t* norms, const Finish& finish, uint8_t* low) {
  __m512i dots[kAtOnce];
#pragma GCC unroll 8
  for (int i = 0; i < kAtOnce; i++) dots[i] = _mm512_setzero_si512();
  for (int64_t p = 0; p < pairs; p++) {
    int32_t both;
    __builtin_memcpy(&both, vector + 2 * p, sizeof(both));
    const __m512i own = _mm512_set1_epi32(both);
    const int16_t* from = words + p * 2 * kCodes;
#pragma GCC unroll 8
    for (int i = 0; i < kAtOnce; i++) {
      const __m512i pair = _mm512_loadu_si512(from + i * 2 * kWide);
      dots[i] = _mm512_add_epi32(dots[i], _mm512_madd_epi16(pair, own));
    }
  }
  __m512i any = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int i = 0; i < kAtOnce; i += 2) {
    const __m512i entries = finish(norms + i * kWide, dots[i], dots[i + 1]);
    any = _mm512_or_si512(any, entries);
    uint8_t* to = low + i * kWide;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi16_epi8(entries));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + kCodes),
                        _mm512_cvtepi16_epi8(_mm512_srli_epi16(entries, 8)));
  }
  return any;
}

#include "maker_body.hpp"

}  // namespace

bool make_table_avx512(const IntegerBook& book, const TableOrder& order, uint8_t* split) {
  return make_table(book, order, split);
}

}  // namespace ragrig
#pragma GCC pop_options
#endif
