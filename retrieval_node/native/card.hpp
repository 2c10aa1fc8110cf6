// The accelerator's memory format (fpga/regs.toml), and its scan of it on the CPU.
#pragma once

#include <cstdint>

#include "card_vectors.hpp"
#include "isa.hpp"

namespace ragrig {

// A table in memory: 256 rows of `width` entries, of which m are in use.
struct CardTable {
  int m = 0;
  int width = 0;
  int entry_bytes = 0;  // 1 or 2

  int64_t bytes() const { return int64_t{256} * width * entry_bytes; }
};

// One table from columns of 256 words; unused entries become 0.
void card_rows(const uint16_t* columns, const CardTable& shape, uint8_t* out);

// A start of the accelerator with its memory resolved; sizes are checked by scan_card.
struct CardScan {
  static constexpr int64_t kListWords = 8;

  const uint32_t* lists = nullptr;  // [n * nprobe][kListWords]
  int64_t n = 0;
  int64_t nprobe = 0;
  const uint8_t* tables = nullptr;
  int64_t table_bytes = 0;          // of all tables
  const IntegerBook* book = nullptr;  // or null; else `tables` are vectors
  VectorShape vectors;
  int64_t vector_stride = 0;
  CardTable shape;
  const uint16_t* code_words = nullptr;  // [n][2][256], or null: codes have no biases
  const uint8_t* image = nullptr;   // codes in the kernels' groups, by code slot; after the
  int64_t image_bytes = 0;          // m columns two of biases, where there are any
  int64_t slots_per_beat = 0;
  const uint32_t* ids = nullptr;
  int64_t num_ids = 0;
  const uint8_t* masks = nullptr;   // or null: no lane is masked
  int64_t mask_bytes = 0;
  uint32_t sum_max = 0;
  int64_t k = 0;
  uint32_t version = 0;
  uint8_t* results = nullptr;       // n records
  int64_t* done = nullptr;          // queries whose record is written
};

constexpr int64_t card_result_bytes(int64_t k) { return 64 * (1 + (k + 7) / 8); }

// Codes of the descriptors. Throws std::invalid_argument for an argument that no card
// can do, std::out_of_range for memory that is not there; `done` names the query.
int64_t scan_card(const CardScan& given, Isa isa);

}  // namespace ragrig
