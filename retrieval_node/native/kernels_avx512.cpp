// Kernels for AVX-512 with VBMI.
#include "isa.hpp"

#if RAGRIG_X86

#include <immintrin.h>

#include "kernels.hpp"

// GCC 12 warns about its own intrinsics' undefined operands.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma,popcnt")
#pragma GCC target("prefer-vector-width=512")

namespace ragrig {
namespace avx512 {

constexpr int kPartBytes = 64;
constexpr int kPanelQueries = 8;

// to = a, b, half a register each.
template <typename Register>
static inline void pair(const float* a, const float* b, Register& to) {
  to = Register(
      _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(a)), _mm256_loadu_ps(b), 1));
}

// sum -= a * b; rounded as it comes.
template <typename Register>
static inline __attribute__((always_inline)) void subtract_product(const Register& a, const Register& b, Register& sum) {
  sum = Register(_mm512_fnmadd_ps(__m512(a), __m512(b), __m512(sum)));
}

void quantize(const float* from, const float* minima, int64_t m, float scale, uint8_t* out) {
  const __m512 by = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < m; ++j) {
    const __m512 low = _mm512_set1_ps(minima[j]);
    for (int64_t c = 0; c < kCodes; c += 16) {
      const __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(from), low), by);
      const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_cvttps_epu32(value));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
      from += 16;
      out += 16;
    }
  }
}

// A loop that starts inside a line of instructions reads codes slower by a fortieth.
#pragma GCC optimize("align-loops=64")

#define RAGRIG_ALWAYS static inline __attribute__((always_inline))

// Lanes whose code has its top bit are replaced by the upper half's entry, then the
// others by the lower half's: no blend, no copy of the codes.
RAGRIG_ALWAYS __m512i look_up(__m512i t0, __m512i t1, __m512i t2, __m512i t3, __m512i codes) {
  const __mmask64 high = _mm512_movepi8_mask(codes);
  const __m512i half = _mm512_mask2_permutex2var_epi8(t2, codes, high, t3);
  return _mm512_mask2_permutex2var_epi8(t0, half, _knot_mask64(high), t1);
}

static inline __m512i bias_units(const uint16_t* bias, __m512i factor) {
  const __m512i left = _mm512_mulhi_epu16(_mm512_loadu_si512(bias), factor);
  const __m512i right = _mm512_mulhi_epu16(_mm512_loadu_si512(bias + 32), factor);
  const __m256i a = _mm512_cvtusepi16_epi8(left), b = _mm512_cvtusepi16_epi8(right);
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

// What one group leaves to the next ones. Blocks whose sums wait for their biases: those are 2
// bytes per code that most blocks never need, so they are fetched for the few and read when they
// are there. And how many groups in a row were left half-way: after a few of them the rest of a
// group is not fetched any more either.
struct Waiting {
  static constexpr int64_t kMost = 16, kSteady = 4;

  int64_t beyond = 0;
  int64_t count = 0;
  int64_t blocks[kMost + kGroupBlocks];
  alignas(64) uint8_t sums[(kMost + kGroupBlocks) * kLanes];
};

static inline uint64_t settle(const FilterJob& job, Waiting& waiting, uint64_t* masks) {
  const __m512i limit = _mm512_set1_epi8(static_cast<char>(job.limit));
  const __m512i factor = _mm512_set1_epi16(static_cast<short>(job.bias_factor));
  uint64_t any = 0;
  for (int64_t i = 0; i < waiting.count; ++i) {
    const int64_t block = waiting.blocks[i];
    const __m512i sum = _mm512_adds_epu8(_mm512_load_si512(waiting.sums + i * kLanes),
                                         bias_units(job.bias + block * kLanes, factor));
    any |= masks[block] = _mm512_cmple_epu8_mask(sum, limit);
  }
  waiting.count = 0;
  return any;
}

// What each block's sums may be before any bias: the limit less its smallest one.
template <int kWidth>
static inline void block_limits(const FilterJob& job, int64_t first, uint8_t* limits) {
  const __m128i most = _mm_set1_epi8(static_cast<char>(job.limit));
  if (!job.bias) {
    _mm_store_si128(reinterpret_cast<__m128i*>(limits), most);
    return;
  }
  const __m128i low = _mm_maskz_loadu_epi16((1u << kWidth) - 1, job.bias_low + first);
  const __m128i units = _mm_mulhi_epu16(low, _mm_set1_epi16(static_cast<short>(job.bias_factor)));
  const __m128i bytes = _mm_cvtusepi16_epi8(units);
  _mm_store_si128(reinterpret_cast<__m128i*>(limits), _mm_subs_epu8(most, bytes));
}

// Whether no lane of the group can get below the limits any more: sums only grow.
template <int kWidth>
RAGRIG_ALWAYS bool all_beyond(const __m512i* sums, const uint8_t* limits) {
  __m512i least = sums[0];
  uint8_t most = limits[0];
#pragma GCC unroll 8
  for (int b = 1; b < kWidth; ++b) {
    least = _mm512_min_epu8(least, sums[b]);
    most = limits[b] > most ? limits[b] : most;
  }
  return _mm512_cmple_epu8_mask(least, _mm512_set1_epi8(static_cast<char>(most))) == 0;
}

// What is read once should not take the place of what is read again: hence this hint.
static inline void fetch(const uint8_t* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64)
    _mm_prefetch(reinterpret_cast<const char*>(from + at), _MM_HINT_NTA);
}

