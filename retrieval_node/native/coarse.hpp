// The nearest lists of queries, by float32 distances to the centroids.
//
// Distances are those of fixedpoint.exact_distances, bit for bit, whatever the
// code path and the batch; ties go to the smaller list number.
#pragma once

#include <cstdint>

#include "index.hpp"
#include "pool.hpp"

namespace ragrig {

// queries: [n][dim]; out: [n][min(nprobe, nlist)], nearest first. reach: lists farther away
// than this many times the nearest one are left out, -1 in their place; infinity: none is.
void coarse_search(const Index& index, const float* queries, int64_t n, int64_t nprobe,
                   float reach, Pool& pool, int32_t* out);

}  // namespace ragrig
