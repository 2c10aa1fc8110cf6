#include "coarse.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "aligned.hpp"
#include "kernels.hpp"

namespace ragrig {
namespace {

// Distances of a block of queries stay in cache until they are selected from.
constexpr int64_t kBlockBytes = 192 * 1024;
constexpr int64_t kMostQueries = 32, kLeastQueries = 4;
// Above this, sorting beats comparing all with all.
constexpr int64_t kMostRanked = 160;

// Orders as (distance, number) does.
uint64_t key_of(float distance, int32_t number) {
  const float value = distance + 0.0f;  // -0 becomes 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{bits} << 32 | static_cast<uint32_t>(number);
}

// One thread's memory.
struct Selection {
  std::vector<float> minima;
  std::vector<int32_t> numbers, ranks;
  std::vector<uint64_t> keys;

  explicit Selection(int64_t nlist)
      : minima(static_cast<size_t>(nlist + kPanel)), numbers(static_cast<size_t>(nlist + kPanel)),
        ranks(static_cast<size_t>(kMostRanked)) {
    keys.reserve(static_cast<size_t>(nlist));
  }
};

// Candidates that hold the `wanted` nearest, in selection.numbers; returns how many.
// Of twice as many columns' minima, the wanted-th smallest bounds them.
int64_t narrow(const Kernels& kernels, const float* distances, int64_t nlist, int64_t wanted,
               Selection& selection) {
  int64_t columns = kFloatLanes;
  while (columns < 2 * wanted) columns *= 2;
  const int64_t whole = nlist - nlist % columns;
  if (whole >= 2 * columns) {
    float* const minima = selection.minima.data();
    kernels.column_minima(distances, whole, columns, minima);
    std::nth_element(minima, minima + wanted - 1, minima + columns);
    const float bound = minima[wanted - 1];
    const int64_t found = kernels.collect(distances, nlist, bound, selection.numbers.data());
    // Fewer only where distances are not numbers.
    if (found >= wanted) return found;
  }
  for (int64_t i = 0; i < nlist; ++i)
    selection.numbers[static_cast<size_t>(i)] = static_cast<int32_t>(i);
  return nlist;
}

void select(const Kernels& kernels, const float* distances, int64_t nlist, int64_t wanted,
            Selection& selection, int32_t* out) {
  const int64_t found = narrow(kernels, distances, nlist, wanted, selection);
  std::vector<uint64_t>& keys = selection.keys;
  keys.resize(static_cast<size_t>(found));
  for (size_t i = 0; i < keys.size(); ++i)
    keys[i] = key_of(distances[selection.numbers[i]], selection.numbers[i]);
  if (found <= kMostRanked) {
    kernels.rank(keys.data(), found, selection.ranks.data());
    for (size_t i = 0; i < keys.size(); ++i)
      if (selection.ranks[i] < wanted) out[selection.ranks[i]] = selection.numbers[i];
    return;
  }
  if (found > 2 * wanted) std::nth_element(keys.begin(), keys.begin() + wanted, keys.end());
  const auto end = keys.begin() + std::min<int64_t>(found, found > 2 * wanted ? wanted : found);
  std::sort(keys.begin(), end);
  for (int64_t i = 0; i < wanted; ++i)
    out[i] = static_cast<int32_t>(keys[static_cast<size_t>(i)] & 0xFFFFFFFFu);
}

}  // namespace

void coarse_search(const Index& index, const float* queries, int64_t n, int64_t nprobe,
                   Pool& pool, int32_t* out) {
  if (n == 0) return;
  const Kernels& kernels = kernels_of(index.isa);
  const int64_t wanted = std::min(nprobe, index.nlist);
  const int64_t panels = (index.nlist + kPanel - 1) / kPanel, stride = panels * kPanel;
  const int64_t fitting = kBlockBytes / (stride * static_cast<int64_t>(sizeof(float)));
  int64_t block = std::min(kMostQueries, std::max(kLeastQueries, fitting));
  block = std::min(block, (n + pool.threads() - 1) / pool.threads());
  const float* const centroids = index.panels();
  const auto panel = index.metric == Metric::l2 ? kernels.panel_l2 : kernels.panel_ip;
  pool.run((n + block - 1) / block, [&](int64_t task, int) {
    const int64_t first = task * block, count = std::min(block, n - first);
    Aligned<float> memory;
    float* const distances = memory.reserve(count * stride);
    Selection selection(index.nlist);
    for (int64_t p = 0; p < panels; ++p)
      panel(queries + first * index.dim, count, index.dim, centroids + p * kPanel * index.dim,
            distances + p * kPanel, stride);
    for (int64_t q = 0; q < count; ++q)
      select(kernels, distances + q * stride, index.nlist, wanted, selection,
             out + (first + q) * wanted);
  });
}

}  // namespace ragrig
