// Attention of one step's tokens over the paged cache.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace ragrig {

// Who is in the step, checked once for all layers.
class Batch {
 public:
  // starts: [sequences + 1], rows of each sequence's tokens; contexts: [sequences],
  // tokens of each after the step; tables: [sequences][width]. All are copied. Throws
  // std::invalid_argument where they do not fit each other or `blocks`.
  Batch(const int32_t* starts, const int32_t* contexts, const int32_t* tables, int64_t sequences,
        int64_t width, int64_t block_tokens, int64_t blocks);

  int64_t tokens() const { return starts_.back(); }
  int64_t block_tokens() const { return block_tokens_; }
  int64_t slots() const { return blocks_ * block_tokens_; }

  // layer.out gets every token's result; the cache holds their K and V already.
  void attend(const Layer& layer, const Ops& ops, int threads) const;

 private:
  void check(int64_t sequence) const;

  std::vector<int32_t> starts_, contexts_, tables_;
  int64_t width_, block_tokens_, blocks_;
};

// pool[slots[t]] = rows[t]: K or V of new tokens go to their slots. Strides in floats;
// a row is [heads][dim], its heads `head_stride` apart. Every slot was checked.
struct Scatter {
  float* pool;
  const int64_t* slots;
  const float* rows;
  int64_t tokens, heads, dim, token_stride, head_stride;
};
void scatter(const Scatter& job, int threads);

}  // namespace ragrig
