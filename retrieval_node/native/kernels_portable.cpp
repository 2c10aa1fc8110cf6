// Kernels in plain C++.
#include "kernels.hpp"

namespace ragrig {
namespace portable {

constexpr int kPartBytes = 16;
constexpr int kPanelQueries = 1;

// to = a, b, half a register each.
template <typename Register>
static inline void pair(const float* a, const float* b, Register& to) {
  to = Register{a[0], a[1], b[0], b[1]};
}

// sum -= a * b; rounded as it comes.
template <typename Register>
static inline __attribute__((always_inline)) void subtract_product(const Register& a, const Register& b, Register& sum) {
  sum -= a * b;
}

void quantize(const float* from, const float* minima, int64_t m, float scale, uint8_t* out) {
  for (int64_t j = 0; j < m; ++j)
    for (int64_t c = 0; c < kCodes; ++c) {
      const float value = (from[j * kCodes + c] - minima[j]) * scale;
      out[j * kCodes + c] = static_cast<uint8_t>(value < 255.0f ? static_cast<int>(value) : 255);
    }
}

bool filter(const FilterJob& job, uint64_t* masks) {
  bool any = false;
  const uint8_t* group = job.codes;
  for (int64_t first = 0; first < job.blocks; first += kGroupBlocks) {
    const int64_t left = job.blocks - first;
    const int64_t width = left < kGroupBlocks ? left : kGroupBlocks;
    for (int64_t b = 0; b < width; ++b) {
      uint32_t sums[kLanes] = {};
      for (int64_t j = 0; j < job.m; ++j) {
        const uint8_t* codes = group + (j * width + b) * kLanes;
        const uint8_t* row = job.table + j * kCodes;
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += row[codes[lane]];
      }
      uint64_t mask = 0;
      const uint16_t* bias = job.bias ? job.bias + (first + b) * kLanes : nullptr;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t more = bias ? (bias[lane] * job.bias_factor) >> 16 : 0;
        mask |= uint64_t{sums[lane] + more <= job.limit} << lane;
      }
      masks[first + b] = mask;
      any |= mask != 0;
    }
    group += width * kLanes * job.m;
  }
  return any;
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

}  // namespace portable

const Kernels& portable_kernels() { return portable::kKernels; }

}  // namespace ragrig
