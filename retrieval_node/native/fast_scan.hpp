// Mode `fast`, one query against one list: filter, then closer bounds of what is left.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "batch.hpp"
#include "fast_tables.hpp"
#include "kernels.hpp"
#include "shortlist.hpp"

namespace ragrig {

// Most blocks of a run of the filter; see run_blocks.
constexpr int64_t kRunBlocks = 512;

// Blocks of a run for codes of m bytes: long enough to hide its start, short
// enough to stay in a second-level cache and to tighten the limit in between.
inline int64_t run_blocks(int64_t m) {
  constexpr int64_t kRunBytes = 512 * 1024;
  const int64_t fitting = kRunBytes / (kLanes * m) / kGroupBlocks * kGroupBlocks;
  return fitting < kGroupBlocks ? kGroupBlocks : fitting > kRunBlocks ? kRunBlocks : fitting;
}

// Blocks that a first limit is found from.
constexpr int64_t kSeedBlocks = 16;

// What all threads of one search share.
struct FastContext {
  const Index& index;
  const Kernels& kernels;
  const Batch& batch;
  Progress& progress;
};

// One thread's memory.
struct Scratch {
  void reserve(const Index& index);

  uint64_t masks[kRunBlocks];
  uint32_t positions[kRunBlocks * kLanes];
  float sums[Shortlist::kAtOnce];
  Aligned<float> adc;       // 2 * padded_dim
  Aligned<float> residual;  // padded_dim
  int64_t survivors = 0, codes = 0;
};

// One list of one segment.
struct ListRun {
  int segment;
  int64_t list;
  ListView view;
};

// What to prefetch while a run is scanned.
struct Ahead {
  const uint8_t* bytes = nullptr;
  int64_t count = 0;
  bool cached = false;  // the run itself was scanned just before
};

// One query's state within one thread.
class FastQuery {
 public:
  // shared: the limit that several threads of one query lower together, or null.
  // careful: see shortlist.hpp.
  void reset(const FastContext& context, int64_t query, const QueryTables* tables,
             std::atomic<float>* shared, bool careful = false);

  // Scans blocks first .. first + blocks - 1 of a list; first is a multiple of
  // kGroupBlocks. widest: see ByteTable::level. False: a row id is out of range
  // (those that no bitmap asks for are checked at the end).
  bool scan(const FastContext& context, Scratch& scratch, const ListRun& run, double coarse,
            double widest, int64_t first, int64_t blocks, Ahead ahead);

  Shortlist& shortlist() { return shortlist_; }
  const QueryTables* tables() const { return tables_; }
  ExactAdc exact_adc(const FastContext& context, Scratch& scratch) const;
  int64_t query() const { return query_; }
  int64_t blocks_seen() const { return blocks_seen_; }
  float limit() const;

 private:
  // Looks at the lanes whose sums are smallest, about as many as are wanted, so that
  // the others meet a limit. Sets seen[b] for block first + b. False as for scan().
  bool seed(const FastContext& context, Scratch& scratch, const ListRun& run,
            const Offset& offset, int64_t first, int64_t blocks, uint64_t* seen);
  bool worth_seeding(const FastContext& context, const ListRun& run, int64_t first,
                     int64_t blocks) const;
  // Puts those of the positions listed that may be near enough on the shortlist.
  bool look(const FastContext& context, Scratch& scratch, const ListRun& run,
            const Offset& offset, int64_t count);
  void put(const FastContext& context, Scratch& scratch, const ListRun& run, const Offset& offset,
           const uint32_t* positions, int64_t count);
  bool look_at_block(const FastContext& context, Scratch& scratch, const ListRun& run,
                     const Offset& offset, int64_t block, uint64_t lanes);
  // How many positions, of those listed from `positions` on, are near enough by the float
  // tables and the stored bias, a finer bound than the filter's. sums: of those, written.
  int64_t keep_near(const FastContext& context, const ListRun& run, const Offset& offset,
                    uint32_t* positions, int64_t count, float* sums) const;
  // How many positions are live and pass the filter; -1: a row id is out of range.
  int64_t keep_allowed(const FastContext& context, const ListRun& run, uint32_t* positions,
                       int64_t count, float* sums) const;

  int64_t query_ = 0;
  int64_t blocks_seen_ = 0;
  const QueryTables* tables_ = nullptr;
  std::atomic<float>* shared_ = nullptr;
  ByteTable bytes_;
  Shortlist shortlist_;
  Bitmap filter_;
};

}  // namespace ragrig
