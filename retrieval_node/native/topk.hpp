// The k nearest hits seen so far, by (distance, row id).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "batch.hpp"

namespace ragrig {

// Small k: a sorted array. Larger k: twice the room, cut to the k nearest when it
// is full, so that n offers cost O(n + k log k) whatever their order.
class TopK {
 public:
  static constexpr int64_t kSorted = 32;

  void reset(int64_t k) {
    k_ = k;
    hits_.clear();
    limit_ = std::numeric_limits<float>::infinity();
    worst_row_ = std::numeric_limits<int64_t>::max();
  }

  // Hits beyond this distance are refused; infinity until k were taken.
  float limit() const { return limit_; }

  void offer(const Hit& hit) {
    // Written so that NaN, which no sound index gives, is refused.
    if (!(hit.distance <= limit_) || (hit.distance == limit_ && hit.row > worst_row_)) return;
    if (k_ <= kSorted) insert(hit);
    else collect(hit);
  }

  // Sorted, at most k.
  std::vector<Hit>& finish() {
    if (k_ > kSorted) {
      if (static_cast<int64_t>(hits_.size()) > k_) cut();
      std::sort(hits_.begin(), hits_.end(), nearer);
    }
    return hits_;
  }

  // Any order, at most 2 k.
  const std::vector<Hit>& unsorted() const { return hits_; }

 private:
  static bool nearer(const Hit& a, const Hit& b) { return a.before(b); }

  void insert(const Hit& hit) {
    if (static_cast<int64_t>(hits_.size()) < k_) hits_.push_back(hit);
    size_t at = hits_.size() - 1;
    for (; at > 0 && hit.before(hits_[at - 1]); --at) hits_[at] = hits_[at - 1];
    hits_[at] = hit;
    if (static_cast<int64_t>(hits_.size()) == k_) set_limit(hits_.back());
  }

  void collect(const Hit& hit) {
    hits_.push_back(hit);
    const auto size = static_cast<int64_t>(hits_.size());
    // At k for the first limit, then each time the room is used up.
    if (size == 2 * k_ || (size == k_ && limit_ == std::numeric_limits<float>::infinity())) cut();
  }

  void cut() {
    std::nth_element(hits_.begin(), hits_.begin() + (k_ - 1), hits_.end(), nearer);
    hits_.resize(static_cast<size_t>(k_));
    set_limit(hits_[static_cast<size_t>(k_ - 1)]);
  }

  void set_limit(const Hit& worst) {
    limit_ = worst.distance;
    worst_row_ = worst.row;
  }

  int64_t k_ = 0;
  std::vector<Hit> hits_;
  float limit_ = std::numeric_limits<float>::infinity();
  int64_t worst_row_ = std::numeric_limits<int64_t>::max();
};

}  // namespace ragrig
