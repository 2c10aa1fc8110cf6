// What each code path implements for the numeric contract, and how to choose one.
//
// Split tables: per sub-quantiser 256 low bytes, then 256 high bytes.
#pragma once

#include <cstdint>

#include "batch.hpp"
#include "contract_top.hpp"
#include "isa.hpp"

namespace ragrig {

constexpr int64_t kSplitColumn = 512;

// One run of codes in the grouped layout, scanned with one table.
struct SumScan {
  const uint8_t* codes;
  int64_t rows;
  const uint32_t* ids;
  int64_t row_start;      // added to ids
  int64_t row_count;      // ids are below it, or damaged
  int64_t at;             // where the first row lies; comes back in Ranked
  const uint8_t* split;   // m * kSplitColumn bytes
  int m;
  bool high;              // whether any high byte is not zero
  uint32_t bias;
  uint32_t sum_max;
  const uint8_t* lanes;   // bitmap, bit i: lane i is valid; null: all are
  Bitmap live;
  Bitmap filter;
};

// Sums of a block's bytes, in the lanes' order of the code path.
struct BlockSums {
  uint16_t main[kLanes];  // of the high bytes; of the low ones where high ones are 0
  uint16_t low[kLanes];
};

// The kernels ask for codes well ahead of themselves, but not for a list's first ones:
// they come while its table is made.
inline void ask_for_head(const uint8_t* codes, int64_t bytes) {
  constexpr int64_t kHeadBytes = 4096;
  const int64_t head = bytes < kHeadBytes ? bytes : kHeadBytes;
  for (int64_t at = 0; at < head; at += 64) __builtin_prefetch(codes + at);
}

struct ContractOps {
  // Tables of several lists at once: values [lists, m * sub] are residuals (l2)
  // or queries (ip), book is [m, sub, 256]; out [lists, m * 256], lows and highs
  // (smallest and largest entry of each column) [lists, m].
  void (*tables_l2)(const float* values, int64_t lists, const float* book, int m, int sub,
                    float* out, float* lows, float* highs);
  void (*tables_ip)(const float* values, int64_t lists, const float* book, int m, int sub,
                    float* out, float* lows, float* highs);
  // Integer entries, split into bytes; returns whether any high byte is set.
  bool (*quantize_split)(const float* table, const float* lows, float scale, uint32_t table_max,
                         int m, uint8_t* split);
  void (*quantize)(const float* table, const float* lows, float scale, uint32_t table_max, int m,
                   uint16_t* out);
  bool (*split)(const uint16_t* table, int m, uint8_t* split);
  // -1, or the position in `ids` of one that is out of range.
  int64_t (*scan)(const SumScan& job, TopSums& top);
};

extern const ContractOps kContractPortable;
#if RAGRIG_X86
extern const ContractOps kContractAvx2;
extern const ContractOps kContractAvx512;
#endif
const ContractOps& contract_ops(Isa isa);

}  // namespace ragrig
