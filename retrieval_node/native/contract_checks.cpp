#include "contract_checks.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace ragrig {

bool all_ordinary(const float* values, int64_t count, float limit) {
  int bad = 0;
  // Counted and not left early: so it is vectorised. NaN compares false.
  for (int64_t i = 0; i < count; i++) {
    const float size = values[i] < 0 ? -values[i] : values[i];
    bad |= !(size <= limit);
  }
  return bad == 0;
}

bool lists_distinct(const int32_t* lists, int64_t n, int64_t nprobe, int64_t nlist) {
  std::vector<uint64_t> seen(static_cast<size_t>(nlist / 64 + 1));
  for (int64_t q = 0; q < n; q++) {
    const int32_t* own = lists + q * nprobe;
    for (int64_t p = 0; p < nprobe; p++) {
      const int64_t list = own[p];
      if (list < -1 || list >= nlist) return false;
      if (list < 0) continue;
      uint64_t& word = seen[static_cast<size_t>(list / 64)];
      const uint64_t bit = uint64_t{1} << (list % 64);
      if (word & bit) return false;
      word |= bit;
    }
    for (int64_t p = 0; p < nprobe; p++) {
      if (own[p] >= 0) seen[static_cast<size_t>(own[p] / 64)] = 0;
    }
  }
  return true;
}

}  // namespace ragrig
