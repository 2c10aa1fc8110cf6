// The numeric contract with AVX2: a table of 256 bytes is 16 shuffles and a tree
// of blends over the upper bits of the code.
#include <cstdint>
#include <cstring>
#include <limits>

#include "contract_kernels.hpp"
#include "layout.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,bmi2")

namespace ragrig {
namespace contract_avx2 {

constexpr int kVectorBytes = 32;
constexpr int kTileLists = 2;
constexpr int kTileColumns = 4;
#include "contract_tables_body.hpp"

constexpr int kPassBlocks = 1;

// Per half of a block: the 16 even lanes, then the 16 odd ones.
inline int slot(int lane) { return (lane & 32) + (lane & 1) * 16 + (lane & 31) / 2; }

// 32 codes: their lower halves, and each upper bit where a blend looks for it.
struct Codes {
  __m256i nibble, bit4, bit5, bit6, bit7;
};

inline Codes unpack(const uint8_t* from) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return {_mm256_and_si256(codes, _mm256_set1_epi8(15)), _mm256_slli_epi16(codes, 3),
          _mm256_slli_epi16(codes, 2), _mm256_slli_epi16(codes, 1), codes};
}

inline __m256i row(const uint8_t* table, int at, const Codes& codes) {
  const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * at));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), codes.nibble);
}

inline __m256i quarter(const uint8_t* table, const Codes& codes) {
  const __m256i a = _mm256_blendv_epi8(row(table, 0, codes), row(table, 1, codes), codes.bit4);
  const __m256i b = _mm256_blendv_epi8(row(table, 2, codes), row(table, 3, codes), codes.bit4);
  return _mm256_blendv_epi8(a, b, codes.bit5);
}

inline __m256i look_up(const uint8_t* table, const Codes& codes) {
  const __m256i a =
      _mm256_blendv_epi8(quarter(table, codes), quarter(table + 64, codes), codes.bit6);
  const __m256i b =
      _mm256_blendv_epi8(quarter(table + 128, codes), quarter(table + 192, codes), codes.bit6);
  return _mm256_blendv_epi8(a, b, codes.bit7);
}

// Sums of bytes as words: `all` holds even + 256 * odd, `odd` the odd ones.
struct Sums {
  __m256i all, odd;

  Sums() : all(_mm256_setzero_si256()), odd(_mm256_setzero_si256()) {}

  void add(__m256i bytes) {
    all = _mm256_add_epi16(all, bytes);
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(bytes, 8));
  }
  __m256i even() const { return _mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8)); }
};

inline Sums sum_half(const uint8_t* codes, int64_t stride, const uint8_t* bytes, int m) {
  Sums sums;
  for (int j = 0; j < m; j++) {
    sums.add(look_up(bytes + j * kSplitColumn, unpack(codes + j * stride)));
  }
  return sums;
}

inline void keep(const Sums& sums, uint16_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sums.even());
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), sums.odd);
}

inline void sum_block(const uint8_t* codes, int64_t stride, const uint8_t* bytes, int m,
                      uint16_t* sums) {
  keep(sum_half(codes, stride, bytes, m), sums);
  keep(sum_half(codes + 32, stride, bytes, m), sums + 32);
}

// A bit per word that is at most the limit, at the places of even lanes.
inline uint32_t small(__m256i words, __m256i limit) {
  const __m256i fits = _mm256_cmpeq_epi16(_mm256_min_epu16(words, limit), words);
  return static_cast<uint32_t>(_mm256_movemask_epi8(fits)) & 0x55555555u;
}

inline uint32_t judge(const Sums& sums, __m256i limit) {
  return small(sums.even(), limit) | small(sums.odd, limit) << 1;
}

inline void pass(const uint8_t* codes, int64_t stride, int, const uint8_t* bytes, int m, int limit,
                 uint64_t* masks, BlockSums* sums) {
  const __m256i limits = _mm256_set1_epi16(static_cast<short>(limit));
  const Sums first = sum_half(codes, stride, bytes, m);
  const Sums second = sum_half(codes + 32, stride, bytes, m);
  keep(first, sums->main);
  keep(second, sums->main + 32);
  masks[0] = judge(first, limits) | static_cast<uint64_t>(judge(second, limits)) << 32;
}

#include "contract_scan_body.hpp"

}  // namespace contract_avx2

const ContractOps kContractAvx2 = {
    contract_avx2::tables<true>, contract_avx2::tables<false>, contract_avx2::quantize_split,
    contract_avx2::quantize,     contract_avx2::split_bytes,   contract_avx2::scan,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
