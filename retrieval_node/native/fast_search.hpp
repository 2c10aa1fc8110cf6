// Mode `fast`: float IVF-PQ, exactly, for a batch of queries.
#pragma once

#include <string>

#include "batch.hpp"
#include "pool.hpp"

namespace ragrig {

// query: each query scans its lists, nearest first; its limit tightens soonest.
// list: a list is read once for all queries of the batch that probe it.
enum class Order { automatic, query, list };

// Throws std::invalid_argument.
Order parse_order(const std::string& name);

// Output arrays are zeroed by the caller. When progress says stopped they mean nothing.
void fast_search(const Index& index, const Batch& batch, Pool& pool, Order order,
                 const Output& output, Progress& progress);

}  // namespace ragrig
