// A whole search in mode `contract16`.
#pragma once

#include "batch.hpp"
#include "contract_numbers.hpp"
#include "index.hpp"
#include "pool.hpp"

namespace ragrig {

// The k nearest per query by (sum, row id), or the refined ones; the same bits
// whatever the code path and the number of threads.
void contract_search(const Index& index, const Batch& batch, const Contract& contract, Pool& pool,
                     const Output& out, Progress& progress);

}  // namespace ragrig
