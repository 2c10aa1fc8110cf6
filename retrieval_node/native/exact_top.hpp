// The k nearest rows by (distance, row id) of an exact search.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "batch.hpp"

namespace ragrig {

// As TopSums: a buffer a little longer than k that is cut when it is full.
class TopHits {
 public:
  void reset(int64_t k);

  // No distance above it can be among the k nearest. NaN is above everything.
  float worst() const { return worst_.distance; }

  void offer(const Hit& hit) {
    if (!(hit.distance <= worst_.distance) || !hit.before(worst_)) return;
    hits_.push_back(hit);
    if (static_cast<int64_t>(hits_.size()) == capacity_) cut();
  }
  void merge(const TopHits& other);
  // The nearest in order, at most k; valid until the next reset.
  std::vector<Hit>& finish();

 private:
  void cut();

  std::vector<Hit> hits_;
  int64_t k_ = 0;
  int64_t capacity_ = 0;
  Hit worst_{std::numeric_limits<float>::infinity(), 0, std::numeric_limits<int64_t>::max(), 0};
};

}  // namespace ragrig
