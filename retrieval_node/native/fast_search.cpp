#include "fast_search.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "fast_work.hpp"

namespace ragrig {
namespace {

// Bytes of byte tables that one chunk of a list-major search works with.
constexpr int64_t kChunkTableBytes = 512 * 1024;
constexpr int64_t kLeastChunk = 8;
// Nearest lists that a query scans by itself: its limit is low then for all others.
constexpr int64_t kOpened = 8;
// Queries per list from which a batch is scanned by list.
constexpr double kLeastShare = 4.0;
// Queries of one task in a search by query.
constexpr int64_t kMostTogether = 16;
// Codes below which several threads for one query do not pay for waking them.
constexpr int64_t kLeastSplitBytes = 512 * 1024;
// Blocks of a list that one thread takes at a time.
constexpr int64_t kSplitBlocks = 512;

// Makes a query's tables and finds its lists. shared: see FastQuery::reset.
void begin_query(const FastContext& context, Workspace& work, QuerySlot& slot, int64_t q,
                 std::atomic<float>* shared = nullptr) {
  slot.tables.build(context.index, context.kernels, context.batch.queries + q * context.index.dim);
  slot.state.reset(context, q, &slot.tables, shared);
  list_runs(context, q, work);
}

// Each task some queries: what one is refined with comes while the next one is scanned.
void search_by_query(const FastContext& context, Pool& pool, const Output& output) {
  const int64_t n = context.batch.n;
  const int64_t some = std::clamp<int64_t>(n / (2 * pool.threads()), 1, kMostTogether);
  pool.run((n + some - 1) / some, [&](int64_t task, int) {
    if (context.progress.stopped()) return;
    BorrowedWorkspace borrowed(context.index);
    Workspace& work = *borrowed;
    FastQuery* last = nullptr;
    for (int64_t q = task * some; q < std::min(n, (task + 1) * some); ++q) {
      QuerySlot& slot = work.slot(static_cast<size_t>(q & 1));
      begin_query(context, work, slot, q);
      if (!scan_runs(context, work, slot.state, work.runs.size())) break;
      slot.state.shortlist().expect();
      if (last) finish_query(context, work, *last, output);
      last = &slot.state;
    }
    if (last && !context.progress.stopped()) finish_query(context, work, *last, output);
    count_work(context, work.scratch);
  });
}

// A piece of a list for whichever thread is free.
struct Piece {
  size_t run;
  int64_t first, blocks;
};

std::vector<Piece> cut_runs(const Workspace& work, size_t from) {
  std::vector<Piece> pieces;
  for (size_t i = from; i < work.runs.size(); ++i)
    for (int64_t first = 0; first < work.runs[i].view.blocks; first += kSplitBlocks)
      pieces.push_back({i, first, std::min(kSplitBlocks, work.runs[i].view.blocks - first)});
  return pieces;
}

// All threads for one query: the caller scans the nearest list alone, so that the
// others start with a limit.
void search_split(const FastContext& context, Pool& pool, int64_t q, const Output& output) {
  BorrowedWorkspace borrowed(context.index);
  Workspace& work = *borrowed;
  QuerySlot& main = work.slot(0);
  std::atomic<float> shared{std::numeric_limits<float>::infinity()};
  begin_query(context, work, main, q, &shared);
  size_t seeded = 0;
  while (seeded < work.runs.size() &&
         main.state.limit() == std::numeric_limits<float>::infinity() &&
         work.runs[seeded].view.blocks <= kSplitBlocks) {
    if (!scan_list(context, work.scratch, main.state, work.runs[seeded], work.coarse[seeded],
                   nullptr))
      return;
    ++seeded;
  }
  const std::vector<Piece> pieces = cut_runs(work, seeded);
  std::atomic<size_t> next{0};
  std::mutex merging;
  pool.run(std::min<int64_t>(pool.threads(), static_cast<int64_t>(pieces.size())),
           [&](int64_t, int) {
    BorrowedWorkspace mine_memory(context.index);
    Workspace& mine = *mine_memory;
    FastQuery& state = mine.slot(0).state;
    state.reset(context, q, &main.tables, &shared);
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces.size();) {
      const Piece& piece = pieces[i];
      const ListRun& run = work.runs[piece.run];
      if (!may_scan(context, run)) break;
      const double coarse = work.coarse[piece.run];
      mine.scratch.codes += std::min(run.view.rows - piece.first * kLanes, piece.blocks * kLanes);
      if (!scan_blocks(context, mine.scratch, state, run, coarse, piece.first, piece.blocks,
                       nullptr))
        break;
    }
    count_work(context, mine.scratch);
    std::lock_guard<std::mutex> lock(merging);
    main.state.shortlist().take(state.shortlist(), main.state.exact_adc(context, mine.scratch));
  });
  main.state.shortlist().expect();
  if (!context.progress.stopped()) finish_query(context, work, main.state, output);
  count_work(context, work.scratch);
}

// One (list, query) of an inverted probe table.
struct Visit {
  int32_t list, slot;
  double coarse;
};

// Visits by list, those of a list in the order they were added.
class Visits {
 public:
  explicit Visits(int64_t nlist) : ends_(static_cast<size_t>(nlist) + 1, 0) {}

