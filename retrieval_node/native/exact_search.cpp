#include "exact_search.hpp"

#include <algorithm>
#include <vector>

#include "exact_kernels.hpp"
#include "exact_rescore.hpp"
#include "exact_top.hpp"

namespace ragrig {

namespace {

// Queries that share one reading of the vectors.
constexpr int64_t kQueries = 16;
// Rows whose distances are computed at once, and rows of a task.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTaskRows = 2048;

struct Task {
  int segment;
  int64_t first, last;  // positions
};

struct Scratch {
  std::vector<TopHits> tops;      // of the queries in hand
  std::vector<float> floats;      // a tile's vectors, widened
  std::vector<uint64_t> passing;  // per filter, and last: unfiltered
  int64_t scanned = 0;
};

std::vector<Task> tasks_of(const Batch& batch) {
  std::vector<Task> tasks;
  for (size_t s = 0; s < batch.segments.size(); s++) {
    const int64_t rows = batch.segments[s]->rows();
    for (int64_t first = 0; first < rows; first += kTaskRows) {
      tasks.push_back({static_cast<int>(s), first, std::min(rows, first + kTaskRows)});
    }
  }
  return tasks;
}

class ExactSearch {
 public:
  ExactSearch(const Batch& batch, Metric metric, Isa isa, Progress& progress)
      : batch_(batch), squared_(metric == Metric::l2), isa_(isa), progress_(progress) {}

  void scan(const Task& task, int64_t first_query, int64_t last_query, Scratch& scratch) const {
    for (int64_t at = task.first; at < task.last; at += kTileRows) {
      if (stopped()) return;
      const int64_t count = std::min(kTileRows, task.last - at);
      if (!sound(task.segment, at, count)) return;
      if (!bits(task.segment, at, count, scratch)) continue;
      tile(task.segment, at, first_query, last_query, scratch);
      scratch.scanned += count * (last_query - first_query);
    }
  }

 private:
  const Segment& segment(int number) const {
    return *batch_.segments[static_cast<size_t>(number)];
  }

  bool stopped() const {
    if (progress_.stopped()) return true;
    const Stop why = batch_.stopped();
    if (why == Stop::none) return false;
    progress_.halt(why);
    return true;
  }

  bool sound(int number, int64_t first, int64_t count) const {
    const Segment& here = segment(number);
    int64_t bad = here.ensure_ids(first, count);
    if (bad < 0) bad = here.ensure_vectors(first, count);
    for (int64_t i = first; bad < 0 && i < first + count; i++) {
      if (here.ids()[i] >= here.row_count()) bad = here.id_offset(i);
    }
    if (bad < 0) return true;
    progress_.corrupt(number, bad);
    return false;
  }

  // Which rows of a tile pass each filter; false: none passes any.
  bool bits(int number, int64_t first, int64_t count, Scratch& scratch) const {
    const Segment& here = segment(number);
    scratch.passing.assign(static_cast<size_t>(batch_.filter_count + 1), 0);
    uint64_t any = 0;
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = here.row_start() + here.ids()[first + i];
      if (!batch_.live.test(row)) continue;
      any |= uint64_t{1} << i;
      for (int64_t f = 0; f < batch_.filter_count; f++) {
        const Bitmap filter{batch_.filters + f * batch_.filter_bytes, batch_.filter_bytes};
        scratch.passing[static_cast<size_t>(f)] |= static_cast<uint64_t>(filter.test(row)) << i;
      }
    }
    scratch.passing.back() = any;
    return any != 0;
  }

  void tile(int number, int64_t first, int64_t first_query, int64_t last_query,
            Scratch& scratch) const {
    const Segment& here = segment(number);
    const int64_t dim = batch_.dim;
    // Widened once where several queries read it.
    const bool widened = here.half() && last_query - first_query > 1;
    if (widened) {
      const int64_t count = std::min(kTileRows, here.rows() - first);
      scratch.floats.resize(static_cast<size_t>(kTileRows * dim));
      halves_to_floats(isa_)(static_cast<const uint16_t*>(here.vector(first)), count * dim,
                             scratch.floats.data());
    }
    const ExactDistances distances =
        exact_distances(isa_, {squared_, here.half() && !widened});
    for (int64_t query = first_query; query < last_query; query++) {
      const void* rows[kTileRows];
      int64_t positions[kTileRows];
      int64_t count = 0;
      for (uint64_t left = passing(query, scratch); left != 0; left &= left - 1) {
        const int64_t lane = __builtin_ctzll(left);
        positions[count] = first + lane;
        rows[count++] = widened ? static_cast<const void*>(scratch.floats.data() + lane * dim)
                                : here.vector(first + lane);
      }
      float found[kTileRows];
      distances(batch_.queries + query * dim, rows, count, dim, found);
      offer(number, positions, found, count, scratch.tops[static_cast<size_t>(query - first_query)]);
    }
  }

  uint64_t passing(int64_t query, const Scratch& scratch) const {
    const int32_t filter = batch_.filter_of ? batch_.filter_of[query] : -1;
    if (filter < 0) return scratch.passing.back();
    return scratch.passing.back() & scratch.passing[static_cast<size_t>(filter)];
  }

  void offer(int number, const int64_t* positions, const float* found, int64_t count,
             TopHits& top) const {
    const Segment& here = segment(number);
    for (int64_t i = 0; i < count; i++) {
      if (!(found[i] <= top.worst())) continue;
      const int64_t row = here.row_start() + here.ids()[positions[i]];
      top.offer({found[i], static_cast<uint32_t>(number), row, positions[i]});
    }
  }

  const Batch& batch_;
  const bool squared_;
  const Isa isa_;
  Progress& progress_;
};

}  // namespace

void exact_search(const Batch& batch, Metric metric, Isa isa, Pool& pool, const Output& out,
                  Progress& progress) {
  const ExactSearch search(batch, metric, isa, progress);
  const std::vector<Task> tasks = tasks_of(batch);
  std::vector<Scratch> scratch(static_cast<size_t>(pool.threads()));
  for (int64_t first = 0; first < batch.n; first += kQueries) {
    const int64_t last = std::min(batch.n, first + kQueries);
    for (Scratch& one : scratch) {
      one.tops.resize(kQueries);
      for (int64_t q = first; q < last; q++) one.tops[static_cast<size_t>(q - first)].reset(batch.k);
    }
    pool.run(static_cast<int64_t>(tasks.size()), [&](int64_t task, int slot) {
      search.scan(tasks[static_cast<size_t>(task)], first, last,
                  scratch[static_cast<size_t>(slot)]);
    });
    if (progress.stopped()) return;
    for (int64_t q = first; q < last; q++) {
      TopHits& top = scratch[0].tops[static_cast<size_t>(q - first)];
      for (size_t i = 1; i < scratch.size(); i++) {
        top.merge(scratch[i].tops[static_cast<size_t>(q - first)]);
      }
      put_hits(top.finish(), q, batch.k, out);
    }
  }
  for (const Scratch& one : scratch) progress.codes_scanned += one.scanned;
}

}  // namespace ragrig
