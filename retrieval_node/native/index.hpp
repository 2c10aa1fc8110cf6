// Centroids and codebooks of an IVF-PQ index, with what the kernels derive from them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "aligned.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "maker.hpp"
#include "nearness.hpp"

namespace ragrig {

enum class Metric { l2, ip };

// "l2", "ip" or "cosine" (which is ip); throws std::invalid_argument.
Metric parse_metric(const std::string& name);

// What the caller gives; the pointers stay valid as long as `owner`.
struct IndexArrays {
  const float* centroids = nullptr;  // [nlist][dim]
  const float* codebooks = nullptr;  // [m][256][sub]
  const float* shift = nullptr;      // [dim]
  int64_t nlist = 0, dim = 0, m = 0, sub = 0;
  std::shared_ptr<void> owner;
};

class Index {
 public:
  Index(Metric metric, IndexArrays arrays, bool residual, Isa isa);

  const Metric metric;
  const bool residual;
  const Isa isa;
  const int64_t nlist, dim, m, sub;
  const float* const centroids;
  const float* const codebooks;
  const float* const shift;
  // Codebooks as [m][sub][256]: all entries of a component side by side.
  const std::vector<float> book;

  const float* centroid(int64_t list) const { return centroids + list * dim; }
  // [m][sub][256]
  const float* turned_codebooks() const { return turned_.get(); }
  // Length of the longest entry of codebook j.
  double longest_entry(int64_t j) const { return longest_[static_cast<size_t>(j)]; }
  // Relative error that the float steps of a distance stay below.
  double rounding() const;

  // Made at the first coarse search.
  const Nearness& nearness() const;
  // Made at the first search with tables from integers.
  const IntegerBook& integer_book() const;

  // Working memory of ended searches, for the next ones: fresh pages cost more
  // than a small search. Empty: none is spare.
  std::shared_ptr<void> take_spare() const;
  void give_spare(std::shared_ptr<void> memory) const;

 private:
  void derive();

  Aligned<float> turned_;
  std::vector<double> longest_;
  mutable std::once_flag nearness_once_, integers_once_;
  mutable std::unique_ptr<Nearness> nearness_;
  mutable std::shared_ptr<const IntegerBook> integers_;
  mutable std::mutex spare_mutex_;
  mutable std::vector<std::shared_ptr<void>> spare_;
  std::shared_ptr<void> owner_;
};

}  // namespace ragrig
