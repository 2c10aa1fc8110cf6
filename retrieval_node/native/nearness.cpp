#include "nearness.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "index.hpp"
#include "kernels.hpp"

namespace ragrig {
namespace {

// Beyond this, squares come near the largest float.
constexpr double kLongest = 1e18;

std::vector<float> mean_of(const Index& index) {
  std::vector<float> mean(static_cast<size_t>(index.dim), 0.0f);
  if (index.metric != Metric::l2) return mean;
  for (int64_t t = 0; t < index.dim; ++t) {
    double sum = 0.0;
    for (int64_t l = 0; l < index.nlist; ++l) sum += static_cast<double>(index.centroid(l)[t]);
    mean[static_cast<size_t>(t)] = static_cast<float>(sum / static_cast<double>(index.nlist));
  }
  return mean;
}

}  // namespace

Nearness::Nearness(const Index& index)
    : nlist_(index.nlist), dim_(index.dim), stride_((nlist_ + kPanel - 1) / kPanel * kPanel),
      mean_(mean_of(index)) {
  float* const panels = panels_.reserve(stride_ * dim_);
  float* const start = start_.reserve(stride_);
  std::fill(panels, panels + stride_ * dim_, 0.0f);
  std::fill(start, start + stride_, std::numeric_limits<float>::infinity());
  for (int64_t l = 0; l < nlist_; ++l) {
    float* const out = panels + l / kPanel * kPanel * dim_ + l % kPanel;
    double square = 0.0;
    for (int64_t t = 0; t < dim_; ++t) {
      const float value = index.centroid(l)[t] - mean_[static_cast<size_t>(t)];
      out[t * kPanel] = value;
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    start[l] = index.metric == Metric::l2 ? static_cast<float>(square / 2.0) : 0.0f;
    radius_ = std::max(radius_, std::sqrt(square));
  }
}

void Nearness::rows(const Kernels& kernels, const float* queries, int64_t count, float* centred,
                    float* out) const {
  for (int64_t q = 0; q < count; ++q)
    for (int64_t t = 0; t < dim_; ++t)
      centred[q * dim_ + t] = queries[q * dim_ + t] - mean_[static_cast<size_t>(t)];
  for (int64_t at = 0; at < stride_; at += kPanel)
    kernels.near(centred, count, dim_, panels_.get() + at * dim_, start_.get() + at, out + at,
                 stride_);
}

double Nearness::slack(const float* centred) const {
  double square = 0.0;
  for (int64_t t = 0; t < dim_; ++t) {
    square += static_cast<double>(centred[t]) * static_cast<double>(centred[t]);
  }
  // Roundings: dim + 1 of the sum, dim / 16 + 18 of the exact distance, two of the mean taken
  // away (each counts twice in a square), one of the norm; and a few for this bound itself.
  const double steps = static_cast<double>(dim_ + dim_ / 16) + 32.0;
  const double reach = std::sqrt(square) + radius_;
  // Also for a query that is not a number.
  if (!(reach < kLongest)) return std::numeric_limits<double>::infinity();
  return steps * 0x1p-24 * reach * reach + static_cast<double>(dim_) * 0x1p-146;
}

}  // namespace ragrig
