// The k nearest places seen so far, by (distance, row id).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "batch.hpp"

namespace ragrig {

// A hit whose row id has not been looked up: most never need it.
struct Place {
  float distance;
  uint32_t segment;
  int64_t position;
};

// Small k: a sorted array. Larger k: twice the room, cut to the k nearest when it
// is full, so that n offers cost O(n + k log k) whatever their order.
class TopK {
 public:
  static constexpr int64_t kSorted = 64;

  void reset(const Batch& batch, int64_t k) {
    batch_ = &batch;
    k_ = k;
    places_.clear();
    limit_ = std::numeric_limits<float>::infinity();
  }

  // Places beyond this distance are refused; infinity until k were taken.
  float limit() const { return limit_; }

  int64_t wanted() const { return k_; }

  void offer(const Place& place) {
    // Written so that NaN, which no sound index gives, is refused.
    if (!(place.distance <= limit_)) return;
    if (k_ <= kSorted) insert(place);
    else collect(place);
  }

  // Fetches what finish() reads, which lies far apart in memory: while another query is
  // finished, it comes.
  void expect() {
    if (static_cast<int64_t>(places_.size()) > k_) cut();
    for (const Place& place : places_) {
      const Segment& segment = *batch_->segments[place.segment];
      __builtin_prefetch(segment.ids() + place.position);
      if (batch_->refine_k > 0) ask_for(segment.vector(place.position), segment.vector_bytes());
    }
  }

  // Sorted, at most k, with row ids. Returns the first place whose id is out of range, or
  // null.
  const Place* finish(std::vector<Hit>& hits) {
    if (static_cast<int64_t>(places_.size()) > k_) cut();
    std::sort(places_.begin(), places_.end(), Nearer{*this});
    hits.clear();
    for (const Place& place : places_) {
      const Segment& segment = *batch_->segments[place.segment];
      if (segment.ids()[place.position] >= segment.row_count()) return &place;
      hits.push_back({place.distance, place.segment, row(place), place.position});
    }
    return nullptr;
  }

  // Any order, at most 2 k.
  const std::vector<Place>& unsorted() const { return places_; }

 private:
  struct Nearer {
    const TopK& top;
    bool operator()(const Place& a, const Place& b) const { return top.nearer(a, b); }
  };

  static void ask_for(const void* from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64)
      __builtin_prefetch(static_cast<const char*>(from) + at, 0, 2);
  }

  int64_t row(const Place& place) const {
    const Segment& segment = *batch_->segments[place.segment];
    return segment.row_start() + segment.ids()[place.position];
  }

  bool nearer(const Place& a, const Place& b) const {
    if (a.distance != b.distance) return a.distance < b.distance;
    return row(a) < row(b);
  }

  void insert(const Place& place) {
    if (static_cast<int64_t>(places_.size()) < k_) places_.push_back(place);
    else if (!nearer(place, places_.back())) return;
    size_t at = places_.size() - 1;
    for (; at > 0 && nearer(place, places_[at - 1]); --at) places_[at] = places_[at - 1];
    places_[at] = place;
    if (static_cast<int64_t>(places_.size()) == k_) limit_ = places_.back().distance;
  }

  void collect(const Place& place) {
    places_.push_back(place);
    const auto size = static_cast<int64_t>(places_.size());
    // At k for the first limit, then each time the room is used up.
    if (size == 2 * k_ || (size == k_ && limit_ == std::numeric_limits<float>::infinity())) cut();
  }

  void cut() {
    const auto last = places_.begin() + (k_ - 1);
    std::nth_element(places_.begin(), last, places_.end(), Nearer{*this});
    places_.resize(static_cast<size_t>(k_));
    limit_ = places_.back().distance;
  }

  const Batch* batch_ = nullptr;
  int64_t k_ = 0;
  std::vector<Place> places_;
  float limit_ = std::numeric_limits<float>::infinity();
};

}  // namespace ragrig
