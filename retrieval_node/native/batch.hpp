// A batch of queries, and what a search gives back; shared by all modes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "cancel.hpp"
#include "segment.hpp"

namespace ragrig {

// Bits over row ids, bit i & 7 of byte i >> 3. Rows past its end are not set.
struct Bitmap {
  const uint8_t* bytes = nullptr;  // null: every row is set
  int64_t size = 0;                // bytes

  bool test(int64_t row) const {
    if (!bytes) return true;
    const int64_t byte = row >> 3;
    return byte < size && ((bytes[byte] >> (row & 7)) & 1);
  }
};

struct Batch {
  std::vector<std::shared_ptr<const Segment>> segments;
  const float* queries = nullptr;         // [n][dim]
  int64_t n = 0, dim = 0;
  const int32_t* lists = nullptr;         // [n][nprobe], -1 is padding; null: exact search
  int64_t nprobe = 0;
  int64_t k = 0;
  int64_t refine_k = 0;                   // 0: no refinement
  const float* refine_queries = nullptr;  // [n][refine_dim]
  int64_t refine_dim = 0;
  Bitmap live;
  const uint8_t* filters = nullptr;       // [filter_count][filter_bytes]
  int64_t filter_count = 0, filter_bytes = 0;
  const int32_t* filter_of = nullptr;     // [n], -1: none; null: nothing is filtered
  const Cancel* cancel = nullptr;

  Bitmap filter(int64_t query) const {
    if (!filter_of || filter_of[query] < 0) return {};
    return {filters + filter_of[query] * filter_bytes, filter_bytes};
  }
  Stop stopped() const { return cancel ? cancel->check() : Stop::none; }
};

// One found row: where it is, so that refinement needs no look-up.
struct Hit {
  float distance;
  uint32_t segment;   // position in Batch::segments
  int64_t row;        // row id
  int64_t position;   // in the segment

  bool before(const Hit& other) const {
    return distance != other.distance ? distance < other.distance : row < other.row;
  }
};

// Result arrays are the caller's: [n][k], [n][k], [n].
struct Output {
  float* distances = nullptr;
  int64_t* rows = nullptr;
  int32_t* counts = nullptr;
};

// Sums over all threads; the first reason to stop wins.
struct Progress {
  std::atomic<int64_t> codes_scanned{0};
  std::atomic<int64_t> survivors{0};
  std::atomic<int> stop{0};
  std::atomic<int> corrupt_segment{-1};
  std::atomic<int64_t> corrupt_offset{-1};

  bool stopped() const { return stop.load(std::memory_order_relaxed) != 0; }
  Stop reason() const { return static_cast<Stop>(stop.load()); }
  void halt(Stop why) {
    int none = 0;
    stop.compare_exchange_strong(none, static_cast<int>(why));
  }
  void corrupt(int segment, int64_t offset) {
    int none = 0;
    if (stop.compare_exchange_strong(none, static_cast<int>(Stop::corrupt))) {
      corrupt_segment.store(segment);
      corrupt_offset.store(offset);
    }
  }
};

}  // namespace ragrig
