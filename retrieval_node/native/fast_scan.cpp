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

// Survivors that are looked at with one limit.
constexpr int64_t kLookAt = 32;

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

// Blocks start .. end - 1 of a list; start is a multiple of kGroupBlocks.
FilterJob job_of(const Index& index, const ListView& view, int64_t start, int64_t end) {
  FilterJob job{};
  job.codes = view.codes + start * kLanes * index.m;
  job.bias = view.bias ? view.bias + start * kLanes : nullptr;
  job.bias_low = view.bias ? view.bias_low + start : nullptr;
  job.blocks = end - start;
  job.m = index.m;
  return job;
}

Offset offset_within(const ListView& view, double coarse) {
  return {coarse + static_cast<double>(view.bias_base),
          65535.0 * static_cast<double>(view.bias_step), view.bias_step};
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
  const int64_t end = first + blocks;
  int64_t done = first;
  uint64_t seen[kSeedBlocks] = {};
  const auto unseen = [&](int64_t block) {
    return block - first < kSeedBlocks ? ~seen[block - first] : ~uint64_t{0};
  };
  blocks_seen_ += blocks;
  // Without a limit there is nothing to filter by.
  if (worth_seeding(context, run, first, blocks) &&
      !seed(context, scratch, run, coarse, first, blocks, seen))
    return false;
  while (limit() == std::numeric_limits<float>::infinity() && done < end) {
    if (!look_at_block(context, scratch, run, coarse, done, unseen(done))) return false;
    ++done;
  }
  const int64_t start = done - done % kGroupBlocks;
  if (done == end) return true;
  FilterJob job = job_of(context.index, view, start, end);
  job.ahead = ahead.bytes;
  job.ahead_bytes = ahead.count;
  job.cached = ahead.cached;
  const Offset offset = offset_within(view, coarse);
  if (!bytes_.level(context.index, context.kernels, *tables_, limit(), offset, widest, job))
    return true;
  if (!context.kernels.filter(job, scratch.masks)) return true;
  int64_t count = 0;
  for (int64_t b = done; b < end; ++b) {
    const uint64_t lanes = real_lanes(view, b) & unseen(b);
    if (const uint64_t mask = scratch.masks[b - start] & lanes)
      count = list_lanes(mask, b, scratch.positions, count);
  }
  return look(context, scratch, run, coarse, &offset, count);
}

bool FastQuery::worth_seeding(const FastContext& context, const ListRun& run, int64_t first,
                              int64_t blocks) const {
  // Lanes that a bitmap may take away say nothing about the limit.
  const bool plain = !context.batch.live.bytes && !filter_.bytes;
  const int64_t rows = std::min(run.view.rows, (first + blocks) * kLanes) - first * kLanes;
  return plain && blocks <= kSeedBlocks && rows > 4 * top_.wanted() &&
         limit() == std::numeric_limits<float>::infinity();
}

bool FastQuery::seed(const FastContext& context, Scratch& scratch, const ListRun& run,
                     double coarse, int64_t first, int64_t blocks, uint64_t* seen) {
  FilterJob job = job_of(context.index, run.view, first, first + blocks);
  bytes_.guess(context.index, context.kernels, *tables_, offset_within(run.view, coarse), job);
  const int64_t wanted = top_.wanted(), enough = wanted + wanted / 2 + 8;
  uint32_t low = 0, high = kMostSum;
  while (low < high) {
    job.limit = (low + high) / 2;
    context.kernels.filter(job, scratch.masks);
    int64_t count = 0;
    for (int64_t b = 0; b < blocks; ++b)
      count += __builtin_popcountll(scratch.masks[b] & real_lanes(run.view, first + b));
    if (count < wanted) {
      low = job.limit + 1;
      continue;
    }
    high = job.limit;
    for (int64_t b = 0; b < blocks; ++b)
      seen[b] = scratch.masks[b] & real_lanes(run.view, first + b);
    if (count <= enough) break;
  }
  int64_t count = 0;
  for (int64_t b = 0; b < blocks; ++b)
    count = list_lanes(seen[b], first + b, scratch.positions, count);
  return look(context, scratch, run, coarse, nullptr, count);
}

