// What each code path brings.
#pragma once

#include <cstdint>

#include "isa.hpp"

namespace ragrig {

// A bfloat16: the upper half of a float.
using Half = uint16_t;

// How one layer attends, and where it reads and writes. Strides are in numbers.
struct Layer {
  const float* query;  // [tokens][heads][key_dim]
  int64_t query_token, query_head;
  const float* keys;    // [slots][kv_heads][key_dim]
  const float* values;  // [slots][kv_heads][value_dim]
  const Half *half_keys, *half_values;  // the same in bfloat16; then those are null
  float* out;           // [tokens][heads][value_dim]
  int64_t heads, kv_heads, key_dim, value_dim, block_tokens;
  float scale;
  int64_t window;  // tokens a token sees, itself included; 0: all before it
  float softcap;   // 0: none
};

// Neighbouring tokens of one sequence, over some of its KV heads.
struct Piece {
  const int32_t* blocks;
  int64_t row;     // of the first token, in query and out
  int64_t place;   // of the first token, in the sequence
  int64_t tokens;
  int64_t head, heads;  // KV heads
};

// y[t][o] = sum of x[t][i] * weight[o][i] (+ bias[o]). One of both weights is null.
struct Linear {
  const float* x;       // [tokens][in]
  const float* weight;  // [out][in]
  const Half* halves;   // the same in bfloat16; sums are in float all the same
  const float* bias;    // [out] or null
  float* y;             // [tokens][out]
  int64_t tokens, in, out;
  float* turned;        // scratch, `turned_floats`
};

struct Ops {
  // Tokens of a piece that `attend` takes at once for `group` heads per KV head.
  int64_t (*piece_tokens)(int64_t group);
  // Scratch memory of `attend` for pieces of so many KV heads.
  int64_t (*attend_floats)(const Layer& layer, int64_t heads);
  void (*attend)(const Layer& layer, const Piece& piece, float* scratch);
  // Where this is not 0, `turn` comes before `linear`.
  int64_t (*turned_floats)(int64_t tokens, int64_t in);
  int64_t (*turn_tasks)(int64_t tokens);
  void (*turn)(const Linear& job, int64_t task);
  // Rows first .. first + count - 1 of the weight.
  void (*linear)(const Linear& job, int64_t first, int64_t count);
};

extern const Ops kPortable;
#if RAGRIG_X86
extern const Ops kAvx2;
extern const Ops kAvx512;
#endif

const Ops& ops_of(Isa isa);

}  // namespace ragrig
