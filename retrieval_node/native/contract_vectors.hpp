// One query's vectors, of which tables are made from integers: retrieval_node/fixedpoint_card.py.
#pragma once

#include <cstdint>
#include <vector>

#include "contract_numbers.hpp"
#include "index.hpp"
#include "maker.hpp"

namespace ragrig {

class QueryVectors {
 public:
  // The pointers are kept until the next reset.
  void reset(const Index& index, const IntegerBook& book, const Contract& contract,
             const float* query, const int64_t* lists, int64_t count);

  int64_t vectors() const { return vectors_; }
  const Scale& scale() const { return scale_; }
  uint32_t bias(int64_t list) const { return biases_[static_cast<size_t>(list)]; }
  TableOrder order(int64_t vector) const;

 private:
  // Distance per unit of an inner product.
  double step_of_distance() const { return (squared_ ? 2.0 : 1.0) / (unit_ * book_->unit); }
  void fill_floats();
  void round_components();
  void bound_columns();
  void choose_numbers();

  const Index* index_ = nullptr;
  const IntegerBook* book_ = nullptr;
  Contract contract_;
  const float* query_ = nullptr;
  const int64_t* lists_ = nullptr;
  int64_t count_ = 0, vectors_ = 0;
  bool squared_ = false, per_list_ = false;
  double unit_ = 1.0;
  int shift_ = 0;          // of the norms, where there are any
  int64_t width_ = 0;      // the widest column
  int sum_shift_ = 0, factor_ = 0;
  Scale scale_;
  std::vector<float> floats_;         // [vectors][dim]
  std::vector<int16_t> components_;   // [vectors][book.vector_size()]
  std::vector<int64_t> lengths_;      // [vectors][m]
  std::vector<int32_t> lows_;         // [vectors][m]
  std::vector<double> coarse_;
  std::vector<ListRange> ranges_, of_list_;
  std::vector<uint32_t> biases_;
};

}  // namespace ragrig
