#include "exact_top.hpp"

#include <algorithm>

namespace ragrig {

namespace {

bool nearer(const Hit& a, const Hit& b) { return a.before(b); }

}  // namespace

void TopHits::reset(int64_t k) {
  hits_.clear();
  k_ = k;
  capacity_ = k + std::max<int64_t>(16, k / 2);
  worst_ = {std::numeric_limits<float>::infinity(), 0, std::numeric_limits<int64_t>::max(), 0};
}

void TopHits::cut() {
  std::nth_element(hits_.begin(), hits_.begin() + (k_ - 1), hits_.end(), nearer);
  hits_.resize(static_cast<size_t>(k_));
  worst_ = hits_.back();
}

void TopHits::merge(const TopHits& other) {
  for (const Hit& hit : other.hits_) offer(hit);
}

std::vector<Hit>& TopHits::finish() {
  std::sort(hits_.begin(), hits_.end(), nearer);
  if (static_cast<int64_t>(hits_.size()) > k_) hits_.resize(static_cast<size_t>(k_));
  return hits_;
}

}  // namespace ragrig
