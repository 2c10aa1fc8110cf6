// The k smallest (sum, row id) of a scan, kept with few comparisons.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace ragrig {

// A sum and a row id in one word whose order is that of the pair.
constexpr int kRowBits = 40;
constexpr int64_t kMaxRow = (int64_t{1} << kRowBits) - 1;

constexpr uint64_t pack_sum(uint32_t sum, int64_t row) {
  return static_cast<uint64_t>(sum) << kRowBits | static_cast<uint64_t>(row);
}
constexpr uint32_t sum_of(uint64_t key) { return static_cast<uint32_t>(key >> kRowBits); }
constexpr int64_t row_of(uint64_t key) { return static_cast<int64_t>(key) & kMaxRow; }

// A row in the running: `at` says where it lies, for whoever refines.
struct Ranked {
  uint64_t key;
  int64_t at;

  bool operator<(const Ranked& other) const { return key < other.key; }
};

// Takes keys in a buffer a little longer than k and cuts it when it is full, so a
// key costs one store and the threshold lags behind the true one by a few keys.
class TopSums {
 public:
  void reset(int64_t k);

  // Keys that are not below this cannot be among the k smallest.
  uint64_t worst() const { return worst_; }
  // Sums above this cannot.
  uint32_t worst_sum() const { return sum_of(worst_); }

  void push(uint64_t key, int64_t at) {
    ranked_[static_cast<size_t>(size_++)] = {key, at};
    if (size_ == capacity_) cut();
  }
  void merge(const TopSums& other);
  // The keys in ascending order, at most k; valid until the next reset.
  const std::vector<Ranked>& finish();

 private:
  void cut();

  std::vector<Ranked> ranked_;
  int64_t k_ = 0;
  int64_t size_ = 0;
  int64_t capacity_ = 0;
  uint64_t worst_ = std::numeric_limits<uint64_t>::max();
};

}  // namespace ragrig
