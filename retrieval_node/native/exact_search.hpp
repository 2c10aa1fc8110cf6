// Every live row against every query.
#pragma once

#include "batch.hpp"
#include "index.hpp"
#include "isa.hpp"
#include "pool.hpp"

namespace ragrig {

// The k nearest by (exact distance, row id); Batch::lists is not read. The same
// bits whatever the code path and the number of threads.
void exact_search(const Batch& batch, Metric metric, Isa isa, Pool& pool, const Output& out,
                  Progress& progress);

}  // namespace ragrig
