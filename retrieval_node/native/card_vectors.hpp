// Codebooks and vectors in the accelerator's memory (fpga/regs.toml), and the way back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "maker.hpp"

namespace ragrig {

// Words of components: [width][macs] of 16 bits, of which m columns are in use.
struct VectorShape {
  int64_t m = 0;
  int64_t width = 0;
  int64_t macs = 0;
  int64_t steps = 0;  // words per codeword and per vector

  int64_t word_bytes() const { return width * macs * 2; }
  int64_t column_bytes() const { return (width * 4 + 63) / 64 * 64; }  // 32 bits per column
  int64_t code_bytes() const { return column_bytes() + steps * word_bytes(); }
  int64_t book_bytes() const { return 256 * code_bytes(); }
  int64_t vector_bytes() const { return 64 + code_bytes(); }
  int64_t pairs() const { return (steps * macs + 1) / 2; }
  // Throws std::invalid_argument for widths that no card has.
  void check() const;
};

// `out` has room for book_bytes, or vector_bytes.
void put_book(const IntegerBook& book, const VectorShape& shape, uint8_t* out);
void put_vector(const TableOrder& order, int64_t pairs, const VectorShape& shape, uint8_t* out);

// A codebook as it lies in memory, book_bytes long; its lengths and unit are not known.
std::shared_ptr<const IntegerBook> read_book(const uint8_t* from, const VectorShape& shape);

// A vector as it lies in memory; the order points into it.
class CardVector {
 public:
  void read(const uint8_t* from, const VectorShape& shape, bool narrow);
  const TableOrder& order() const { return order_; }

 private:
  std::vector<int16_t> components_;
  std::vector<int32_t> lows_;
  TableOrder order_{};
};

}  // namespace ragrig