// One group of kWidth blocks: every table is loaded once for all of them. kFetch: codes come
// from memory, and those at `ahead` are asked for, each while its like is summed here.
//
// One loop with one load per block: processors foresee what few loads ask for, and the copies
// that unrolling makes of them read memory slower by a sixth.
template <int kWidth, bool kFetch>
static uint64_t filter_group(const FilterJob& job, const uint8_t* codes, int64_t first,
                             const uint8_t* ahead, Waiting& waiting, uint64_t* masks) {
  alignas(16) uint8_t limits[16];
  block_limits<kWidth>(job, first, limits);
  __m512i sums[kWidth];
#pragma GCC unroll 8
  for (int b = 0; b < kWidth; ++b) sums[b] = _mm512_setzero_si512();
  const uint8_t* row = job.table;
  // Read from memory, a wrong guess of this branch costs more than a quarter of the sums.
  const int64_t m = job.m, half = m / 2, late = kFetch ? half : m * 3 / 4;
  for (int64_t j = 0; j < m; ++j) {
    // Expected not to be: what follows stays one straight piece of code.
    if ((j == half || j == late) && __builtin_expect(all_beyond<kWidth>(sums, limits), 0)) {
      for (int b = 0; b < kWidth; ++b) masks[first + b] = 0;
      if (kFetch && waiting.beyond < Waiting::kSteady) fetch(ahead, (m - j) * kWidth * kLanes);
      ++waiting.beyond;
      return 0;
    }
    const __m512i t0 = _mm512_load_si512(row), t1 = _mm512_load_si512(row + 64);
    const __m512i t2 = _mm512_load_si512(row + 128), t3 = _mm512_load_si512(row + 192);
#pragma GCC unroll 8
    for (int b = 0; b < kWidth; ++b) {
      const __m512i some = _mm512_loadu_si512(codes + b * kLanes);
      // Here, between the sums: a compiler left to itself asks for all of them at once.
      if (kFetch) asm volatile("prefetchnta %0" : : "m"(ahead[b * kLanes]));
      sums[b] = _mm512_adds_epu8(sums[b], look_up(t0, t1, t2, t3, some));
    }
    row += kCodes;
    codes += kWidth * kLanes;
    if (kFetch) ahead += kWidth * kLanes;
  }
  waiting.beyond = 0;
  uint64_t any = 0;
#pragma GCC unroll 8
  for (int b = 0; b < kWidth; ++b) {
    const __m512i limit = _mm512_set1_epi8(static_cast<char>(limits[b]));
    const uint64_t mask = _mm512_cmple_epu8_mask(sums[b], limit);
    masks[first + b] = mask;
    any |= mask;
    if (!job.bias) continue;
    // Without a branch: blocks with lanes left come too irregularly to predict.
    const uint16_t* bias = job.bias + (first + b) * kLanes;
    const auto* wanted = mask ? reinterpret_cast<const char*>(bias)
                              : reinterpret_cast<const char*>(waiting.sums);
    _mm_prefetch(wanted, _MM_HINT_NTA);
    _mm_prefetch(wanted + 64, _MM_HINT_NTA);
    _mm512_store_si512(waiting.sums + waiting.count * kLanes, sums[b]);
    waiting.blocks[waiting.count] = first + b;
    waiting.count += mask != 0;
  }
  return any;
}

