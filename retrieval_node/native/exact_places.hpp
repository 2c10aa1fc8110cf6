// Where rows lie that are known by their ids alone.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"

namespace ragrig {

// Finds every (row id -> segment, position) of one call by reading the segments'
// ids once; a search that refines by itself knows the positions and needs none.
// Hits come back per query with `row` filled in; rows no segment holds are left
// out. False: a block was damaged, and progress says so.
bool place_rows(const Batch& batch, const int64_t* rows, const int32_t* counts, int64_t width,
                std::vector<std::vector<Hit>>& hits, Progress& progress);

}  // namespace ragrig
