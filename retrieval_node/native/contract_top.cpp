#include "contract_top.hpp"

#include <algorithm>

namespace ragrig {

void TopSums::reset(int64_t k) {
  k_ = k;
  size_ = 0;
  capacity_ = k + std::max<int64_t>(16, k / 2);
  worst_ = std::numeric_limits<uint64_t>::max();
  ranked_.resize(static_cast<size_t>(capacity_));
}

void TopSums::cut() {
  std::nth_element(ranked_.begin(), ranked_.begin() + (k_ - 1), ranked_.begin() + size_);
  size_ = k_;
  worst_ = ranked_[static_cast<size_t>(k_ - 1)].key;
}

void TopSums::merge(const TopSums& other) {
  for (int64_t i = 0; i < other.size_; i++) {
    const Ranked& one = other.ranked_[static_cast<size_t>(i)];
    if (one.key < worst_) push(one.key, one.at);
  }
}

const std::vector<Ranked>& TopSums::finish() {
  std::sort(ranked_.begin(), ranked_.begin() + size_);
  size_ = std::min(size_, k_);
  ranked_.resize(static_cast<size_t>(size_));
  capacity_ = 0;  // used up until the next reset
  return ranked_;
}

}  // namespace ragrig
