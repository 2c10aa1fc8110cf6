// The parts that the orders of mode `fast` share: memory, the lists of a query,
// scanning one list, handing a finished query over.
#pragma once

#include <memory>
#include <vector>

#include "fast_scan.hpp"

namespace ragrig {

// Memory of one query in a chunk.
struct QuerySlot {
  QueryTables tables;
  FastQuery state;
  double widest = 0.0;  // smallest offset of the lists still to scan
};

// Memory of one thread.
struct Workspace {
  Scratch scratch;
  std::vector<std::unique_ptr<QuerySlot>> slots;
  std::vector<Probe> probes;
  std::vector<ListRun> runs;
  std::vector<double> coarse;  // of each run
  std::vector<Hit> hits;

  QuerySlot& slot(size_t i);
};

// A workspace of the index's spare ones; goes back when it is let go.
class BorrowedWorkspace {
 public:
  explicit BorrowedWorkspace(const Index& index);
  ~BorrowedWorkspace() { index_.give_spare(std::move(memory_)); }
  BorrowedWorkspace(const BorrowedWorkspace&) = delete;
  BorrowedWorkspace& operator=(const BorrowedWorkspace&) = delete;

  Workspace& operator*() const { return *static_cast<Workspace*>(memory_.get()); }

 private:
  const Index& index_;
  std::shared_ptr<void> memory_;
};

// coarse_l of a query and list; see fast_tables.hpp.
double coarse_of(const FastContext& context, int64_t query, int64_t list);

// The query's non-empty lists in probe order, in workspace.runs and .coarse.
void list_runs(const FastContext& context, int64_t query, Workspace& workspace);

inline double offset_of(const ListRun& run, double coarse) {
  return coarse + static_cast<double>(run.view.bias_base);
}

// False: the search is to end (cancelled, deadline, damaged list).
bool may_scan(const FastContext& context, const ListRun& run);

// What to prefetch while blocks up to `done` of a run are scanned: what is left of it, else
// what follows. next: the run after it, or null.
Ahead ahead_of(const Index& index, const ListRun& run, int64_t done, const ListRun* next);

// A whole list for one query. next: what is scanned after it, or null.
bool scan_list(const FastContext& context, Scratch& scratch, FastQuery& query,
               const ListRun& run, double coarse, const ListRun* next);

// Blocks first .. first + blocks - 1 of it; first is a multiple of kGroupBlocks.
// Unlike scan_list it neither verifies nor counts.
bool scan_blocks(const FastContext& context, Scratch& scratch, FastQuery& query,
                 const ListRun& run, double coarse, int64_t first, int64_t blocks,
                 const ListRun* next);

// The first `count` of the workspace's runs. False: the search is to end.
bool scan_runs(const FastContext& context, Workspace& work, FastQuery& query, size_t count);

// Refines where asked and writes the query's result. Leaves other runs in the workspace
// where the query had to be scanned again.
void finish_query(const FastContext& context, Workspace& work, FastQuery& query,
                  const Output& output);

// Adds the thread's counts to the search's.
void count_work(const FastContext& context, Scratch& scratch);

}  // namespace ragrig
