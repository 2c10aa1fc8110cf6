// Exact distances of found rows.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"
#include "isa.hpp"

namespace ragrig {

// Replaces the distances of one query's hits by exact ones to the stored vectors,
// sorts by (distance, row) and keeps the best batch.k. Reads Batch::segments,
// refine_queries and refine_dim. False: a block was damaged, and progress says so.
bool rescore_hits(const Batch& batch, int64_t query, bool squared, Isa isa,
                  std::vector<Hit>& hits, Progress& progress);

// Writes sorted hits into one query's slots of the output.
void put_hits(const std::vector<Hit>& hits, int64_t query, int64_t k, const Output& out);

}  // namespace ragrig
