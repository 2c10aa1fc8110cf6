// Kernels for AVX2.
#include "isa.hpp"

#if RAGRIG_X86

#include <immintrin.h>

#include "kernels.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace ragrig {
namespace avx2 {

constexpr int kPartBytes = 32;
constexpr int kPanelQueries = 2;

// to = a, b, half a register each.
template <typename Register>
static inline void pair(const float* a, const float* b, Register& to) {
  to = Register(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1));
}

// sum -= a * b; rounded as it comes.
template <typename Register>
static inline __attribute__((always_inline)) void subtract_product(const Register& a, const Register& b, Register& sum) {
  sum = Register(_mm256_fnmadd_ps(__m256(a), __m256(b), __m256(sum)));
}

void quantize(const float* from, const float* minima, int64_t m, float scale, uint8_t* out) {
  for (int64_t j = 0; j < m; ++j)
    for (int64_t c = 0; c < kCodes; ++c) {
      const float value = (from[j * kCodes + c] - minima[j]) * scale;
      out[j * kCodes + c] = static_cast<uint8_t>(static_cast<int>(value < 255.0f ? value : 255.0f));
    }
}

// 32 lookups in a table of 256: sixteen shuffles by the low four bits, then a
// tree of blends by the high four, each moved to the top of its byte.
static inline __m256i look_up(const uint8_t* row, __m256i codes) {
  const __m256i low = _mm256_and_si256(codes, _mm256_set1_epi8(15));
  __m256i found[16];
  for (int i = 0; i < 16; ++i) {
    const __m128i part = _mm_load_si128(reinterpret_cast<const __m128i*>(row + 16 * i));
    found[i] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), low);
  }
  const __m256i bit4 = _mm256_slli_epi16(codes, 3), bit5 = _mm256_slli_epi16(codes, 2);
  const __m256i bit6 = _mm256_slli_epi16(codes, 1);
  for (int i = 0; i < 8; ++i)
    found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], bit4);
  for (int i = 0; i < 4; ++i)
    found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], bit5);
  for (int i = 0; i < 2; ++i)
    found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], bit6);
  return _mm256_blendv_epi8(found[0], found[1], codes);
}

// 32 biases as units, saturated to bytes, in order.
static inline __m256i bias_units(const uint16_t* bias, __m256i factor) {
  const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias));
  const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + 16));
  // packus takes signed words: cap them first.
  const __m256i top = _mm256_set1_epi16(255);
  const __m256i a = _mm256_min_epu16(_mm256_mulhi_epu16(left, factor), top);
  const __m256i b = _mm256_min_epu16(_mm256_mulhi_epu16(right, factor), top);
  return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xD8);
}

static inline uint32_t at_most(__m256i sums, __m256i limit) {
  const __m256i good = _mm256_cmpeq_epi8(_mm256_min_epu8(sums, limit), sums);
  return static_cast<uint32_t>(_mm256_movemask_epi8(good));
}

// The same with sums of 16 bits.
static uint64_t filter_wide(const FilterJob& job, uint64_t* masks) {
  const __m256i limit = _mm256_set1_epi16(static_cast<short>(job.limit));
  const __m256i factor = _mm256_set1_epi16(static_cast<short>(job.bias_factor));
  uint64_t any = 0;
  const uint8_t* group = job.codes;
  for (int64_t first = 0; first < job.blocks; first += kGroupBlocks) {
    const int64_t left = job.blocks - first;
    const int64_t width = left < kGroupBlocks ? left : kGroupBlocks;
    for (int64_t b = 0; b < width; ++b) {
      uint64_t mask = 0;
      for (int h = 0; h < 2; ++h) {
        __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        const uint8_t* codes = group + b * kLanes + 32 * h;
        for (int64_t j = 0; j < job.m; ++j, codes += width * kLanes) {
          const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
          const __m256i units = look_up(job.table + j * kCodes, some);
          const __m128i low = _mm256_castsi256_si128(units);
          sums[0] = _mm256_add_epi16(sums[0], _mm256_cvtepu8_epi16(low));
          sums[1] = _mm256_add_epi16(sums[1],
                                     _mm256_cvtepu8_epi16(_mm256_extracti128_si256(units, 1)));
        }
        __m256i good[2];
        for (int i = 0; i < 2; ++i) {
          if (job.bias) {
            const uint16_t* bias = job.bias + (first + b) * kLanes + 32 * h + 16 * i;
            const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias));
            sums[i] = _mm256_adds_epu16(sums[i], _mm256_mulhi_epu16(raw, factor));
          }
          good[i] = _mm256_cmpeq_epi16(_mm256_min_epu16(sums[i], limit), sums[i]);
        }
        const __m256i both =
            _mm256_permute4x64_epi64(_mm256_packs_epi16(good[0], good[1]), 0xD8);
        mask |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(both))} << (32 * h);
      }
      masks[first + b] = mask;
      any |= mask;
    }
    group += width * kLanes * job.m;
  }
  return any;
}

bool filter(const FilterJob& job, uint64_t* masks) {
  if (job.wide) return filter_wide(job, masks) != 0;
  const __m256i limit = _mm256_set1_epi8(static_cast<char>(job.limit));
  const __m256i factor = _mm256_set1_epi16(static_cast<short>(job.bias_factor));
  uint64_t any = 0;
  const uint8_t* group = job.codes;
  for (int64_t first = 0; first < job.blocks; first += kGroupBlocks) {
    const int64_t left = job.blocks - first;
    const int64_t width = left < kGroupBlocks ? left : kGroupBlocks;
    for (int64_t b = 0; b < width; ++b) {
      __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      const uint8_t* codes = group + b * kLanes;
      for (int64_t j = 0; j < job.m; ++j, codes += width * kLanes)
        for (int h = 0; h < 2; ++h) {
          const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes) + h);
          sums[h] = _mm256_adds_epu8(sums[h], look_up(job.table + j * kCodes, some));
        }
      if (job.bias) {
        const uint16_t* bias = job.bias + (first + b) * kLanes;
        for (int h = 0; h < 2; ++h)
          sums[h] = _mm256_adds_epu8(sums[h], bias_units(bias + 32 * h, factor));
      }
      masks[first + b] = at_most(sums[0], limit) | uint64_t{at_most(sums[1], limit)} << 32;
      any |= masks[first + b];
    }
    group += width * kLanes * job.m;
  }
  return any != 0;
}

int64_t collect(const float* values, int64_t count, float bound, int32_t* numbers) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    numbers[found] = static_cast<int32_t>(i);
    found += values[i] <= bound;
  }
  return found;
}

#include "kernels_shared.hpp"

}  // namespace avx2

const Kernels& avx2_kernels() { return avx2::kKernels; }

}  // namespace ragrig

#pragma GCC pop_options

#endif
