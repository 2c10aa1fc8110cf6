#include "fast_scan.hpp"

#include <algorithm>
#include <limits>

namespace ragrig {
namespace {

constexpr float kInfinite = std::numeric_limits<float>::infinity();

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
  survivors = codes = 0;
}

void FastQuery::reset(const FastContext& context, int64_t query, const QueryTables* tables,
                      std::atomic<float>* shared, bool careful) {
  const Batch& batch = context.batch;
  query_ = query;
  blocks_seen_ = 0;
  tables_ = tables;
  shared_ = shared;
  bytes_.reset(context.index);
  shortlist_.reset(batch, context.index.m, std::max(batch.k, batch.refine_k), careful);
  filter_ = batch.filter(query);
}

float FastQuery::limit() const {
  const float own = shortlist_.limit();
  return shared_ ? std::min(own, shared_->load(std::memory_order_relaxed)) : own;
}

ExactAdc FastQuery::exact_adc(const FastContext& context, Scratch& scratch) const {
  return {context.index, context.kernels, context.batch.queries + query_ * context.index.dim,
          scratch.residual.get(), scratch.adc.get()};
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
  const Offset offset = offset_within(view, coarse);
  // Without a limit there is nothing to filter by.
  if (worth_seeding(context, run, first, blocks) &&
      !seed(context, scratch, run, offset, first, blocks, seen))
    return false;
  while (limit() == kInfinite && done < end) {
    if (!look_at_block(context, scratch, run, offset, done, unseen(done))) return false;
    ++done;
  }
  const int64_t start = done - done % kGroupBlocks;
  if (done == end) return true;
  FilterJob job = job_of(context.index, view, start, end);
  job.ahead = ahead.bytes;
  job.ahead_bytes = ahead.count;
  job.cached = ahead.cached;
  if (!bytes_.level(context.index, context.kernels, *tables_, limit(), offset, widest, job))
    return true;
  if (!context.kernels.filter(job, scratch.masks)) return true;
  int64_t count = 0;
  for (int64_t b = done; b < end; ++b) {
    const uint64_t mask = scratch.masks[b - start];
    if (mask == 0) continue;  // nearly all of them
    count = list_lanes(mask & real_lanes(view, b) & unseen(b), b, scratch.positions, count);
  }
  return look(context, scratch, run, offset, count);
}

bool FastQuery::worth_seeding(const FastContext& context, const ListRun& run, int64_t first,
                              int64_t blocks) const {
  // Lanes that a bitmap may take away say nothing about the limit.
  const bool plain = !context.batch.live.bytes && !filter_.bytes;
  const int64_t rows = std::min(run.view.rows, (first + blocks) * kLanes) - first * kLanes;
  return plain && blocks <= kSeedBlocks && rows > 4 * shortlist_.wanted() &&
         limit() == kInfinite;
}

bool FastQuery::seed(const FastContext& context, Scratch& scratch, const ListRun& run,
                     const Offset& offset, int64_t first, int64_t blocks, uint64_t* seen) {
  FilterJob job = job_of(context.index, run.view, first, first + blocks);
  bytes_.guess(context.index, context.kernels, *tables_, offset, job);
  const int64_t wanted = shortlist_.wanted(), enough = wanted + wanted / 2 + 8;
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
  return look(context, scratch, run, offset, count);
}

bool FastQuery::look_at_block(const FastContext& context, Scratch& scratch, const ListRun& run,
                              const Offset& offset, int64_t block, uint64_t lanes) {
  const int64_t count =
      list_lanes(lanes & real_lanes(run.view, block), block, scratch.positions, 0);
  return look(context, scratch, run, offset, count);
}

int64_t FastQuery::keep_near(const FastContext& context, const ListRun& run, const Offset& offset,
                             uint32_t* positions, int64_t count, float* sums) const {
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
    sums[kept] = even + odd;
    // Written so that NaN, which says nothing, is kept.
    kept += !(even + odd > bound);
  }
  return kept;
}

int64_t FastQuery::keep_allowed(const FastContext& context, const ListRun& run,
                                uint32_t* positions, int64_t count, float* sums) const {
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
    sums[kept] = sums[i];
    kept += live.test(row) && filter_.test(row);
  }
  return kept;
}

bool FastQuery::look(const FastContext& context, Scratch& scratch, const ListRun& run,
                     const Offset& offset, int64_t count) {
  scratch.survivors += count;
  // A few at a time: each piece meets the limit that the one before has lowered.
  for (int64_t first = 0; first < count; first += Shortlist::kAtOnce) {
    uint32_t* const some = scratch.positions + first;
    int64_t left = std::min(Shortlist::kAtOnce, count - first);
    left = keep_near(context, run, offset, some, left, scratch.sums);
    left = keep_allowed(context, run, some, left, scratch.sums);
    if (left < 0) return false;
    if (left > 0) put(context, scratch, run, offset, some, left);
  }
  return true;
}

void FastQuery::put(const FastContext& context, Scratch& scratch, const ListRun& run,
                    const Offset& offset, const uint32_t* positions, int64_t count) {
  const Index& index = context.index;
  const ListView& view = run.view;
  const Gap gap = tables_->gap(index, view, offset);
  Found found{0.0f, 0, static_cast<uint32_t>(run.segment), static_cast<int32_t>(run.list), 0,
              false};
  for (int64_t i = 0; i < count; ++i) {
    const double about = offset.value + static_cast<double>(scratch.sums[i]);
    const auto low = static_cast<float>(about - gap.below);
    const auto high = static_cast<float>(about + gap.above);
    found.low = low <= kInfinite ? low : -kInfinite;
    found.position = view.first_row + positions[i];
    shortlist_.add(found, high <= kInfinite ? high : kInfinite,
                   code_place(view.codes, view.blocks, index.m, positions[i]));
  }
  shortlist_.shorten(exact_adc(context, scratch));
  if (!shared_) return;
  const float own = shortlist_.limit();
  float seen = shared_->load(std::memory_order_relaxed);
  while (own < seen && !shared_->compare_exchange_weak(seen, own, std::memory_order_relaxed)) {
  }
}

}  // namespace ragrig
