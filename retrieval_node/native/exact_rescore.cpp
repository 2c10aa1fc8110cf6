#include "exact_rescore.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "exact_kernels.hpp"

namespace ragrig {

namespace {

constexpr int64_t kPiece = 64;

// Vectors lie far apart: ask for the next ones while some are computed.
void prefetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) {
    __builtin_prefetch(static_cast<const char*>(from) + at);
  }
}

// Distances of hits first .. last - 1, all of segments with the same kind of vectors.
void rescore_run(const Batch& batch, const float* query, ExactDistances distances, int64_t first,
                 int64_t last, std::vector<Hit>& hits) {
  const void* rows[kPiece];
  float found[kPiece];
  for (int64_t at = first; at < last; at += kPiece) {
    const int64_t count = std::min(kPiece, last - at);
    for (int64_t i = 0; i < count; i++) {
      const Hit& hit = hits[static_cast<size_t>(at + i)];
      const Segment& segment = *batch.segments[hit.segment];
      rows[i] = segment.vector(hit.position);
      prefetch(rows[i], segment.vector_bytes());
    }
    distances(query, rows, count, batch.refine_dim, found);
    for (int64_t i = 0; i < count; i++) hits[static_cast<size_t>(at + i)].distance = found[i];
  }
}

}  // namespace

bool rescore_hits(const Batch& batch, int64_t query, bool squared, Isa isa,
                  std::vector<Hit>& hits, Progress& progress) {
  const auto half = [&](const Hit& hit) { return batch.segments[hit.segment]->half(); };
  for (const Hit& hit : hits) {
    const int64_t bad = batch.segments[hit.segment]->ensure_vectors(hit.position, 1);
    if (bad >= 0) {
      progress.corrupt(static_cast<int>(hit.segment), bad);
      return false;
    }
  }
  const auto border = std::partition(hits.begin(), hits.end(), half);
  const int64_t halves = border - hits.begin();
  const float* asked = batch.refine_queries + query * batch.refine_dim;
  rescore_run(batch, asked, exact_distances(isa, {squared, true}), 0, halves, hits);
  rescore_run(batch, asked, exact_distances(isa, {squared, false}), halves,
              static_cast<int64_t>(hits.size()), hits);
  // A number that is none would break the order; only a forged file holds one.
  for (Hit& hit : hits) {
    if (std::isnan(hit.distance)) hit.distance = std::numeric_limits<float>::infinity();
  }
  const auto before = [](const Hit& a, const Hit& b) { return a.before(b); };
  const auto keep = std::min<int64_t>(batch.k, static_cast<int64_t>(hits.size()));
  std::partial_sort(hits.begin(), hits.begin() + keep, hits.end(), before);
  hits.resize(static_cast<size_t>(keep));
  return true;
}

void put_hits(const std::vector<Hit>& hits, int64_t query, int64_t k, const Output& out) {
  const auto count = std::min<int64_t>(k, static_cast<int64_t>(hits.size()));
  for (int64_t i = 0; i < count; i++) {
    out.distances[query * k + i] = hits[static_cast<size_t>(i)].distance;
    out.rows[query * k + i] = hits[static_cast<size_t>(i)].row;
  }
  out.counts[query] = static_cast<int32_t>(count);
}

}  // namespace ragrig
