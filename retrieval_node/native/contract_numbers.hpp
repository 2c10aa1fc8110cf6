// Word widths and scales of the numeric contract; see retrieval_node/fixedpoint.py.
#pragma once

#include <cstdint>

namespace ragrig {

// Word widths of the scan: table entries of 8 or 16 bits, sums of up to 24.
struct Contract {
  int table_bits = 16;
  int sum_bits = 24;
  bool integers = false;  // tables are made from integers, as a card makes them

  uint32_t table_max() const { return (1u << table_bits) - 1; }
  uint32_t sum_max() const { return (1u << sum_bits) - 1; }
  double span_limit(int m) const;
  // Throws std::invalid_argument for widths that cannot be.
  void check() const;
};

// The way from one query's sums back to floats: distance = base + sum / scale.
struct Scale {
  double base = 0.0;
  float scale = 1.0f;

  float distance(uint32_t sum) const;
};

// What the scale of one query follows from, one entry per probed list.
struct ListRange {
  double floor;   // coarse term and column minima
  double spread;  // sum of the lifted columns' maxima
};

// The steps of fixedpoint._quantized for one query; lists are at least one.
class ScaleChoice {
 public:
  ScaleChoice(const ListRange* lists, int64_t count);

  double base() const { return base_; }
  // fixedpoint.choose_scale; `largest` is the largest entry of a table.
  double scale(double largest, int m, const Contract& contract) const;
  // The lists' integer biases.
  void biases(const Scale& scale, const Contract& contract, uint32_t* out) const;

 private:
  const ListRange* lists_;
  int64_t count_;
  double base_, span_;
};

// fixedpoint._quantized for one query; fills the integer biases.
Scale choose_scale(const ListRange* lists, int64_t count, float largest, int m,
                   const Contract& contract, uint32_t* biases);

// -q . c in order in float64 of several lists; lists[p] < 0 is left alone.
void coarse_ip(const float* query, const float* centroids, int64_t dim, const int64_t* lists,
               int64_t count, double* out);

}  // namespace ragrig
