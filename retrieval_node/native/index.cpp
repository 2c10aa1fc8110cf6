#include "index.hpp"

#include <stdexcept>
#include <utility>

namespace ragrig {

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
}

}  // namespace ragrig
