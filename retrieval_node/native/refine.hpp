// Rescoring of hits with stored vectors, and writing results out.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"
#include "kernels.hpp"

namespace ragrig {

// Replaces the distances of `hits` by exact ones and sorts by (distance, row id).
// False: a block of vectors is damaged; progress says where.
bool refine(const Kernels& kernels, Metric metric, const Batch& batch, int64_t query,
            std::vector<Hit>& hits, Progress& progress);

// The first k hits of a query; what is past them stays zero.
void write_hits(const std::vector<Hit>& hits, int64_t k, int64_t query, const Output& output);

}  // namespace ragrig
