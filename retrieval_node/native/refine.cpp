#include "refine.hpp"

#include <algorithm>

namespace ragrig {
namespace {

// Rows fetched ahead of the one that is computed, and bytes of each.
constexpr size_t kRowsAhead = 6;
constexpr int64_t kBytesAhead = 1024;

void fetch(const Batch& batch, const Hit& hit) {
  const Segment& segment = *batch.segments[hit.segment];
  const auto* at = static_cast<const char*>(segment.vector(hit.position));
  const int64_t bytes = std::min(segment.vector_bytes(), kBytesAhead);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
}

float exact(const Kernels& kernels, Metric metric, const float* query, const Segment& segment,
            int64_t position) {
  const void* row = segment.vector(position);
  const int64_t dim = segment.vector_dim();
  const bool l2 = metric == Metric::l2;
  if (segment.half()) {
    const auto* values = static_cast<const uint16_t*>(row);
    return l2 ? kernels.l2_half(query, values, dim) : kernels.ip_half(query, values, dim);
  }
  const auto* values = static_cast<const float*>(row);
  return l2 ? kernels.l2(query, values, dim) : kernels.ip(query, values, dim);
}

}  // namespace

bool refine(const Kernels& kernels, Metric metric, const Batch& batch, int64_t query,
            std::vector<Hit>& hits, Progress& progress) {
  const float* const vector = batch.refine_queries + query * batch.refine_dim;
  for (size_t i = 0; i < std::min(kRowsAhead, hits.size()); ++i) fetch(batch, hits[i]);
  for (size_t i = 0; i < hits.size(); ++i) {
    if (i + kRowsAhead < hits.size()) fetch(batch, hits[i + kRowsAhead]);
    Hit& hit = hits[i];
    const Segment& segment = *batch.segments[hit.segment];
    const int64_t bad = segment.ensure_vectors(hit.position, 1);
    if (bad >= 0) {
      progress.corrupt(static_cast<int>(hit.segment), bad);
      return false;
    }
    hit.distance = exact(kernels, metric, vector, segment, hit.position);
  }
  // NaN is only in damaged vectors; last, so that the order stays an order.
  const auto sound = [](const Hit& hit) { return hit.distance == hit.distance; };
  const auto end = std::partition(hits.begin(), hits.end(), sound);
  const auto middle = hits.begin() + std::min<int64_t>(batch.k, end - hits.begin());
  std::partial_sort(hits.begin(), middle, end,
                    [](const Hit& a, const Hit& b) { return a.before(b); });
  hits.resize(static_cast<size_t>(middle - hits.begin()));
  return true;
}

void write_hits(const std::vector<Hit>& hits, int64_t k, int64_t query, const Output& output) {
  const int64_t count = std::min<int64_t>(k, static_cast<int64_t>(hits.size()));
  for (int64_t i = 0; i < count; ++i) {
    output.distances[query * k + i] = hits[static_cast<size_t>(i)].distance;
    output.rows[query * k + i] = hits[static_cast<size_t>(i)].row;
  }
  output.counts[query] = static_cast<int32_t>(count);
}

}  // namespace ragrig
