// How codes lie in a shard file. retrieval_node/layout.py says the same in
// Python and is what writes it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace ragrig {

// Codes of a block: one byte lane each of a 512-bit register.
constexpr int64_t kLanes = 64;
// Blocks of a full group; the last group of a list is shorter.
constexpr int64_t kGroupBlocks = 8;
constexpr int kCodes = 256;

constexpr int64_t blocks_of(int64_t rows) { return (rows + kLanes - 1) / kLanes; }

// One list of one segment: `blocks` blocks in groups; a group of w blocks is
// m rows of w * 64 bytes, row j holding code byte j of its w * 64 vectors.
// Lanes past `rows` are padding: any byte, never a result.
struct ListView {
  const uint8_t* codes;   // m * 64 * blocks bytes, 64-byte aligned
  const uint16_t* bias;   // 64 * blocks, or null (inner product)
  float bias_base;        // bias term of lane i = base + step * bias[i], never above the true one
  float bias_step;
  const uint32_t* ids;    // rows
  int64_t rows;
  int64_t blocks;
  int64_t first_row;      // position of its first row in the segment
  const uint16_t* bias_low;  // smallest bias of each block's rows, or null; after ensure_list
};

// Where code byte j of a code is: base + j * stride.
struct CodePlace {
  const uint8_t* base;
  int64_t stride;
};

// codes, blocks: of the whole list. Static, so that each set of kernels has its own.
static inline CodePlace code_place(const uint8_t* codes, int64_t blocks, int64_t m,
                                   uint32_t position) {
  const int64_t group = position / (kGroupBlocks * kLanes);
  const int64_t first = group * kGroupBlocks;
  const int64_t left = blocks - first;
  const int64_t width = left < kGroupBlocks ? left : kGroupBlocks;
  return {codes + first * kLanes * m + position - first * kLanes, width * kLanes};
}

}  // namespace ragrig
