// The inner loops, one set per code path. Each set is compiled in its own file
// under `#pragma GCC target`, after every standard header, so that no inline
// function of a header is compiled with instructions the machine may lack; for
// the same reason they use no template of the standard library.
//
// Two kinds of results:
//   * filter, table, quantize: a lower bound of a distance that decides which
//     codes are looked at closely; near: what decides it for centroids. Their bits
//     may differ between code paths.
//   * everything else: what a caller sees. Each operation is rounded to float32,
//     never fused, in the order of fixedpoint.exact_distances: lane u of 16 takes
//     the components t = u mod 16 in ascending order, then the lanes are added,
//     0 first. Equal bits on every code path.
//
// Exact ADC of code x in list l, codebook entry e (the decoded code):
//   l2: r = fl32(q - c_l), or q where codes are not of residuals;
//       lanes of fl32(fl32(r_t - e_t)^2), added as above.
//   ip: lanes of -fl32(q_t * e_t), added as above, to float32 s; where codes are
//       of residuals the distance is fl32(w + s), w = -<q, c_l> in float64: 16
//       lanes again, whose products are exact, added in the same order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "index.hpp"
#include "isa.hpp"
#include "layout.hpp"

namespace ragrig {

constexpr int64_t kFloatLanes = 16;
constexpr int64_t padded_dim(int64_t dim) {
  return (dim + kFloatLanes - 1) / kFloatLanes * kFloatLanes;
}

// A run of whole groups of one list (the last may be short) against one query.
// The most that a saturating byte can tell from beyond.
constexpr uint32_t kMostSum = 254;
// Long codes are summed in 16 bits: in 8, what the floors of so many columns lose is
// most of the limit. Up to 256 columns a sum of bytes cannot overflow 16 bits.
constexpr bool sums_wide(int64_t m) { return m > 32 && m <= 256; }

struct FilterJob {
  const uint8_t* codes;   // first group
  const uint16_t* bias;   // first lane, or null
  const uint16_t* bias_low;  // smallest bias of each block; with bias
  int64_t blocks;
  int64_t m;
  const uint8_t* table;   // [m][256], 64-byte aligned
  uint32_t limit;         // 0 .. 254, wide: 65534: lanes whose sum is above it are left out
  uint32_t bias_factor;   // bias counts as (bias * bias_factor) >> 16; below 2^16
  const uint8_t* ahead;   // prefetched while this run is scanned; null: nothing
  int64_t ahead_bytes;
  bool cached;            // its own codes are in cache: all that is fetched is `ahead`
  bool wide;              // sums of 16 bits; only where sums_wide(m)
};

struct AdcJob {
  const uint8_t* codes;      // of the whole list
  int64_t blocks;            // of the whole list
  int64_t m, sub;
  const float* codebooks;    // [m][256][sub]
  const float* query;        // residual (l2) or query (ip), padded_dim floats, zeros at the end
  float* scratch;            // 2 * padded_dim floats, 64-byte aligned
};

struct Kernels {
  // masks[b]: lanes of block b whose saturated sum is at most the limit. Padding
  // lanes may be set. Returns whether any lane is.
  bool (*filter)(const FilterJob& job, uint64_t* masks);
  // table[j][c] = factor * <query_j, entry jc>; codebooks are [m][sub][256].
  // minima: [m].
  void (*table)(const float* query, const float* codebooks, int64_t m, int64_t sub, float factor,
                float* table, float* minima);
  // out = min(floor((table - minimum) * scale), 255)
  void (*quantize)(const float* table, const float* minima, int64_t m, float scale, uint8_t* out);
  // out: one distance per position in the list (without the coarse term of ip).
  void (*adc_l2)(const AdcJob& job, const uint32_t* positions, int64_t count, float* out);
  void (*adc_ip)(const AdcJob& job, const uint32_t* positions, int64_t count, float* out);
  // Distances of whole vectors: a, b float32 [dim], not padded.
  float (*l2)(const float* a, const float* b, int64_t dim);
  float (*ip)(const float* a, const float* b, int64_t dim);
  // -<a, b> in float64, as the head of this file says.
  double (*coarse_ip)(const float* a, const float* b, int64_t dim);
  // out[q][c] = start[c] - <query q, centroid c> of a panel of kPanel centroids, [dim][kPanel];
  // rows of `out` are out_stride apart. Off by the roundings that nearness.hpp bounds.
  void (*near)(const float* queries, int64_t count, int64_t dim, const float* panel,
               const float* start, float* out, int64_t out_stride);
  // minima[c]: smallest of values[c], values[c + columns], ...; columns divides count
  // and is a multiple of 16.
  void (*column_minima)(const float* values, int64_t count, int64_t columns, float* minima);
  // Numbers of the values that are at most `bound`, ascending; returns how many.
  int64_t (*collect)(const float* values, int64_t count, float bound, int32_t* numbers);
  // A plain read of whole pieces of kReadBytes, for benchmarks: `streams` (1, 2, 4 or
  // 8) runs side by side, prefetching `ahead` bytes (0: not at all).
  uint64_t (*read)(const uint8_t* data, int64_t bytes, int64_t streams, int64_t ahead);
  // ranks[i]: how many keys are smaller than keys[i]; kRankLanes divides count.
  void (*rank)(const uint32_t* keys, int64_t count, int32_t* ranks);
};

constexpr int64_t kReadBytes = 4096;
constexpr int64_t kRankLanes = 16;
// Centroids of a panel of the coarse search.
constexpr int64_t kPanel = 32;

const Kernels& portable_kernels();
#if RAGRIG_X86
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

inline const Kernels& kernels_of(Isa isa) {
#if RAGRIG_X86
  if (isa == Isa::avx512) return avx512_kernels();
  if (isa == Isa::avx2) return avx2_kernels();
#endif
  (void)isa;
  return portable_kernels();
}

}  // namespace ragrig
