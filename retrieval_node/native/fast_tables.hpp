// What the filter of mode `fast` knows about a query.
//
// The distance of code x in list l is (up to float rounding)
//   l2: coarse_l + t(x) + sum_j f_j[x_j],  f_j[c] = -2 <(q - shift)_j, e_jc>,
//       coarse_l = |q - c_l|^2 and t(x) the stored bias of the code;
//   ip: coarse_l + sum_j f_j[x_j],  f_j[c] = -<q_j, e_jc>, coarse_l = -<q, c_l>.
// so one table serves all lists. Scaled, floored bytes of it, saturating sums and
// a floored bias never exceed the true value in units; `rounding` is added to the
// limit, so that no float step can lose a code that belongs to the result.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "batch.hpp"
#include "index.hpp"
#include "kernels.hpp"

namespace ragrig {

// A list of one segment as the filter sees it.
struct Offset {
  double value;      // coarse_l + bias base
  double bias_span;  // largest bias above its base
  float bias_step;
};

// How far the distance that the float tables tell may be from the exact one.
struct Gap {
  double below, above;
};

// Float tables of one query; read by all threads that work for it.
class QueryTables {
 public:
  void build(const Index& index, const Kernels& kernels, const float* query);

  const float* query = nullptr;
  const float* table = nullptr;    // [m][256]
  const float* minima = nullptr;   // [m]
  double base = 0.0;               // sum of the minima
  double magnitude = 0.0;          // no sum of products is larger

  // What a code drawn at random adds up to above `base`, about.
  double usual_sum(int64_t m) const;

  // More than the float steps of the filter and of the exact distance lose
  // together, those that underflow too.
  double rounding(const Index& index, float limit, const Offset& offset) const;

  // For any code of a list. `above` is what a well-stored bias keeps to.
  Gap gap(const Index& index, const ListView& view, const Offset& offset) const;

 private:
  Aligned<float> table_, minima_, centred_;
};

// A probed list of a query.
struct Probe {
  int64_t list;
  double coarse;
};

// The byte table of one query and thread, scaled to the current limit.
class ByteTable {
 public:
  void reset(const Index& index) {
    table_.reserve(index.m * kCodes);
    scale_ = 0.0f;
  }

  // Sets limit and bias_factor of the job for codes nearer than `limit`. False:
  // none in the list can be. `widest`: the smallest offset.value of the lists that
  // this table will be used for; it decides the scale.
  bool level(const Index& index, const Kernels& kernels, const QueryTables& tables, float limit,
             const Offset& offset, double widest, FilterJob& job);

  // The same before there is a limit: a scale at which near codes of the list can
  // be told apart. Leaves job.limit to the caller.
  void guess(const Index& index, const Kernels& kernels, const QueryTables& tables,
             const Offset& offset, FilterJob& job);

 private:
  void rescale(const Index& index, const Kernels& kernels, const QueryTables& tables,
               double scale);
  void set_bias(const Offset& offset, FilterJob& job) const;

  Aligned<uint8_t> table_;
  float scale_ = 0.0f;
};

}  // namespace ragrig
