#include "contract_search.hpp"

#include <algorithm>
#include <deque>
#include <numeric>
#include <vector>

#include "contract_kernels.hpp"
#include "contract_tables.hpp"
#include "exact_rescore.hpp"

namespace ragrig {

namespace {

// A position in the batch's segments in one word, as Ranked carries it.
constexpr int kPositionBits = 32;
constexpr int64_t place(int64_t segment, int64_t position) {
  return segment << kPositionBits | position;
}

// What one thread needs for itself.
struct Scratch {
  TopSums top;
  std::vector<float> floats;
  std::vector<uint8_t> split;
  int64_t split_of = -1;  // table the split bytes are of
  bool high = false;
  int64_t scanned = 0;
};

// One query at a time; its steps may be spread over threads.
class QuerySearch {
 public:
  QuerySearch(const Index& index, const Batch& batch, const Contract& contract,
              Progress& progress)
      : index_(index), batch_(batch), contract_(contract), progress_(progress) {}

  void start(int64_t query) {
    query_ = query;
    lists_.clear();
    const int32_t* own = batch_.lists + query * batch_.nprobe;
    for (int64_t p = 0; p < batch_.nprobe; p++) {
      if (own[p] >= 0) lists_.push_back(own[p]);
    }
    tables_.reset(index_, contract_, batch_.queries + query * batch_.dim, lists_.data(),
                  static_cast<int64_t>(lists_.size()));
  }

  int64_t pieces() const { return tables_.pieces(); }
  void fill(int64_t piece) {
    if (!stopped()) tables_.fill(piece);
  }

  // Lists by the smallest sum they can hold: the threshold falls early, and once
  // it is below a list's bias all later lists are passed over.
  void order() {
    tables_.finish();
    order_.resize(lists_.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [this](int64_t a, int64_t b) { return tables_.bias(a) < tables_.bias(b); });
  }

  int64_t lists() const { return static_cast<int64_t>(order_.size()); }

  void begin(Scratch& scratch) const {
    scratch.top.reset(wanted());
    scratch.split.resize(static_cast<size_t>(index_.m * kSplitColumn));
    scratch.split_of = -1;
  }

  // The list at a place of the order, in all segments.
  void scan(int64_t at, Scratch& scratch) const {
    const int64_t p = order_[static_cast<size_t>(at)];
    const int64_t list = lists_[static_cast<size_t>(p)];
    for (size_t s = 0; s < batch_.segments.size(); s++) {
      const Segment& segment = *batch_.segments[s];
      const int64_t rows = segment.list_rows(list);
      if (rows == 0) continue;
      if (stopped()) return;
      scratch.scanned += rows;
      if (tables_.bias(p) > scratch.top.worst_sum()) continue;
      const int64_t bad = segment.ensure_list(list);
      if (bad >= 0) return progress_.corrupt(static_cast<int>(s), bad);
      const ListView view = segment.list(list);
      ask_for_head(view.codes, view.blocks * kLanes * index_.m);
      prepare(p, scratch);
      scan_segment(p, static_cast<int64_t>(s), scratch);
    }
  }

  void finish(Scratch& scratch, const Output& out) {
    if (progress_.stopped()) return;
    const std::vector<Ranked>& best = scratch.top.finish();
    std::vector<Hit> hits;
    hits.reserve(best.size());
    for (const Ranked& one : best) {
      hits.push_back({tables_.scale().distance(sum_of(one.key)),
                      static_cast<uint32_t>(one.at >> kPositionBits), row_of(one.key),
                      one.at & ((int64_t{1} << kPositionBits) - 1)});
    }
    const bool squared = index_.metric == Metric::l2;
    if (batch_.refine_k > 0 &&
        !rescore_hits(batch_, query_, squared, index_.isa, hits, progress_)) {
      return;
    }
    put_hits(hits, query_, batch_.k, out);
  }

 private:
  int64_t wanted() const { return batch_.refine_k > 0 ? batch_.refine_k : batch_.k; }

