// What every search is checked for, in one pass each.
#pragma once

#include <cstdint>

namespace ragrig {

// Whether every value is a number of at most `limit`, in size.
bool all_ordinary(const float* values, int64_t count, float limit);

// Whether every list id is in -1 .. nlist - 1 and no query names one twice.
bool lists_distinct(const int32_t* lists, int64_t n, int64_t nprobe, int64_t nlist);

}  // namespace ragrig
