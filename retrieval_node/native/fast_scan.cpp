#include "fast_scan.hpp"

#include <algorithm>
#include <limits>

namespace ragrig {
namespace {

// A row id out of range: the file is damaged. Returns -1.
int64_t report(const FastContext& context, const ListRun& run, uint32_t position) {
  const Segment& segment = *context.batch.segments[static_cast<size_t>(run.segment)];
  context.progress.corrupt(run.segment, segment.id_offset(run.view.first_row + position));
  return -1;
}

uint64_t real_lanes(const ListView& view, int64_t block) {
  const int64_t left = view.rows - block * kLanes;
  return left >= kLanes ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
}

int64_t list_lanes(uint64_t mask, int64_t block, uint32_t* positions, int64_t count) {
  const auto base = static_cast<uint32_t>(block * kLanes);
  while (mask != 0) {
    positions[count++] = base + static_cast<uint32_t>(__builtin_ctzll(mask));
    mask &= mask - 1;
  }
  return count;
}

}  // namespace

void Scratch::reserve(const Index& index) {
  const int64_t padded = padded_dim(index.dim);
  adc.reserve(2 * padded);
  float* const values = residual.reserve(padded);
  std::fill(values, values + padded, 0.0f);
  residual_query = residual_list = -1;
  survivors = codes = 0;
}

void FastQuery::reset(const FastContext& context, int64_t query, const QueryTables* tables,
                      std::atomic<float>* shared) {
  const Batch& batch = context.batch;
  query_ = query;
  blocks_seen_ = 0;
  tables_ = tables;
  shared_ = shared;
  bytes_.reset(context.index);
  top_.reset(batch, std::max(batch.k, batch.refine_k));
  filter_ = batch.filter(query);
}

float FastQuery::limit() const {
  const float own = top_.limit();
  return shared_ ? std::min(own, shared_->load(std::memory_order_relaxed)) : own;
}

bool FastQuery::scan(const FastContext& context, Scratch& scratch, const ListRun& run,
                     double coarse, double widest, int64_t first, int64_t blocks, Ahead ahead) {
  const ListView& view = run.view;
  int64_t done = first;
  blocks_seen_ += blocks;
  // Without a limit there is nothing to filter by.
  while (limit() == std::numeric_limits<float>::infinity() && done < first + blocks) {
    if (!look_at_block(context, scratch, run, coarse, done, ~uint64_t{0})) return false;
    ++done;
  }
  const int64_t start = done - done % kGroupBlocks;
  if (done == first + blocks) return true;
  FilterJob job;
  job.codes = view.codes + start * kLanes * context.index.m;
  job.bias = view.bias ? view.bias + start * kLanes : nullptr;
  job.bias_low = view.bias ? view.bias_low + start : nullptr;
  job.blocks = first + blocks - start;
  job.m = context.index.m;
  job.ahead = ahead.bytes;
  job.ahead_bytes = ahead.count;
  Offset offset{coarse + static_cast<double>(view.bias_base),
                65535.0 * static_cast<double>(view.bias_step), view.bias_step};
  if (!bytes_.level(context.index, context.kernels, *tables_, limit(), offset, widest, job))
    return true;
  if (!context.kernels.filter(job, scratch.masks)) return true;
  int64_t count = 0;
  for (int64_t b = done - start; b < job.blocks; ++b)
    if (const uint64_t mask = scratch.masks[b] & real_lanes(view, start + b))
      count = list_lanes(mask, start + b, scratch.positions, count);
  return look(context, scratch, run, coarse, count);
}

bool FastQuery::look_at_block(const FastContext& context, Scratch& scratch, const ListRun& run,
                              double coarse, int64_t block, uint64_t lanes) {
  const int64_t count =
      list_lanes(lanes & real_lanes(run.view, block), block, scratch.positions, 0);
  return look(context, scratch, run, coarse, count);
}

int64_t FastQuery::keep_allowed(const FastContext& context, Scratch& scratch, const ListRun& run,
                                int64_t count) const {
  const Bitmap& live = context.batch.live;
  if (!live.bytes && !filter_.bytes) return count;
  const Segment& segment = *context.batch.segments[static_cast<size_t>(run.segment)];
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t position = scratch.positions[i];
    const int64_t id = run.view.ids[position];
    if (id >= segment.row_count()) return report(context, run, position);
    const int64_t row = segment.row_start() + id;
    scratch.positions[kept] = position;
    kept += live.test(row) && filter_.test(row);
  }
  return kept;
}

void FastQuery::prepare_residual(const FastContext& context, Scratch& scratch,
                                 int64_t list) const {
  const Index& index = context.index;
  const bool plain = index.metric == Metric::ip || !index.residual;
  const int64_t wanted = plain ? 0 : list;
  if (scratch.residual_query == query_ && scratch.residual_list == wanted) return;
  const float* query = context.batch.queries + query_ * index.dim;
  float* out = scratch.residual.get();
  if (plain) {
    std::copy(query, query + index.dim, out);
  } else {
    const float* centroid = index.centroid(list);
    for (int64_t t = 0; t < index.dim; ++t) out[t] = query[t] - centroid[t];
  }
  scratch.residual_query = query_;
  scratch.residual_list = wanted;
}

bool FastQuery::look(const FastContext& context, Scratch& scratch, const ListRun& run,
                     double coarse, int64_t count) {
  if (count == 0) return true;
  scratch.survivors += count;
  count = keep_allowed(context, scratch, run, count);
  if (count <= 0) return count == 0;
  const Index& index = context.index;
  prepare_residual(context, scratch, run.list);
  const AdcJob job{run.view.codes,  run.view.blocks,        index.m, index.sub,
                   index.codebooks, scratch.residual.get(), scratch.adc.get()};
  const bool l2 = index.metric == Metric::l2;
  (l2 ? context.kernels.adc_l2 : context.kernels.adc_ip)(job, scratch.positions, count,
                                                         scratch.distances);
  const float most = limit();
  for (int64_t i = 0; i < count; ++i) {
    float distance = scratch.distances[i];
    if (!l2 && index.residual)
      distance = static_cast<float>(coarse + static_cast<double>(distance));
    // The limit of the other threads may be lower than this one's own.
    if (distance <= most)
      top_.offer({distance, static_cast<uint32_t>(run.segment),
                  run.view.first_row + scratch.positions[i]});
  }
  if (shared_) {
    float seen = shared_->load(std::memory_order_relaxed);
    while (top_.limit() < seen &&
           !shared_->compare_exchange_weak(seen, top_.limit(), std::memory_order_relaxed)) {
    }
  }
  return true;
}

}  // namespace ragrig