  bool stopped() const {
    if (progress_.stopped()) return true;
    const Stop why = batch_.stopped();
    if (why == Stop::none) return false;
    progress_.halt(why);
    return true;
  }

  void prepare(int64_t p, Scratch& scratch) const {
    const int64_t table = tables_.table_of(p);
    if (scratch.split_of == table) return;
    scratch.high = tables_.split(table, scratch.floats, scratch.split.data());
    scratch.split_of = table;
  }

  void scan_segment(int64_t p, int64_t number, Scratch& scratch) const {
    const Segment& segment = *batch_.segments[static_cast<size_t>(number)];
    const ListView view = segment.list(lists_[static_cast<size_t>(p)]);
    SumScan job;
    job.codes = view.codes;
    job.rows = view.rows;
    job.ids = view.ids;
    job.row_start = segment.row_start();
    job.row_count = segment.row_count();
    job.at = place(number, view.first_row);
    job.split = scratch.split.data();
    job.m = static_cast<int>(index_.m);
    job.high = scratch.high;
    job.bias = tables_.bias(p);
    job.sum_max = contract_.sum_max();
    job.lanes = nullptr;
    job.live = batch_.live;
    job.filter = batch_.filter(query_);
    const int64_t bad = contract_ops(index_.isa).scan(job, scratch.top);
    if (bad >= 0) {
      progress_.corrupt(static_cast<int>(number), segment.id_offset(view.first_row + bad));
    }
  }

  const Index& index_;
  const Batch& batch_;
  const Contract& contract_;
  Progress& progress_;
  int64_t query_ = 0;
  QueryTables tables_;
  std::vector<int64_t> lists_;
  std::vector<int64_t> order_;
};

// Each query in one thread.
void by_query(const Index& index, const Batch& batch, const Contract& contract, Pool& pool,
              const Output& out, Progress& progress) {
  std::vector<Scratch> scratch(static_cast<size_t>(pool.threads()));
  std::deque<QuerySearch> searches;
  for (size_t i = 0; i < scratch.size(); i++) {
    searches.emplace_back(index, batch, contract, progress);
  }
  pool.run(batch.n, [&](int64_t query, int slot) {
    Scratch& own = scratch[static_cast<size_t>(slot)];
    QuerySearch& search = searches[static_cast<size_t>(slot)];
    search.start(query);
    for (int64_t i = 0; i < search.pieces(); i++) search.fill(i);
    search.order();
    search.begin(own);
    for (int64_t i = 0; i < search.lists(); i++) search.scan(i, own);
    search.finish(own, out);
  });
  for (const Scratch& one : scratch) progress.codes_scanned += one.scanned;
}

// The lists of each query over all threads.
void by_list(const Index& index, const Batch& batch, const Contract& contract, Pool& pool,
             const Output& out, Progress& progress) {
  std::vector<Scratch> scratch(static_cast<size_t>(pool.threads()));
  QuerySearch search(index, batch, contract, progress);
  for (int64_t query = 0; query < batch.n; query++) {
    search.start(query);
    pool.run(search.pieces(), [&](int64_t piece, int) { search.fill(piece); });
    search.order();
    for (Scratch& one : scratch) search.begin(one);
    pool.run(search.lists(), [&](int64_t at, int slot) {
      search.scan(at, scratch[static_cast<size_t>(slot)]);
    });
    for (size_t i = 1; i < scratch.size(); i++) scratch[0].top.merge(scratch[i].top);
    search.finish(scratch[0], out);
  }
  for (const Scratch& one : scratch) progress.codes_scanned += one.scanned;
}

}  // namespace

void contract_search(const Index& index, const Batch& batch, const Contract& contract, Pool& pool,
                     const Output& out, Progress& progress) {
  if (pool.threads() == 1 || batch.n >= pool.threads()) {
    by_query(index, batch, contract, pool, out, progress);
  } else {
    by_list(index, batch, contract, pool, out, progress);
  }
}

}  // namespace ragrig
