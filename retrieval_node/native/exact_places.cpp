#include "exact_places.hpp"

#include <algorithm>

namespace ragrig {

namespace {

struct Wanted {
  int64_t row;
  int64_t query;
};

}  // namespace

bool place_rows(const Batch& batch, const int64_t* rows, const int32_t* counts, int64_t width,
                std::vector<std::vector<Hit>>& hits, Progress& progress) {
  std::vector<Wanted> wanted;
  for (int64_t q = 0; q < batch.n; q++) {
    for (int64_t i = 0; i < counts[q]; i++) wanted.push_back({rows[q * width + i], q});
  }
  const auto lower = [](const Wanted& a, const Wanted& b) { return a.row < b.row; };
  std::sort(wanted.begin(), wanted.end(), lower);
  for (size_t s = 0; s < batch.segments.size(); s++) {
    const Segment& segment = *batch.segments[s];
    const auto from = std::lower_bound(wanted.begin(), wanted.end(),
                                       Wanted{segment.row_start(), 0}, lower);
    const auto to = std::lower_bound(
        from, wanted.end(), Wanted{segment.row_start() + segment.row_count(), 0}, lower);
    if (from == to) continue;
    const int64_t bad = segment.ensure_ids(0, segment.rows());
    if (bad >= 0) {
      progress.corrupt(static_cast<int>(s), bad);
      return false;
    }
    // One bit per row of the segment: most rows are not wanted by anybody.
    std::vector<uint64_t> marked(static_cast<size_t>(segment.row_count() / 64 + 1), 0);
    for (auto one = from; one != to; ++one) {
      const int64_t id = one->row - segment.row_start();
      marked[static_cast<size_t>(id / 64)] |= uint64_t{1} << (id % 64);
    }
    for (int64_t at = 0; at < segment.rows(); at++) {
      const int64_t id = segment.ids()[at];
      if (id >= segment.row_count()) {
        progress.corrupt(static_cast<int>(s), segment.id_offset(at));
        return false;
      }
      if (!((marked[static_cast<size_t>(id / 64)] >> (id % 64)) & 1)) continue;
      const int64_t row = segment.row_start() + id;
      for (auto one = std::lower_bound(from, to, Wanted{row, 0}, lower);
           one != to && one->row == row; ++one) {
        hits[static_cast<size_t>(one->query)].push_back(
            {0.0f, static_cast<uint32_t>(s), row, at});
      }
    }
  }
  return true;
}

}  // namespace ragrig
