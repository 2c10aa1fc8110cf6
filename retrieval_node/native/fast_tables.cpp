#include "fast_tables.hpp"

#include <algorithm>
#include <cmath>

namespace ragrig {
namespace {

// Units from the smallest possible sum to the limit; 254 is the most that a
// saturating byte can tell from beyond.
constexpr double kUnits = 248.0;
// Below this a finer table pays for the work of making it.
constexpr double kCoarsest = 150.0;
constexpr double kMostUnits = 254.0;
// Sums of 16 bits: units of the limit per column. A usual entry is above it (most
// codes are beyond the limit), a large one may be clipped at 255.
constexpr double kWideUnits = 40.0;
// For all identical codes the span is nothing but rounding.
constexpr double kMostScale = 1e30;
// Largest 16-bit factor of the bias.
constexpr double kMostFactor = 65535.0;

// Written so that NaN, which no sound index gives, becomes `most`.
uint32_t whole(double value, double most) {
  return static_cast<uint32_t>(value < most ? value : most);
}

}  // namespace

void QueryTables::build(const Index& index, const Kernels& kernels, const float* query_) {
  query = query_;
  float* const out = table_.reserve(index.m * kCodes);
  float* const lows = minima_.reserve(index.m);
  float* const centred = centred_.reserve(index.dim);
  const bool l2 = index.metric == Metric::l2;
  for (int64_t t = 0; t < index.dim; ++t) centred[t] = l2 ? query[t] - index.shift[t] : query[t];
  const float factor = l2 ? -2.0f : -1.0f;
  kernels.table(centred, index.turned_codebooks(), index.m, index.sub, factor, out, lows);
  table = out;
  minima = lows;
  base = 0.0;
  magnitude = 0.0;
  for (int64_t j = 0; j < index.m; ++j) {
    base += static_cast<double>(lows[j]);
    double square = 0.0;
    for (int64_t t = j * index.sub; t < (j + 1) * index.sub; ++t)
      square += static_cast<double>(centred[t]) * static_cast<double>(centred[t]);
    magnitude += 2.0 * std::sqrt(square) * index.longest_entry(j);
  }
}

double QueryTables::rounding(const Index& index, float limit, const Offset& offset) const {
  return index.rounding() * (std::abs(static_cast<double>(limit)) + std::abs(offset.value) +
                             offset.bias_span + magnitude) +
         static_cast<double>(index.dim) * 0x1p-146;
}

Gap QueryTables::gap(const Index& index, const ListView& view, const Offset& offset) const {
  const double reach = std::abs(offset.value) + offset.bias_span + magnitude;
  const double below = 6.0 * index.rounding() * reach + static_cast<double>(index.dim) * 0x1p-145;
  const double base = std::abs(static_cast<double>(view.bias_base));
  // A bias is rounded down to its step, after a margin of 2^-20 of the largest.
  const double bias = static_cast<double>(offset.bias_step) + (base + offset.bias_span) * 0x1p-19;
  return {below, below + bias};
}

double QueryTables::usual_sum(int64_t m) const {
  constexpr int64_t kStep = 8;  // every eighth codeword tells enough
  double sums[4] = {};
  for (int64_t i = 0; i < m * kCodes; i += 4 * kStep)
    for (int64_t u = 0; u < 4; ++u) sums[u] += static_cast<double>(table[i + u * kStep]);
  return (sums[0] + sums[1] + sums[2] + sums[3]) * kStep / kCodes - base;
}

void ByteTable::rescale(const Index& index, const Kernels& kernels, const QueryTables& tables,
                        double scale) {
  scale_ = static_cast<float>(std::min(scale, kMostScale));
  kernels.quantize(tables.table, tables.minima, index.m, scale_, table_.get());
}

void ByteTable::set_bias(const Offset& offset, FilterJob& job) const {
  const double step = static_cast<double>(scale_) * static_cast<double>(offset.bias_step);
  job.bias_factor = whole(step * 65536.0 * (1.0 - 1e-6), kMostFactor);
  job.table = table_.get();
}

bool ByteTable::level(const Index& index, const Kernels& kernels, const QueryTables& tables,
                      float limit, const Offset& offset, double widest, FilterJob& job) {
  const double top = static_cast<double>(limit);
  const double rounding = tables.rounding(index, limit, offset);
  const double span = top - offset.value - tables.base + rounding;
  if (span < 0.0) return false;
  const double most = std::max(span, top - widest - tables.base + rounding);
  job.wide = sums_wide(index.m);
  const double finer = job.wide ? kWideUnits * static_cast<double>(index.m) / kUnits : 1.0;
  const double wanted = std::min(kUnits * finer / std::max(most, 1e-300), kMostScale);
  const double scale = static_cast<double>(scale_);
  const double units = scale * most;
  if (units > (kMostUnits - 1.0) * finer || (units < kCoarsest * finer && wanted > 1.2 * scale))
    rescale(index, kernels, tables, wanted);
  // One unit more than the span: the products of quantize() are rounded too.
  job.limit = whole(static_cast<double>(scale_) * span + 1.0, kMostUnits * finer);
  set_bias(offset, job);
  return true;
}

void ByteTable::guess(const Index& index, const Kernels& kernels, const QueryTables& tables,
                      const Offset& offset, FilterJob& job) {
  const double span = tables.usual_sum(index.m) + 0.5 * offset.bias_span;
  rescale(index, kernels, tables, kUnits / std::max(span, 1e-300));
  set_bias(offset, job);
}

}  // namespace ragrig
