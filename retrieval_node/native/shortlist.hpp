// The candidates for a query's k nearest rows, most of them known by bounds alone.
//
// The tables tell a distance up to roundings and the step of the stored bias, so a scan adds a
// row as a pair of bounds and the exact distance is computed for the few that are left at the
// end. The limit meanwhile is the k-th smallest upper bound. No upper bound need be trusted: at
// least k exact distances must turn out to be within the limit, or the query is scanned once
// more, `careful`, with a limit from exact distances alone.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "aligned.hpp"
#include "batch.hpp"
#include "kernels.hpp"

namespace ragrig {

struct Found {
  float low;           // bounds of its distance; equal once it is exact
  uint32_t slot;       // where its code is kept
  uint32_t segment;
  int32_t list;
  int64_t position;    // in the segment
  bool exact;
};

// Computes exact distances for a shortlist.
struct ExactAdc {
  const Index& index;
  const Kernels& kernels;
  const float* query;
  float* residual;  // padded_dim floats, zeros at the end
  float* scratch;   // 2 * padded_dim

  // Of codes kept in blocks like a list's, all of one list.
  void distances(int64_t list, const uint8_t* codes, int64_t blocks, const uint32_t* slots,
                 int64_t count, float* out) const;
};

class Shortlist {
 public:
  // Rows that are added between two calls of shorten().
  static constexpr int64_t kAtOnce = 32;

  void reset(const Batch& batch, int64_t m, int64_t k, bool careful);

  // Rows beyond this distance are not wanted; infinity until k were found.
  float limit() const { return limit_; }
  int64_t wanted() const { return k_; }

  void add(const Found& found, float high, CodePlace code);
  // After at most kAtOnce of add(): lowers the limit where it pays, makes room.
  void shorten(const ExactAdc& adc);
  // Takes over the candidates of another shortlist of the same query.
  void take(const Shortlist& other, const ExactAdc& adc);

  // Fetches what finish() reads, which lies far apart in memory: while another query is
  // finished, it comes.
  void expect();
  // The k nearest with row ids and exact distances, in no order. False: the limit was
  // too low, and the query is to be scanned again.
  bool finish(const ExactAdc& adc, std::vector<Hit>& hits);

 private:
  int64_t size() const { return static_cast<int64_t>(found_.size()); }
  int64_t row(const Found& found) const;
  CodePlace place_of(uint32_t slot) const {
    return code_place(codes_.get(), slots_ / kLanes, m_, slot);
  }
  void lower_limit();
  void drop_beyond();
  void settle(const ExactAdc& adc);
  void measure(const ExactAdc& adc);
  void keep_nearest();

  const Batch* batch_ = nullptr;
  int64_t m_ = 0, k_ = 0, news_ = 0, ties_ = 0, slots_ = 0;
  bool careful_ = false, broken_ = false;
  float limit_ = std::numeric_limits<float>::infinity();
  std::vector<Found> found_;
  std::vector<float> high_;  // of each
  std::vector<uint32_t> spare_;  // slots
  Aligned<uint8_t> codes_;
};

}  // namespace ragrig
