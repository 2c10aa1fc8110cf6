// Centroids and codebooks of an IVF-PQ index, with what the kernels derive from them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isa.hpp"
#include "layout.hpp"

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

 private:
  std::shared_ptr<void> owner_;
};

}  // namespace ragrig
