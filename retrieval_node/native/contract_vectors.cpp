#include "contract_vectors.hpp"

#include <algorithm>
#include <cmath>

#include "contract_tables.hpp"

namespace ragrig {

namespace {

constexpr int kMaxSumShift = 31;
constexpr int kFactorBits = 16;
constexpr double kMostRounding = (1 << 30) - 8;

float largest_of(const std::vector<float>& values) {
  float largest = 0.0f;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace

void QueryVectors::reset(const Index& index, const IntegerBook& book, const Contract& contract,
                         const float* query, const int64_t* lists, int64_t count) {
  index_ = &index;
  book_ = &book;
  contract_ = contract;
  query_ = query;
  lists_ = lists;
  count_ = count;
  squared_ = index.metric == Metric::l2;
  per_list_ = table_per_list(index);
  vectors_ = per_list_ ? count : 1;
  fill_floats();
  round_components();
  bound_columns();
  choose_numbers();
}

void QueryVectors::fill_floats() {
  const int64_t dim = index_->dim;
  floats_.resize(static_cast<size_t>(vectors_ * dim));
  if (!per_list_) {
    std::copy(query_, query_ + dim, floats_.begin());
    return;
  }
  for (int64_t p = 0; p < count_; p++) {
    const float* centroid = index_->centroid(lists_[p]);
    float* to = floats_.data() + p * dim;
    for (int64_t t = 0; t < dim; t++) to[t] = query_[t] - centroid[t];
  }
}

void QueryVectors::round_components() {
  const double limit = component_limit(index_->sub);
  const double largest = largest_of(floats_);
  shift_ = 0;
  if (squared_) {
    while (largest * book_->unit * std::ldexp(1.0, -shift_) > limit) shift_++;
    unit_ = book_->unit * std::ldexp(1.0, -shift_);
  } else {
    unit_ = largest > 0.0 ? limit / largest : 1.0;
  }
  const int64_t sub = index_->sub, padded = 2 * book_->pairs;
  components_.assign(static_cast<size_t>(vectors_ * book_->vector_size()), 0);
  lengths_.resize(static_cast<size_t>(vectors_ * index_->m));
  const float* from = floats_.data();
  int16_t* to = components_.data();
  for (int64_t column = 0; column < vectors_ * index_->m; column++) {
    int64_t length = 0;
    for (int64_t t = 0; t < sub; t++) {
      const int16_t value = rounded(from[t], unit_);
      to[t] = value;
      length += int32_t{value} * value;
    }
    lengths_[static_cast<size_t>(column)] = length;
    from += sub;
    to += padded;
  }
}

void QueryVectors::bound_columns() {
  const int64_t m = index_->m;
  const double coarser = std::ldexp(1.0, shift_);
  std::vector<double> longest(static_cast<size_t>(m)), norms(static_cast<size_t>(m));
  for (int64_t j = 0; j < m; j++) {
    const double length = static_cast<double>(book_->lengths[static_cast<size_t>(j)]);
    longest[static_cast<size_t>(j)] = std::sqrt(length);
    norms[static_cast<size_t>(j)] = length * 0.5 / coarser;
  }
  lows_.resize(static_cast<size_t>(vectors_ * m));
  ranges_.resize(static_cast<size_t>(vectors_));
  width_ = 1;
  const double step = step_of_distance();
  for (int64_t v = 0; v < vectors_; v++) {
    int64_t floor = 0, spread = 0, total = 0;
    for (int64_t j = 0; j < m; j++) {
      const size_t column = static_cast<size_t>(v * m + j), at = static_cast<size_t>(j);
      const double length = static_cast<double>(lengths_[column]), own = std::sqrt(length);
      const double reach = own * longest[at];
      double low = -reach, high = reach;
      if (squared_) {
        const bool inside = own * coarser <= longest[at];
        low = inside ? -(length * coarser * 0.5) : norms[at] - reach;
        high = norms[at] + reach;
      }
      const int64_t least = static_cast<int64_t>(std::floor(low)) - 2;
      const int64_t width = static_cast<int64_t>(std::floor(high)) + 2 - least;
      lows_[column] = static_cast<int32_t>(least);
      floor += least;
      spread += width;
      total += lengths_[column];
      width_ = std::max(width_, width);
    }
    double from = static_cast<double>(floor);
    if (squared_) from = static_cast<double>(total) * coarser * 0.5 + from;
    ranges_[static_cast<size_t>(v)] = {from * step, static_cast<double>(spread) * step};
  }
}

void QueryVectors::choose_numbers() {
  scale_ = Scale();
  sum_shift_ = factor_ = 0;
  biases_.resize(static_cast<size_t>(count_));
  if (count_ == 0) return;
  coarse_.assign(static_cast<size_t>(count_), 0.0);
  if (!squared_ && index_->residual) {
    coarse_ip(query_, index_->centroids, index_->dim, lists_, count_, coarse_.data());
  }
  of_list_.resize(static_cast<size_t>(count_));
  for (int64_t p = 0; p < count_; p++) {
    const ListRange& range = ranges_[static_cast<size_t>(per_list_ ? p : 0)];
    of_list_[static_cast<size_t>(p)] = {coarse_[static_cast<size_t>(p)] + range.floor,
                                        range.spread};
  }
  const double step = step_of_distance();
  const double finer = std::ldexp(1.0, 16 - contract_.table_bits);
  ScaleChoice choice(of_list_.data(), count_);
  const double wanted = choice.scale(static_cast<double>(width_) * step,
                                     static_cast<int>(index_->m), contract_);
  while (width_ >> sum_shift_ > 65535) sum_shift_++;
  double per_sum = wanted * finer * step * std::ldexp(1.0, kFactorBits + sum_shift_);
  while (per_sum < 32768.0 && sum_shift_ < kMaxSumShift) {
    sum_shift_++;
    per_sum *= 2.0;
  }
  factor_ = static_cast<int>(std::min(65535.0, per_sum));
  scale_.base = choice.base();
  scale_.scale = static_cast<float>(wanted);
  if (factor_ > 0) {
    scale_.scale = static_cast<float>(factor_ * std::ldexp(1.0, -(kFactorBits + sum_shift_)) /
                                      step / finer);
    const double rounding = std::ldexp(1.0, sum_shift_) * (0.5 + 32768.0 / factor_);
    for (int32_t& low : lows_) low -= static_cast<int32_t>(std::min(rounding, kMostRounding));
  }
  choice.biases(scale_, contract_, biases_.data());
}

TableOrder QueryVectors::order(int64_t vector) const {
  return {components_.data() + vector * book_->vector_size(),
          lows_.data() + vector * index_->m,
          squared_ ? std::min(shift_, kNoNorms) : kNoNorms,
          sum_shift_,
          factor_,
          contract_.table_bits == 8};
}

}  // namespace ragrig