  void add(const Visit& visit) {
    added_.push_back(visit);
    ++ends_[static_cast<size_t>(visit.list) + 1];
  }

  // Sorted by counting: comparing takes longer than scanning short lists does.
  const std::vector<Visit>& sorted() {
    for (size_t l = 1; l < ends_.size(); ++l) ends_[l] += ends_[l - 1];
    sorted_.resize(added_.size());
    for (const Visit& visit : added_)
      sorted_[ends_[static_cast<size_t>(visit.list)]++] = visit;
    return sorted_;
  }

 private:
  std::vector<size_t> ends_;
  std::vector<Visit> added_, sorted_;
};

// How many runs the query's kOpened nearest lists are.
size_t opened_runs(const Workspace& work) {
  int64_t last = -1, lists = 0;
  for (size_t i = 0; i < work.runs.size(); ++i) {
    lists += work.runs[i].list != last;
    last = work.runs[i].list;
    if (lists > kOpened) return i;
  }
  return work.runs.size();
}

// Builds the query's tables and scans its nearest lists; the rest become visits.
bool open_query(const FastContext& context, Workspace& work, int64_t q, int32_t number,
                Visits& visits) {
  QuerySlot& slot = work.slot(static_cast<size_t>(number));
  begin_query(context, work, slot, q);
  size_t i = opened_runs(work);
  if (!scan_runs(context, work, slot.state, i)) return false;
  slot.widest = std::numeric_limits<double>::infinity();
  for (int64_t last = -1; i < work.runs.size(); ++i) {
    const ListRun& run = work.runs[i];
    slot.widest = std::min(slot.widest, offset_of(run, work.coarse[i]));
    if (run.list != last)
      visits.add({static_cast<int32_t>(run.list), number, work.coarse[i]});
    last = run.list;
  }
  return true;
}

// One list of one segment for all its visitors. next: the list that follows, or null.
bool visit_list(const FastContext& context, Workspace& work, const ListRun& run,
                const Visit* visits, size_t count, const ListRun* next) {
  if (!may_scan(context, run)) return false;
  work.scratch.codes += run.view.rows * static_cast<int64_t>(count);
  const int64_t step = run_blocks(context.index.m);
  for (int64_t first = 0; first < run.view.blocks; first += step) {
    const int64_t blocks = std::min(step, run.view.blocks - first);
    for (size_t v = 0; v < count; ++v) {
      QuerySlot& slot = work.slot(static_cast<size_t>(visits[v].slot));
      // The codes stay in cache for all visitors; the last one fetches what comes next.
      Ahead ahead;
      if (v + 1 == count) ahead = ahead_of(context.index, run, first + blocks, next);
      ahead.cached = v > 0;
      if (!slot.state.scan(context, work.scratch, run, visits[v].coarse, slot.widest, first,
                           blocks, ahead))
        return false;
    }
  }
  return true;
}

// The runs that visits ask for, in their order; `first` is each one's first visit.
struct VisitedRun {
  ListRun run;
  size_t first, count;
};

std::vector<VisitedRun> visited_runs(const FastContext& context, const std::vector<Visit>& visits) {
  std::vector<VisitedRun> runs;
  for (size_t v = 0; v < visits.size();) {
    size_t end = v;
    while (end < visits.size() && visits[end].list == visits[v].list) ++end;
    for (size_t s = 0; s < context.batch.segments.size(); ++s) {
      const Segment& segment = *context.batch.segments[s];
      if (segment.list_rows(visits[v].list) > 0)
        runs.push_back({{static_cast<int>(s), visits[v].list, segment.list(visits[v].list)},
                        v, end - v});
    }
    v = end;
  }
  return runs;
}

void search_chunk(const FastContext& context, Workspace& work, int64_t first, int64_t count,
                  const Output& output) {
  Visits added(context.index.nlist);
  for (int64_t i = 0; i < count; ++i)
    if (!open_query(context, work, first + i, static_cast<int32_t>(i), added)) return;
  const std::vector<Visit>& visits = added.sorted();
  const std::vector<VisitedRun> runs = visited_runs(context, visits);
  for (size_t r = 0; r < runs.size(); ++r) {
    const ListRun* next = r + 1 < runs.size() ? &runs[r + 1].run : nullptr;
    if (!visit_list(context, work, runs[r].run, &visits[runs[r].first], runs[r].count, next))
      return;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (i + 1 < count) work.slot(static_cast<size_t>(i + 1)).state.shortlist().expect();
    finish_query(context, work, work.slot(static_cast<size_t>(i)).state, output);
  }
}

void search_by_list(const FastContext& context, Pool& pool, const Output& output) {
  const int64_t n = context.batch.n;
  const int64_t fitting = kChunkTableBytes / (context.index.m * kCodes);
  const int64_t even = (n + pool.threads() - 1) / pool.threads();
  const int64_t chunk = std::max<int64_t>(1, std::min(even, std::max(fitting, kLeastChunk)));
  pool.run((n + chunk - 1) / chunk, [&](int64_t i, int) {
    if (context.progress.stopped()) return;
    BorrowedWorkspace borrowed(context.index);
    search_chunk(context, *borrowed, i * chunk, std::min(chunk, n - i * chunk), output);
    count_work(context, (*borrowed).scratch);
  });
}

// By list where the batch's queries meet in lists often enough that reading each
// list once pays for limits that tighten later.
Order choose_order(const FastContext& context, int threads) {
  const Batch& batch = context.batch;
  const int64_t together = batch.n / threads;
  const double visits = static_cast<double>(together) * static_cast<double>(batch.nprobe);
  const bool shared = visits >= kLeastShare * static_cast<double>(context.index.nlist);
  return together >= kLeastChunk && batch.nprobe > 1 && shared ? Order::list : Order::query;
}

int64_t bytes_per_query(const FastContext& context) {
  int64_t rows = 0;
  for (const auto& segment : context.batch.segments) rows += segment->rows();
  return rows * context.index.m / context.index.nlist * context.batch.nprobe;
}

}  // namespace

Order parse_order(const std::string& name) {
  if (name == "auto") return Order::automatic;
  if (name == "query") return Order::query;
  if (name == "list") return Order::list;
  throw std::invalid_argument("order: " + name + " is not auto, query or list");
}

void fast_search(const Index& index, const Batch& batch, Pool& pool, Order order,
                 const Output& output, Progress& progress) {
  const FastContext context{index, kernels_of(index.isa), batch, progress};
  if (order == Order::automatic) order = choose_order(context, pool.threads());
  if (order == Order::list) return search_by_list(context, pool, output);
  const bool split = pool.threads() > 1 && batch.n < pool.threads() &&
                     bytes_per_query(context) >= kLeastSplitBytes;
  if (!split) return search_by_query(context, pool, output);
  for (int64_t q = 0; q < batch.n && !progress.stopped(); ++q)
    search_split(context, pool, q, output);
}

}  // namespace ragrig
