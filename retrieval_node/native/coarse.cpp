#include "coarse.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "aligned.hpp"
#include "exact_kernels.hpp"
#include "kernels.hpp"

namespace ragrig {
namespace {

// Distances of a block of queries stay in cache until they are selected from.
constexpr int64_t kBlockBytes = 192 * 1024;
constexpr int64_t kMostQueries = 32, kLeastQueries = 4;
// Above this, sorting beats comparing all with all.
constexpr int64_t kMostRanked = 320;
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// Orders as distances do; numbers that are none come last.
uint32_t key_of(float distance) {
  if (std::isnan(distance)) return ~uint32_t{0};
  const float value = distance + 0.0f;  // -0 becomes 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// One thread's memory; not cleared, for a single query takes hardly longer than that.
struct Selection {
  explicit Selection(int64_t nlist) {
    minima.reserve(nlist + kPanel);
    distances.reserve(nlist);
    centroids.reserve(nlist);
    numbers.reserve(nlist + kPanel);
    ranks.reserve(kMostRanked);
    keys.reserve(nlist + kRankLanes);
  }

  Aligned<float> minima, distances;
  Aligned<const void*> centroids;
  Aligned<int32_t> numbers, ranks;
  Aligned<uint32_t> keys;
  std::vector<uint64_t> ordered;
};

// Lists that hold the `wanted` nearest, in selection.numbers; returns how many. Of twice as
// many columns' minima, the wanted-th smallest bounds their nearness.
int64_t narrow(const Kernels& kernels, const float* nearness, double slack, int64_t nlist,
               int64_t wanted, Selection& selection) {
  int64_t columns = kFloatLanes;
  while (columns < 2 * wanted) columns *= 2;
  const int64_t whole = nlist - nlist % columns;
  if (whole >= 2 * columns && std::isfinite(slack)) {
    float* const minima = selection.minima.get();
    kernels.column_minima(nearness, whole, columns, minima);
    std::nth_element(minima, minima + wanted - 1, minima + columns);
    const auto bound = static_cast<float>(static_cast<double>(minima[wanted - 1]) + 2.0 * slack);
    const int64_t found =
        kernels.collect(nearness, nlist, std::nextafter(bound, kInfinite), selection.numbers.get());
    // Fewer only where a nearness is not a number.
    if (found >= wanted) return found;
  }
  for (int64_t i = 0; i < nlist; ++i)
    selection.numbers.get()[i] = static_cast<int32_t>(i);
  return nlist;
}

// Exact distances of the lists that were left.
void measure(const Index& index, const float* query, int64_t found, Selection& selection) {
  const bool squared = index.metric == Metric::l2;
  const void** const centroids = selection.centroids.get();
  float* const distances = selection.distances.get();
  for (int64_t i = 0; i < found; ++i) centroids[i] = index.centroid(selection.numbers.get()[i]);
  exact_distances(index.isa, {squared, false})(query, centroids, found, index.dim, distances);
  for (int64_t i = 0; i < found; ++i) selection.keys.get()[i] = key_of(distances[i]);
}

// Leaves out the lists that lie beyond `reach` times the nearest one's distance; returns how
// many stay. Where that one is no positive number, all do.
int64_t within_reach(float reach, int64_t found, Selection& selection) {
  const float* const distances = selection.distances.get();
  const float bound = reach * *std::min_element(distances, distances + found);
  if (!(bound > 0.0f)) return found;
  int64_t kept = 0;
  for (int64_t i = 0; i < found; ++i) {
    selection.numbers.get()[kept] = selection.numbers.get()[i];
    selection.keys.get()[kept] = selection.keys.get()[i];
    kept += distances[i] <= bound;
  }
  return kept;
}

// Each list's place by counting how many are nearer. False: some are equally near.
bool place_all(const Kernels& kernels, int64_t found, int64_t wanted, Selection& selection,
               int32_t* out) {
  const int64_t padded = (found + kRankLanes - 1) / kRankLanes * kRankLanes;
  uint32_t* const keys = selection.keys.get();
  std::fill(keys + found, keys + padded, ~uint32_t{0});
  kernels.rank(keys, padded, selection.ranks.get());
  int64_t sum = 0;
  for (int64_t i = 0; i < found; ++i) {
    const int32_t rank = selection.ranks.get()[i];
    sum += rank;
    if (rank < wanted) out[rank] = selection.numbers.get()[i];
  }
  return sum == found * (found - 1) / 2;
}

// The `wanted` nearest of them, ties by number.
void select(const Kernels& kernels, int64_t found, int64_t wanted, Selection& selection,
            int32_t* out) {
  if (found <= kMostRanked && place_all(kernels, found, wanted, selection, out)) return;
  std::vector<uint64_t>& keys = selection.ordered;
  keys.resize(static_cast<size_t>(found));
  for (size_t i = 0; i < keys.size(); ++i)
    keys[i] = uint64_t{selection.keys.get()[i]} << 32 |
              static_cast<uint32_t>(selection.numbers.get()[i]);
  if (found > 2 * wanted) std::nth_element(keys.begin(), keys.begin() + wanted, keys.end());
  const auto end = keys.begin() + std::min<int64_t>(found, found > 2 * wanted ? wanted : found);
  std::sort(keys.begin(), end);
  for (int64_t i = 0; i < wanted; ++i)
    out[i] = static_cast<int32_t>(keys[static_cast<size_t>(i)] & 0xFFFFFFFFu);
}

}  // namespace

void coarse_search(const Index& index, const float* queries, int64_t n, int64_t nprobe,
                   float reach, Pool& pool, int32_t* out) {
  if (n == 0) return;
  const Kernels& kernels = kernels_of(index.isa);
  const Nearness& near = index.nearness();
  const int64_t wanted = std::min(nprobe, index.nlist), stride = near.stride();
  const int64_t fitting = kBlockBytes / (stride * static_cast<int64_t>(sizeof(float)));
  int64_t block = std::min(kMostQueries, std::max(kLeastQueries, fitting));
  block = std::min(block, (n + pool.threads() - 1) / pool.threads());
  pool.run((n + block - 1) / block, [&](int64_t task, int) {
    const int64_t first = task * block, count = std::min(block, n - first);
    Aligned<float> rows_memory, centred_memory;
    float* const rows = rows_memory.reserve(count * stride);
    float* const centred = centred_memory.reserve(count * index.dim);
    Selection selection(index.nlist);
    near.rows(kernels, queries + first * index.dim, count, centred, rows);
    for (int64_t q = 0; q < count; ++q) {
      const float* query = queries + (first + q) * index.dim;
      int64_t found =
          narrow(kernels, rows + q * stride, near.slack(centred + q * index.dim), index.nlist,
                 wanted, selection);
      measure(index, query, found, selection);
      if (std::isfinite(reach)) found = within_reach(reach, found, selection);
      int32_t* const chosen = out + (first + q) * wanted;
      const int64_t some = std::min(wanted, found);
      select(kernels, found, some, selection, chosen);
      std::fill(chosen + some, chosen + wanted, -1);
    }
  });
}

}  // namespace ragrig
