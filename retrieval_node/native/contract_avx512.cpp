// The numeric contract with AVX-512 VBMI: a table of 256 bytes lies in four
// registers, and 64 codes are looked up at once.
#include <cstdint>
#include <cstring>
#include <limits>

#include "contract_kernels.hpp"
#include "layout.hpp"

#if RAGRIG_X86
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi2,prefer-vector-width=512")

namespace ragrig {
namespace contract_avx512 {

constexpr int kVectorBytes = 64;
constexpr int kTileLists = 4;
constexpr int kTileColumns = 4;
#include "contract_tables_body.hpp"

// Four accumulators a block and eight registers of tables leave room for four.
constexpr int kPassBlocks = 4;

// The 32 even lanes, then the 32 odd ones.
struct BlockSums {
  uint16_t low[kLanes];
  uint16_t high[kLanes];
};

inline int slot(int lane) { return (lane & 1) * 32 + lane / 2; }

struct Table {
  __m512i a, b, c, d;

  explicit Table(const uint8_t* bytes)
      : a(_mm512_loadu_si512(bytes)),
        b(_mm512_loadu_si512(bytes + 64)),
        c(_mm512_loadu_si512(bytes + 128)),
        d(_mm512_loadu_si512(bytes + 192)) {}

  __m512i at(__m512i codes, __mmask64 upper) const {
    return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(a, codes, b),
                                  _mm512_permutex2var_epi8(c, codes, d));
  }
};

// Lanes whose sum >> 8 is at most the limit; keeps the sums if there are any.
inline uint64_t judge(__m512i low, __m512i low_odd, __m512i high, __m512i high_odd, __m512i limit,
                      BlockSums& sums) {
  const __m512i low_even = _mm512_sub_epi16(low, _mm512_slli_epi16(low_odd, 8));
  const __m512i high_even = _mm512_sub_epi16(high, _mm512_slli_epi16(high_odd, 8));
  const __m512i even = _mm512_add_epi16(high_even, _mm512_srli_epi16(low_even, 8));
  const __m512i odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16(low_odd, 8));
  const __mmask32 even_fits = _mm512_cmple_epu16_mask(even, limit);
  const __mmask32 odd_fits = _mm512_cmple_epu16_mask(odd, limit);
  if ((even_fits | odd_fits) == 0) return 0;
  _mm512_storeu_si512(sums.low, low_even);
  _mm512_storeu_si512(sums.low + 32, low_odd);
  _mm512_storeu_si512(sums.high, high_even);
  _mm512_storeu_si512(sums.high + 32, high_odd);
  return _pdep_u64(even_fits, 0x5555555555555555u) | _pdep_u64(odd_fits, 0xAAAAAAAAAAAAAAAAu);
}

// Sums of bytes as words: `all` holds even + 256 * odd, `odd` the odd ones.
template <bool High, int Blocks>
inline void sum_blocks(const uint8_t* codes, int64_t stride, const uint8_t* split, int m,
                       int limit, uint64_t* masks, BlockSums* sums) {
  __m512i low[Blocks], low_odd[Blocks], high[Blocks], high_odd[Blocks];
#pragma GCC unroll 4
  for (int b = 0; b < Blocks; b++) {
    low[b] = low_odd[b] = high[b] = high_odd[b] = _mm512_setzero_si512();
  }
  const int64_t ahead = stride * m;
  for (int j = 0; j < m; j++) {
    const uint8_t* row = codes + j * stride;
    const Table lower(split + j * kSplitColumn);
    const Table upper(split + j * kSplitColumn + (High ? kEntries : 0));
#pragma GCC unroll 4
    for (int b = 0; b < Blocks; b++) {
      // The same place of the next group; rows alone are too short for the hardware.
      _mm_prefetch(reinterpret_cast<const char*>(row + 64 * b + ahead), _MM_HINT_T0);
      const __m512i here = _mm512_loadu_si512(row + 64 * b);
      const __mmask64 top = _mm512_movepi8_mask(here);
      const __m512i bytes = lower.at(here, top);
      low[b] = _mm512_add_epi16(low[b], bytes);
      low_odd[b] = _mm512_add_epi16(low_odd[b], _mm512_srli_epi16(bytes, 8));
      if constexpr (High) {
        const __m512i more = upper.at(here, top);
        high[b] = _mm512_add_epi16(high[b], more);
        high_odd[b] = _mm512_add_epi16(high_odd[b], _mm512_srli_epi16(more, 8));
      }
    }
  }
  const __m512i limits = _mm512_set1_epi16(static_cast<short>(limit));
#pragma GCC unroll 4
  for (int b = 0; b < Blocks; b++) {
    masks[b] = judge(low[b], low_odd[b], high[b], high_odd[b], limits, sums[b]);
  }
}

template <bool High>
inline void pass(const uint8_t* codes, int64_t stride, int blocks, const uint8_t* split, int m,
                 int limit, uint64_t* masks, BlockSums* sums) {
  switch (blocks) {
    case 4: return sum_blocks<High, 4>(codes, stride, split, m, limit, masks, sums);
    case 3: return sum_blocks<High, 3>(codes, stride, split, m, limit, masks, sums);
    case 2: return sum_blocks<High, 2>(codes, stride, split, m, limit, masks, sums);
    default: return sum_blocks<High, 1>(codes, stride, split, m, limit, masks, sums);
  }
}

#include "contract_scan_body.hpp"

}  // namespace contract_avx512

const ContractOps kContractAvx512 = {
    contract_avx512::tables<true>, contract_avx512::tables<false>, contract_avx512::quantize_split,
    contract_avx512::quantize,     contract_avx512::split_bytes,   contract_avx512::scan,
};

}  // namespace ragrig

#pragma GCC pop_options
#endif