#include "kernels_avx512_wide.hpp"

using FilterGroup = uint64_t (*)(const FilterJob&, const uint8_t*, int64_t, const uint8_t*,
                                 Waiting&, uint64_t*);

constexpr FilterGroup kFilterGroups[] = {
    filter_group<1, false>, filter_group<2, false>, filter_group<3, false>,
    filter_group<4, false>, filter_group<5, false>, filter_group<6, false>,
    filter_group<7, false>, filter_group<8, false>,
};
constexpr FilterGroup kFetchGroups[] = {
    filter_group<1, true>, filter_group<2, true>, filter_group<3, true>, filter_group<4, true>,
    filter_group<5, true>, filter_group<6, true>, filter_group<7, true>, filter_group<8, true>,
};
constexpr FilterGroup kWideGroups[] = {
    wide_group<1>, wide_group<2>, wide_group<3>, wide_group<4>,
    wide_group<5>, wide_group<6>, wide_group<7>, wide_group<8>,
};

// Bytes between what is summed and what is prefetched within a run.
constexpr int64_t kDistance = 5120;

// Where to prefetch from while the group at byte `at` is summed. Where the next run lies
// elsewhere, what is left of this one is asked for here: it is less than a group.
static inline const uint8_t* ahead_of(const FilterJob& job, int64_t at, int64_t bytes,
                                      int64_t total) {
  if (job.cached) return job.ahead && at < job.ahead_bytes ? job.ahead + at : nullptr;
  const int64_t target = at + kDistance;
  const bool adjoins = job.ahead == job.codes + total;
  if (target + bytes <= total + (adjoins ? job.ahead_bytes : 0)) return job.codes + target;
  const int64_t past = target < total ? 0 : target - total;
  if (past == 0) fetch(job.codes + target, total - target);
  return job.ahead && past + bytes <= job.ahead_bytes ? job.ahead + past : nullptr;
}

bool filter(const FilterJob& job, uint64_t* masks) {
  Waiting waiting;
  uint64_t any = 0;
  const int64_t total = job.blocks * kLanes * job.m;
  int64_t at = 0;
  for (int64_t first = 0; first < job.blocks; first += kGroupBlocks) {
    const int64_t left = job.blocks - first;
    const int64_t width = left < kGroupBlocks ? left : kGroupBlocks;
    const int64_t bytes = width * kLanes * job.m;
    const uint8_t* const ahead = ahead_of(job, at, bytes, total);
    const FilterGroup* const groups = job.wide ? kWideGroups : ahead ? kFetchGroups : kFilterGroups;
    const uint64_t some = groups[width - 1](job, job.codes + at, first, ahead, waiting, masks);
    if (job.wide || !job.bias) any |= some;
    else if (waiting.count >= Waiting::kMost) any |= settle(job, waiting, masks);
    at += bytes;
  }
  if (job.bias) any |= settle(job, waiting, masks);
  return any != 0;
}

int64_t collect(const float* values, int64_t count, float bound, int32_t* numbers) {
  const __m512 most = _mm512_set1_ps(bound);
  const __m512i step = _mm512_set1_epi32(16);
  __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 valid =
        static_cast<__mmask16>(count - i < 16 ? (1u << (count - i)) - 1 : 0xFFFFu);
    const __m512 some = _mm512_maskz_loadu_ps(valid, values + i);
    const __mmask16 good = _mm512_mask_cmp_ps_mask(valid, some, most, _CMP_LE_OQ);
    if (good) {
      // Through a register: storing a compressed one is slow on some machines.
      const __m512i packed = _mm512_maskz_compress_epi32(good, lanes);
      const int bits = __builtin_popcount(good);
      _mm512_mask_storeu_epi32(numbers + found, static_cast<__mmask16>((1u << bits) - 1), packed);
      found += bits;
    }
    lanes = _mm512_add_epi32(lanes, step);
  }
  return found;
}

#include "kernels_shared.hpp"

}  // namespace avx512

const Kernels& avx512_kernels() { return avx512::kKernels; }

}  // namespace ragrig

#pragma GCC pop_options

#endif
