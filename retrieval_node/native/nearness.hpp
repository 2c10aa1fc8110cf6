// Which centroids are near a query, quickly and not to the last bit.
//
// The nearness of centroid c and query q is, up to roundings,
//   l2: |c - s|^2 / 2 - <q - s, c - s> = (|q - c|^2 - |q - s|^2) / 2, s the centroids' mean,
//       so that what all of them have in common costs no precision;
//   ip: -<q, c>, s = 0.
// One fused operation per component, where exact_distances takes three. `slack` bounds how far
// a nearness is from the one that the exact float32 distance stands for: whoever has the
// w smallest distances has a nearness of at most the w-th smallest one plus twice that.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"

namespace ragrig {

class Index;
struct Kernels;

class Nearness {
 public:
  explicit Nearness(const Index& index);

  // Centroids of a row of nearnesses, with what fills the last panel.
  int64_t stride() const { return stride_; }

  // out: [count][stride()]; queries, and what they are less the mean, which slack() takes:
  // [count][dim].
  void rows(const Kernels& kernels, const float* queries, int64_t count, float* centred,
            float* out) const;

  // Of a query's row; infinite where its numbers are too large to say, or none.
  double slack(const float* centred) const;

 private:
  int64_t nlist_, dim_, stride_;
  std::vector<float> mean_;       // zeros for ip
  Aligned<float> panels_;         // [panels][dim][kPanel]
  Aligned<float> start_;          // [stride]
  double radius_ = 0.0;           // length of the longest c - s
};

}  // namespace ragrig
