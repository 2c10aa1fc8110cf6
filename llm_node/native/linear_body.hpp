// Linear layers over weights as a checkpoint has them, compiled once per code path;
// see tile.hpp. Tokens are the lanes.

// Weights of a row that are multiplied before the sums are put away: x of so many
// stays in the cache, and short sums are more exact.
constexpr int64_t kDepth = 256;
// Rows of the weight whose results are turned around together.
constexpr int64_t kPanel = 48;
// Up to so many tokens half of the lanes or more would be empty: rows of the weight
// and of x are multiplied lane by lane instead, and added up at the end.
constexpr int64_t kDirectTokens = kPartFloats / 2;
constexpr int kDirectRows = kTileParts < 4 ? 2 : 4;

// Tokens that are lanes: the rest that would fill half a register or less is left over.
inline int64_t tiled_tokens(int64_t tokens) {
  const int64_t rest = tokens % kPartFloats;
  return rest <= kDirectTokens ? tokens - rest : tokens;
}

// x turned: tile after tile of kLanes tokens, [in][lanes] each; the last may be narrower.
inline int64_t turned_floats(int64_t tokens, int64_t in) {
  return round_up(tiled_tokens(tokens), kPartFloats) * in;
}

inline int64_t turn_tasks(int64_t tokens) {
  return (tiled_tokens(tokens) + kLanes - 1) / kLanes;
}

inline void turn(const Linear& job, int64_t task) {
  const int64_t first = task * kLanes;
  const int64_t count = least(kLanes, tiled_tokens(job.tokens) - first);
  const int64_t lanes = round_up(count, kPartFloats);
  float* const to = job.turned + first * job.in;
  turn_block(job.x + first * job.in, job.in, count, job.in, to, lanes);
  for (int64_t k = 0; k < job.in; k++)
    for (int64_t lane = count; lane < lanes; lane++) to[k * lanes + lane] = 0.0f;
}

// Rows of a weight from column k on, as tiles read them; `room` holds kPanel x kDepth.
RAGRIG_INLINE void rows_of(const float* weight, int64_t in, int64_t count, int64_t,
                           const float** rows, float*) {
  for (int64_t r = 0; r < count; r++) rows[r] = weight + r * in;
}

// Tiles take one number at a time, for which the halves are widened beforehand.
inline void rows_of(const Half* weight, int64_t in, int64_t count, int64_t depth,
                    const float** rows, float* room) {
  for (int64_t r = 0; r < count; r++) {
    const Half* const from = weight + r * in;
    float* const to = room + r * kDepth;
    int64_t k = 0;
    for (; k + kPartFloats <= depth; k += kPartFloats) store(load(from + k), to + k);
    for (; k < depth; k++) to[k] = wide(from[k]);
    rows[r] = to;
  }
}

template <typename W>
inline void linear_panel(const Linear& job, const W* weight, int64_t first, int64_t count) {
  const float* rows[kPanel];
  alignas(64) float room[sizeof(W) == sizeof(float) ? 1 : kPanel * kDepth];
  alignas(64) float sums[kPanel * kLanes];
  const int64_t all_tokens = tiled_tokens(job.tokens);
  for (int64_t begin = 0; begin < all_tokens; begin += kLanes) {
    const int64_t tokens = least(kLanes, all_tokens - begin);
    const int64_t lanes = round_up(tokens, kPartFloats);
    const float* const x = job.turned + begin * job.in;
    for (int64_t k = 0; k < job.in; k += kDepth) {
      const int64_t depth = least(kDepth, job.in - k);
      rows_of(weight + first * job.in + k, job.in, count, depth, rows, room);
      if (k == 0) tiles_of<false>(ByRow<float>{rows}, count, depth, x, lanes, sums);
      else tiles_of<true>(ByRow<float>{rows}, count, depth, x + k * lanes, lanes, sums);
    }
    float* const to = job.y + begin * job.out + first;
    turn_block(sums, lanes, count, tokens, to, job.out);
    if (job.bias == nullptr) continue;
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t r = 0; r < count; r++) to[t * job.out + r] += job.bias[first + r];
  }
}

// Rows first .. first + Rows - 1 for tokens token .. token + Tokens - 1.
template <int Rows, int Tokens, typename W>
inline void linear_direct(const Linear& job, const W* whole, int64_t first, int64_t token) {
  const W* const weight = whole + first * job.in;
  const float* const x = job.x + token * job.in;
  Part sums[Rows][Tokens] = {};
  int64_t i = 0;
  for (; i + kPartFloats <= job.in; i += kPartFloats) {
    Part left[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) {
      left[r] = load(weight + r * job.in + i);
      // The rows that come next: each is too short for the processor to foresee them.
      __builtin_prefetch(weight + (Rows + r) * job.in + i);
    }
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; t++) {
      const Part right = load(x + t * job.in + i);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; r++) sums[r][t] += left[r] * right;
    }
  }
  for (int r = 0; r < Rows; r++) {
    for (int t = 0; t < Tokens; t++) {
      float total = add_lanes(sums[r][t]);
      for (int64_t k = i; k < job.in; k++)
        total += wide(weight[r * job.in + k]) * x[t * job.in + k];
      if (job.bias != nullptr) total += job.bias[first + r];
      job.y[(token + t) * job.out + first + r] = total;
    }
  }
}

template <int Rows, typename W>
inline void linear_rows(const Linear& job, const W* weight, int64_t first, int64_t token) {
  for (; token + 4 <= job.tokens; token += 4) linear_direct<Rows, 4>(job, weight, first, token);
  for (; token + 2 <= job.tokens; token += 2) linear_direct<Rows, 2>(job, weight, first, token);
  for (; token < job.tokens; token++) linear_direct<Rows, 1>(job, weight, first, token);
}

// A panel at a time: tokens left over by tiles find its rows in the cache.
template <typename W>
inline void linear_with(const Linear& job, const W* weight, int64_t first, int64_t count) {
  const int64_t tiled = tiled_tokens(job.tokens);
  for (int64_t begin = first; begin < first + count; begin += kPanel) {
    const int64_t end = begin + least(kPanel, first + count - begin);
    if (tiled > 0) linear_panel(job, weight, begin, end - begin);
    int64_t r = begin;
    for (; r + kDirectRows <= end; r += kDirectRows)
      linear_rows<kDirectRows>(job, weight, r, tiled);
    for (; r < end; r++) linear_rows<1>(job, weight, r, tiled);
  }
}

inline void linear(const Linear& job, int64_t first, int64_t count) {
  if (job.halves != nullptr) linear_with(job, job.halves, first, count);
  else linear_with(job, job.weight, first, count);
}