bool FastQuery::look_at_block(const FastContext& context, Scratch& scratch, const ListRun& run,
                              double coarse, int64_t block, uint64_t lanes) {
  const int64_t count =
      list_lanes(lanes & real_lanes(run.view, block), block, scratch.positions, 0);
  return look(context, scratch, run, coarse, nullptr, count);
}

int64_t FastQuery::keep_near(const FastContext& context, const ListRun& run, const Offset& offset,
                             uint32_t* positions, int64_t count) const {
  const Index& index = context.index;
  const ListView& view = run.view;
  const float most = limit();
  // Twice: these sums have roundings of their own.
  const double room = 2.0 * tables_->rounding(index, most, offset);
  const auto bound = static_cast<float>(static_cast<double>(most) + room - offset.value);
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t position = positions[i];
    const CodePlace at = code_place(view.codes, view.blocks, index.m, position);
    float even = view.bias ? offset.bias_step * static_cast<float>(view.bias[position]) : 0.0f;
    float odd = 0.0f;
    const float* table = tables_->table;
    const uint8_t* code = at.base;
    int64_t j = 0;
    for (; j + 2 <= index.m; j += 2) {
      even += table[code[0]];
      odd += table[kCodes + code[at.stride]];
      code += 2 * at.stride;
      table += 2 * kCodes;
    }
    if (j < index.m) even += table[code[0]];
    positions[kept] = position;
    kept += even + odd <= bound;
  }
  return kept;
}

int64_t FastQuery::keep_allowed(const FastContext& context, const ListRun& run,
                                uint32_t* positions, int64_t count) const {
  const Bitmap& live = context.batch.live;
  if (!live.bytes && !filter_.bytes) return count;
  const Segment& segment = *context.batch.segments[static_cast<size_t>(run.segment)];
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t position = positions[i];
    const int64_t id = run.view.ids[position];
    if (id >= segment.row_count()) return report(context, run, position);
    const int64_t row = segment.row_start() + id;
    positions[kept] = position;
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
                     double coarse, const Offset* offset, int64_t count) {
  scratch.survivors += count;
  // A few at a time: each piece meets the limit that the one before has lowered.
  for (int64_t first = 0; first < count; first += kLookAt) {
    uint32_t* const some = scratch.positions + first;
    int64_t left = std::min(kLookAt, count - first);
    if (offset) left = keep_near(context, run, *offset, some, left);
    left = keep_allowed(context, run, some, left);
    if (left < 0) return false;
    if (left > 0) look_closely(context, scratch, run, coarse, some, left);
  }
  return true;
}

void FastQuery::look_closely(const FastContext& context, Scratch& scratch, const ListRun& run,
                             double coarse, const uint32_t* positions, int64_t count) {
  const Index& index = context.index;
  prepare_residual(context, scratch, run.list);
  const AdcJob job{run.view.codes,  run.view.blocks,        index.m, index.sub,
                   index.codebooks, scratch.residual.get(), scratch.adc.get()};
  const bool l2 = index.metric == Metric::l2;
  (l2 ? context.kernels.adc_l2 : context.kernels.adc_ip)(job, positions, count,
                                                         scratch.distances);
  const float most = limit();
  for (int64_t i = 0; i < count; ++i) {
    float distance = scratch.distances[i];
    if (!l2 && index.residual)
      distance = static_cast<float>(coarse + static_cast<double>(distance));
    // The limit of the other threads may be lower than this one's own.
    if (distance <= most)
      top_.offer({distance, static_cast<uint32_t>(run.segment),
                  run.view.first_row + positions[i]});
  }
  if (shared_) {
    float seen = shared_->load(std::memory_order_relaxed);
    while (top_.limit() < seen &&
           !shared_->compare_exchange_weak(seen, top_.limit(), std::memory_order_relaxed)) {
    }
  }
}

}  // namespace ragrig
