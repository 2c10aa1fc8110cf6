#include "index.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace ragrig {
namespace {

constexpr size_t kMostSpare = 64;

}  // namespace

Metric parse_metric(const std::string& name) {
  if (name == "l2") return Metric::l2;
  if (name == "ip" || name == "cosine") return Metric::ip;
  throw std::invalid_argument("metric: " + name + " is not l2 or ip");
}

namespace {

std::vector<float> transposed(const IndexArrays& arrays) {
  std::vector<float> book(static_cast<size_t>(arrays.m * kCodes * arrays.sub));
  for (int64_t j = 0; j < arrays.m; ++j)
    for (int64_t c = 0; c < kCodes; ++c)
      for (int64_t t = 0; t < arrays.sub; ++t)
        book[static_cast<size_t>((j * arrays.sub + t) * kCodes + c)] =
            arrays.codebooks[(j * kCodes + c) * arrays.sub + t];
  return book;
}

}  // namespace

Index::Index(Metric metric_, IndexArrays arrays, bool residual_, Isa isa_)
    : metric(metric_), residual(residual_), isa(isa_), nlist(arrays.nlist), dim(arrays.dim),
      m(arrays.m), sub(arrays.sub), centroids(arrays.centroids), codebooks(arrays.codebooks),
      shift(arrays.shift), book(transposed(arrays)), owner_(std::move(arrays.owner)) {
  if (nlist < 1 || nlist > INT32_MAX) throw std::invalid_argument("centroids: no lists");
  if (dim < 1 || dim > (1 << 20)) throw std::invalid_argument("centroids: dim out of range");
  if (m < 1 || m > 4096) throw std::invalid_argument("codebooks: m is not in 1..4096");
  if (m * sub != dim) throw std::invalid_argument("codebooks: m * sub is not the dim of centroids");
  derive();
}

void Index::derive() {
  float* const turned = turned_.reserve(m * sub * kCodes);
  longest_.resize(static_cast<size_t>(m));
  for (int64_t j = 0; j < m; ++j)
    for (int64_t c = 0; c < kCodes; ++c) {
      const float* entry = codebooks + (j * kCodes + c) * sub;
      double square = 0.0;
      for (int64_t t = 0; t < sub; ++t) {
        turned[(j * sub + t) * kCodes + c] = entry[t];
        square += static_cast<double>(entry[t]) * static_cast<double>(entry[t]);
      }
      double& longest = longest_[static_cast<size_t>(j)];
      longest = std::max(longest, std::sqrt(square));
    }
}

const Nearness& Index::nearness() const {
  std::call_once(nearness_once_, [this] { nearness_ = std::make_unique<Nearness>(*this); });
  return *nearness_;
}

const IntegerBook& Index::integer_book() const {
  std::call_once(integers_once_, [this] { integers_ = IntegerBook::of(codebooks, m, sub); });
  return *integers_;
}

std::shared_ptr<void> Index::take_spare() const {
  std::lock_guard<std::mutex> lock(spare_mutex_);
  if (spare_.empty()) return {};
  std::shared_ptr<void> memory = std::move(spare_.back());
  spare_.pop_back();
  return memory;
}

void Index::give_spare(std::shared_ptr<void> memory) const {
  std::lock_guard<std::mutex> lock(spare_mutex_);
  if (spare_.size() < kMostSpare) spare_.push_back(std::move(memory));
}

double Index::rounding() const {
  // Roundings that one component goes through: along a lane, over the lanes,
  // along a sub-vector of the tables, and a few more. Twice the unit roundoff.
  const double steps = static_cast<double>(dim / 16 + sub + m + 48);
  return steps * 0x1p-23;
}

}  // namespace ragrig
