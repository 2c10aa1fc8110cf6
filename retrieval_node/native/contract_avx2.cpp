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
struct BlockSums {
  uint16_t low[kLanes];
  uint16_t high[kLanes];
};

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

// Bit i: high[i] + (low[i] >> 8) is at most the limit.
inline uint32_t small(__m256i low, __m256i high, __m256i limit) {
  const __m256i top = _mm256_add_epi16(high, _mm256_srli_epi16(low, 8));
  const __m256i fits = _mm256_cmpeq_epi16(_mm256_min_epu16(top, limit), top);
  return _pext_u32(static_cast<uint32_t>(_mm256_movemask_epi8(fits)), 0x55555555u);
}

inline void keep(uint16_t* to, __m256i even, __m256i odd) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), even);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), odd);
}

template <bool High>
inline uint32_t half_pass(const uint8_t* codes, int64_t stride, const uint8_t* split, int m,
                          int limit, uint16_t* low_out, uint16_t* high_out) {
  Sums low, high;
  for (int j = 0; j < m; j++) {
    const Codes here = unpack(codes + j * stride);
    low.add(look_up(split + j * kSplitColumn, here));
    if (High) high.add(look_up(split + j * kSplitColumn + kEntries, here));
  }
  const __m256i limits = _mm256_set1_epi16(static_cast<short>(limit));
  keep(low_out, low.even(), low.odd);
  keep(high_out, high.even(), high.odd);
  return _pdep_u32(small(low.even(), high.even(), limits), 0x55555555u) |
         _pdep_u32(small(low.odd, high.odd, limits), 0xAAAAAAAAu);
}

template <bool High>
void pass(const uint8_t* codes, int64_t stride, int, const uint8_t* split, int m, int limit,
          uint64_t* masks, BlockSums* sums) {
  const uint64_t first =
      half_pass<High>(codes, stride, split, m, limit, sums->low, sums->high);
  const uint64_t second =
      half_pass<High>(codes + 32, stride, split, m, limit, sums->low + 32, sums->high + 32);
  masks[0] = first | second << 32;
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
