#include "contract_numbers.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace ragrig {

namespace {

const double kScaleLimit = std::ldexp(1.0, 120);
const double kReachLimit = std::ldexp(1.0, 22);

double scale_of(double largest, double span, double reach, int m, const Contract& contract) {
  double best = std::numeric_limits<double>::infinity();
  if (largest > 0.0) best = std::min(best, contract.table_max() / largest);
  if (span > 0.0) best = std::min(best, contract.span_limit(m) / span);
  if (reach > 0.0) best = std::min(best, kReachLimit / reach);
  if (std::isinf(best)) {
    // Either nothing limits it, or what does is too small to divide by.
    const bool limited = largest > 0.0 || span > 0.0 || reach > 0.0;
    return limited ? kScaleLimit : 1.0;
  }
  return std::min(best, kScaleLimit);
}

}  // namespace

double Contract::span_limit(int m) const {
  return std::max(1.0, static_cast<double>(static_cast<int64_t>(sum_max()) - 2 * (m + 1)));
}

void Contract::check() const {
  if (table_bits != 8 && table_bits != 16) throw std::invalid_argument("table_bits is not 8 or 16");
  if (sum_bits <= table_bits || sum_bits > 24) {
    throw std::invalid_argument("sum_bits is not in table_bits + 1 .. 24");
  }
}

float Scale::distance(uint32_t sum) const {
  return static_cast<float>(base + static_cast<double>(sum) / static_cast<double>(scale));
}

ScaleChoice::ScaleChoice(const ListRange* lists, int64_t count) : lists_(lists), count_(count) {
  base_ = lists[0].floor;
  for (int64_t p = 1; p < count; p++) base_ = std::min(base_, lists[p].floor);
  span_ = 0.0;
  for (int64_t p = 0; p < count; p++) {
    span_ = std::max(span_, lists[p].floor - base_ + lists[p].spread);
  }
}

double ScaleChoice::scale(double largest, int m, const Contract& contract) const {
  const double reach = std::max(std::abs(base_), std::abs(base_ + span_));
  return scale_of(largest, span_, reach, m, contract);
}

void ScaleChoice::biases(const Scale& scale, const Contract& contract, uint32_t* out) const {
  const double limit = contract.sum_max();
  for (int64_t p = 0; p < count_; p++) {
    const double scaled =
        std::floor((lists_[p].floor - base_) * static_cast<double>(scale.scale) + 0.5);
    out[p] = static_cast<uint32_t>(std::min(scaled, limit));
  }
}

Scale choose_scale(const ListRange* lists, int64_t count, float largest, int m,
                   const Contract& contract, uint32_t* biases) {
  Scale result;
  if (count == 0) return result;
  const ScaleChoice choice(lists, count);
  result.base = choice.base();
  result.scale = static_cast<float>(choice.scale(largest, m, contract));
  choice.biases(result, contract, biases);
  return result;
}

void coarse_ip(const float* query, const float* centroids, int64_t dim, const int64_t* lists,
               int64_t count, double* out) {
  // Each sum keeps its order; eight side by side hide the latency of an addition.
  constexpr int kSide = 8;
  for (int64_t first = 0; first < count; first += kSide) {
    const float* rows[kSide];
    double sums[kSide] = {};
    const int64_t here = std::min<int64_t>(kSide, count - first);
    for (int u = 0; u < kSide; u++) {
      // Past the end the last list is summed again, which changes nothing.
      const int64_t list = lists[first + std::min<int64_t>(u, here - 1)];
      rows[u] = centroids + std::max<int64_t>(list, 0) * dim;
    }
    for (int64_t t = 0; t < dim; t++) {
      const double value = query[t];
      for (int u = 0; u < kSide; u++) sums[u] -= value * static_cast<double>(rows[u][t]);
    }
    for (int64_t u = 0; u < here; u++) {
      if (lists[first + u] >= 0) out[first + u] = sums[u];
    }
  }
}

}  // namespace ragrig
