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

// Two accumulators a block and four registers of tables leave room for eight: a
// whole group is read from its first byte to its last.
constexpr int kPassBlocks = 8;

// How far ahead codes are asked for, in bytes. Groups follow each other, so this is
// simply later in the list; a page and a half kept memory busy best.
constexpr int64_t kAhead = 6144;

// The 32 even lanes, then the 32 odd ones.
inline int slot(int lane) { return (lane & 1) * 32 + lane / 2; }

struct Table {
  __m512i a, b, c, d;

  explicit Table(const uint8_t* bytes)
      : a(_mm512_loadu_si512(bytes)),
        b(_mm512_loadu_si512(bytes + 64)),
        c(_mm512_loadu_si512(bytes + 128)),
        d(_mm512_loadu_si512(bytes + 192)) {
    // Opaque: else they are loaded again for every block.
    asm("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d));
  }

  __m512i at(__m512i codes, __mmask64 upper) const {
    return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(a, codes, b),
                                  _mm512_permutex2var_epi8(c, codes, d));
  }
};

// Sums of bytes as words: `all` holds even + 256 * odd, `odd` the odd ones.
struct Sums {
  __m512i all, odd;

  Sums() : all(_mm512_setzero_si512()), odd(_mm512_setzero_si512()) {}
  void add(__m512i bytes) {
    all = _mm512_add_epi16(all, bytes);
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(bytes, 8));
  }
  __m512i even() const { return _mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8)); }
  void keep(uint16_t* to) const {
    _mm512_storeu_si512(to, even());
    _mm512_storeu_si512(to + 32, odd);
  }
};

inline void sum_block(const uint8_t* codes, int64_t stride, const uint8_t* bytes, int m,
                      uint16_t* to) {
  Sums sums;
  for (int j = 0; j < m; j++) {
    const __m512i here = _mm512_loadu_si512(codes + j * stride);
    sums.add(Table(bytes + j * kSplitColumn).at(here, _mm512_movepi8_mask(here)));
  }
  sums.keep(to);
}

inline uint64_t judge(const Sums& sums, __m512i limit) {
  const uint64_t even = _mm512_cmple_epu16_mask(sums.even(), limit);
  const uint64_t odd = _mm512_cmple_epu16_mask(sums.odd, limit);
  if ((even | odd) == 0) return 0;
  return _pdep_u64(even, 0x5555555555555555u) | _pdep_u64(odd, 0xAAAAAAAAAAAAAAAAu);
}

template <int Blocks>
inline void sum_blocks(const uint8_t* codes, int64_t stride, const uint8_t* bytes, int m,
                       int limit, uint64_t* masks, BlockSums* kept) {
  Sums sums[Blocks];
  for (int j = 0; j < m; j++) {
    const uint8_t* row = codes + j * stride;
    const Table table(bytes + j * kSplitColumn);
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; b++) {
      _mm_prefetch(reinterpret_cast<const char*>(row + 64 * b + kAhead), _MM_HINT_NTA);
      const __m512i here = _mm512_loadu_si512(row + 64 * b);
      sums[b].add(table.at(here, _mm512_movepi8_mask(here)));
    }
  }
  const __m512i limits = _mm512_set1_epi16(static_cast<short>(limit));
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; b++) {
    masks[b] = judge(sums[b], limits);
    if (masks[b] != 0) sums[b].keep(kept[b].main);
  }
}

inline void pass(const uint8_t* codes, int64_t stride, int blocks, const uint8_t* bytes, int m,
                 int limit, uint64_t* masks, BlockSums* sums) {
  switch (blocks) {
    case 8: return sum_blocks<8>(codes, stride, bytes, m, limit, masks, sums);
    case 7: return sum_blocks<7>(codes, stride, bytes, m, limit, masks, sums);
    case 6: return sum_blocks<6>(codes, stride, bytes, m, limit, masks, sums);
    case 5: return sum_blocks<5>(codes, stride, bytes, m, limit, masks, sums);
    case 4: return sum_blocks<4>(codes, stride, bytes, m, limit, masks, sums);
    case 3: return sum_blocks<3>(codes, stride, bytes, m, limit, masks, sums);
    case 2: return sum_blocks<2>(codes, stride, bytes, m, limit, masks, sums);
    default: return sum_blocks<1>(codes, stride, bytes, m, limit, masks, sums);
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
