#include "contract_top.hpp"

#include <algorithm>

namespace ragrig {

void TopSums::reset(int64_t k) {
  k_ = k;
  size_ = 0;
  capacity_ = k + std::max<int64_t>(16, k / 2);
  worst_ = std::numeric_limits<uint64_t>::max();
  keys_.resize(static_cast<size_t>(capacity_));
}

void TopSums::cut() {
  std::nth_element(keys_.begin(), keys_.begin() + (k_ - 1), keys_.begin() + size_);
  size_ = k_;
  worst_ = keys_[static_cast<size_t>(k_ - 1)];
}

void TopSums::merge(const TopSums& other) {
  for (int64_t i = 0; i < other.size_; i++) {
    const uint64_t key = other.keys_[static_cast<size_t>(i)];
    if (key < worst_) push(key);
  }
}

const std::vector<uint64_t>& TopSums::finish() {
  std::sort(keys_.begin(), keys_.begin() + size_);
  size_ = std::min(size_, k_);
  keys_.resize(static_cast<size_t>(size_));
  capacity_ = 0;  // used up until the next reset
  return keys_;
}

}  // namespace ragrig
