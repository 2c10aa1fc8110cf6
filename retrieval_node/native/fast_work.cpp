#include "fast_work.hpp"

#include <algorithm>

#include "exact_rescore.hpp"

namespace ragrig {
namespace {

// The first run finds a limit. It falls fast then: a run is no longer than what
// was seen before it.
int64_t run_length(const FastContext& context, const FastQuery& query) {
  const int64_t seen = query.blocks_seen() / kGroupBlocks * kGroupBlocks;
  return std::min(std::max(seen, kSeedBlocks), run_blocks(context.index.m));
}

}  // namespace

Ahead ahead_of(const Index& index, const ListRun& run, int64_t done, const ListRun* next) {
  const int64_t block_bytes = kLanes * index.m;
  if (done < run.view.blocks)
    return {run.view.codes + done * block_bytes, (run.view.blocks - done) * block_bytes};
  if (!next) return {};
  return {next->view.codes, next->view.blocks * block_bytes};
}

QuerySlot& Workspace::slot(size_t i) {
  while (slots.size() <= i) slots.push_back(std::make_unique<QuerySlot>());
  return *slots[i];
}

BorrowedWorkspace::BorrowedWorkspace(const Index& index)
    : index_(index), memory_(index.take_spare()) {
  if (!memory_) memory_ = std::make_shared<Workspace>();
  (**this).scratch.reserve(index);
}

double coarse_of(const FastContext& context, int64_t query, int64_t list) {
  const Index& index = context.index;
  const float* vector = context.batch.queries + query * index.dim;
  if (index.metric == Metric::ip)
    return index.residual ? context.kernels.coarse_ip(vector, index.centroid(list), index.dim)
                          : 0.0;
  if (index.residual)
    return static_cast<double>(context.kernels.l2(vector, index.centroid(list), index.dim));
  return -static_cast<double>(context.kernels.ip(vector, vector, index.dim));
}

void list_runs(const FastContext& context, int64_t query, Workspace& workspace) {
  const Batch& batch = context.batch;
  workspace.runs.clear();
  workspace.coarse.clear();
  for (int64_t p = 0; p < batch.nprobe; ++p) {
    const int64_t list = batch.lists[query * batch.nprobe + p];
    if (list < 0) continue;
    bool known = false;
    double coarse = 0.0;
    for (size_t s = 0; s < batch.segments.size(); ++s) {
      const Segment& segment = *batch.segments[s];
      if (segment.list_rows(list) == 0) continue;
      if (!known) coarse = coarse_of(context, query, list);
      known = true;
      workspace.runs.push_back({static_cast<int>(s), list, segment.list(list)});
      workspace.coarse.push_back(coarse);
    }
  }
}

bool may_scan(const FastContext& context, const ListRun& run) {
  if (context.progress.stopped()) return false;
  const Stop why = context.batch.stopped();
  if (why != Stop::none) {
    context.progress.halt(why);
    return false;
  }
  const Segment& segment = *context.batch.segments[static_cast<size_t>(run.segment)];
  const int64_t bad = segment.ensure_list(run.list);
  if (bad < 0) return true;
  context.progress.corrupt(run.segment, bad);
  return false;
}

bool scan_blocks(const FastContext& context, Scratch& scratch, FastQuery& query,
                 const ListRun& run, double coarse, int64_t first, int64_t blocks,
                 const ListRun* next) {
  const double widest = offset_of(run, coarse);
  const int64_t end = first + blocks;
  while (first < end) {
    const int64_t now = std::min(run_length(context, query), end - first);
    const Ahead ahead = ahead_of(context.index, run, first + now, next);
    if (!query.scan(context, scratch, run, coarse, widest, first, now, ahead)) return false;
    first += now;
  }
  return true;
}

bool scan_list(const FastContext& context, Scratch& scratch, FastQuery& query,
               const ListRun& run, double coarse, const ListRun* next) {
  if (!may_scan(context, run)) return false;
  scratch.codes += run.view.rows;
  return scan_blocks(context, scratch, query, run, coarse, 0, run.view.blocks, next);
}

bool scan_runs(const FastContext& context, Workspace& work, FastQuery& query, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const ListRun* next = i + 1 < work.runs.size() ? &work.runs[i + 1] : nullptr;
    if (!scan_list(context, work.scratch, query, work.runs[i], work.coarse[i], next)) return false;
  }
  return true;
}

void finish_query(const FastContext& context, Workspace& work, FastQuery& query,
                  const Output& output) {
  const Batch& batch = context.batch;
  const ExactAdc adc = query.exact_adc(context, work.scratch);
  std::vector<Hit>& hits = work.hits;
  if (!query.shortlist().finish(adc, hits)) {
    query.reset(context, query.query(), query.tables(), nullptr, true);
    list_runs(context, query.query(), work);
    if (!scan_runs(context, work, query, work.runs.size())) return;
    query.shortlist().finish(adc, hits);
  }
  for (const Hit& hit : hits) {
    const Segment& segment = *batch.segments[hit.segment];
    if (segment.ids()[hit.position] < segment.row_count()) continue;
    context.progress.corrupt(static_cast<int>(hit.segment), segment.id_offset(hit.position));
    return;
  }
  if (batch.refine_k > 0) {
    const bool squared = context.index.metric == Metric::l2;
    if (!rescore_hits(batch, query.query(), squared, context.index.isa, hits, context.progress))
      return;
  } else {
    std::sort(hits.begin(), hits.end(), [](const Hit& a, const Hit& b) { return a.before(b); });
  }
  put_hits(hits, query.query(), batch.k, output);
}

void count_work(const FastContext& context, Scratch& scratch) {
  context.progress.codes_scanned.fetch_add(scratch.codes, std::memory_order_relaxed);
  context.progress.survivors.fetch_add(scratch.survivors, std::memory_order_relaxed);
  scratch.codes = scratch.survivors = 0;
}

}  // namespace ragrig
