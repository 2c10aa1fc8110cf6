// Tables made from integers, as a card makes them: retrieval_node/fixedpoint_card.py.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "aligned.hpp"
#include "isa.hpp"

namespace ragrig {

// A norm shift that leaves norms out.
constexpr int kNoNorms = 32;

// Largest component of codewords and vectors of `sub` components a column.
int component_limit(int64_t sub);

// rint(value * unit) in float64, halves to even; the result fits 16 bits.
inline int16_t rounded(float value, double unit) {
  // Adding and taking away 1.5 * 2^52 rounds what is left of the point.
  constexpr double kMagic = 6755399441055744.0;
  return static_cast<int16_t>(static_cast<double>(value) * unit + kMagic - kMagic);
}

// A codebook in integers, two components of all codewords side by side.
struct IntegerBook {
  int64_t m = 0;
  int64_t pairs = 0;               // of components a column, the last one padded
  double unit = 1.0;               // 0: not known (a card's)
  Aligned<int16_t> components;     // [m][pairs][256][2]
  Aligned<int32_t> norms;          // [m][256]
  std::vector<int64_t> lengths;    // [m], of the longest codeword, squared

  IntegerBook(int64_t m, int64_t pairs);
  // Of float codebooks [m][256][sub].
  static std::shared_ptr<const IntegerBook> of(const float* codebooks, int64_t m, int64_t sub);

  int64_t vector_size() const { return m * pairs * 2; }
  int16_t& component(int64_t j, int64_t t, int64_t c) {
    return components.get()[((j * pairs + t / 2) * 256 + c) * 2 + t % 2];
  }
};

// One table to make.
struct TableOrder {
  const int16_t* vector;  // [m][pairs][2]
  const int32_t* lows;    // [m]
  int norm_shift;
  int sum_shift;
  int factor;
  bool narrow;            // entries of 8 bits
};

// Writes m * 512 split bytes; returns whether any high byte is set.
using MakeTable = bool (*)(const IntegerBook& book, const TableOrder& order, uint8_t* split);

bool make_table_portable(const IntegerBook& book, const TableOrder& order, uint8_t* split);
#if RAGRIG_X86
bool make_table_avx2(const IntegerBook& book, const TableOrder& order, uint8_t* split);
bool make_table_avx512(const IntegerBook& book, const TableOrder& order, uint8_t* split);
#endif
MakeTable table_maker(Isa isa);

}  // namespace ragrig
