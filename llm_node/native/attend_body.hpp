// Attention over the paged cache, compiled once per code path; see tile.hpp.

// Keys whose scores are held at once, for tiles of queries and for single tokens.
constexpr int64_t kUnit = 64;
constexpr int64_t kShortUnit = 32;
// Up to so many queries per KV head single tokens are not worth a tile.
constexpr int64_t kFewQueries = kPartFloats / 4 < 2 ? 2 : kPartFloats / 4;
constexpr float kLowest = -3.4028234663852886e38f;
constexpr float kUnseen = -std::numeric_limits<float>::infinity();

inline int64_t piece_tokens(int64_t group) { return group >= kLanes ? 1 : kLanes / group; }

// Rows of K or V of some tokens of a sequence; all heads of a token are one row.
template <typename T>
inline void find_rows(const T* pool, int64_t width, const int32_t* blocks, int64_t block_tokens,
                      int64_t first, int64_t count, const T** rows) {
  int64_t block = first / block_tokens, offset = first % block_tokens;
  const T* at = pool + (blocks[block] * block_tokens + offset) * width;
  for (int64_t i = 0; i < count; i++) {
    rows[i] = at;
    at += width;
    if (++offset < block_tokens || i + 1 == count) continue;
    offset = 0;
    at = pool + blocks[++block] * block_tokens * width;
  }
}

template <typename T>
inline void ask_for(const T* from, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i);
}

// Running softmax of one query: `most` the largest score so far, `total` the sum of
// e^(score - most), `sums` the values weighted alike.
struct Running {
  float most, total;
};

// Weights of `count` scores, in place (room for whole parts); returns what older
// sums are to be multiplied by.
inline float weigh(float* scores, int64_t count, float softcap, Running& running) {
  const int64_t padded = round_up(count, kPartFloats);
  for (int64_t i = count; i < padded; i++) scores[i] = kUnseen;
  Part most = all(running.most);
  for (int64_t i = 0; i < padded; i += kPartFloats) {
    Part score = load(scores + i);
    if (softcap != 0.0f) {
      // tanh would make numbers of what is no score.
      score = score < kLowest ? score : capped(score, softcap);
      store(score, scores + i);
    }
    most = larger(most, score);
  }
  float lanes[kPartFloats];
  store(most, lanes);
  float largest = running.most;
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  Part sum = {};
  for (int64_t i = 0; i < padded; i += kPartFloats) {
    const Part weight = exponential(load(scores + i) - largest);
    store(weight, scores + i);
    sum += weight;
  }
  const float factor =
      largest == running.most ? 1.0f : std::exp(running.most - largest);
  running.total = running.total * factor + add_lanes(sum);
  running.most = largest;
  return factor;
}

// sums = factor * sums + weights * rows, for columns in registers.
template <int Parts, typename T>
RAGRIG_INLINE void add_rows(const float* weights, const T* const* rows, int64_t count,
                            int64_t first, float factor, float* sums) {
  Part held[Parts];
#pragma GCC unroll 4
  for (int p = 0; p < Parts; p++) held[p] = load(sums + p * kPartFloats) * factor;
  for (int64_t t = 0; t < count; t++) {
#pragma GCC unroll 4
    for (int p = 0; p < Parts; p++)
      held[p] += weights[t] * load(rows[t] + first + p * kPartFloats);
  }
#pragma GCC unroll 4
  for (int p = 0; p < Parts; p++) store(held[p], sums + p * kPartFloats);
}

template <typename T>
inline void add_values(const float* weights, const T* const* rows, int64_t count,
                       int64_t first, int64_t dim, float factor, float* sums) {
  int64_t d = 0;
  for (; d + 4 * kPartFloats <= dim; d += 4 * kPartFloats)
    add_rows<4>(weights, rows, count, first + d, factor, sums + d);
  for (; d + kPartFloats <= dim; d += kPartFloats)
    add_rows<1>(weights, rows, count, first + d, factor, sums + d);
  for (; d < dim; d++) {
    float sum = sums[d] * factor;
    for (int64_t t = 0; t < count; t++) sum += weights[t] * wide(rows[t][first + d]);
    sums[d] = sum;
  }
}

// A single token: K and V are read once, row by row, the next rows while these are
// worked on.
template <typename T>
inline void attend_one(const Layer& layer, const Piece& piece, const T* all_keys,
                       const T* all_values, float* scratch) {
  const int64_t group = layer.heads / layer.kv_heads, queries = piece.heads * group;
  const int64_t key_width = layer.kv_heads * layer.key_dim;
  const int64_t value_width = layer.kv_heads * layer.value_dim;
  const int64_t end = piece.place + 1;
  const int64_t begin = layer.window > 0 && layer.window < end ? end - layer.window : 0;
  float* const asked = scratch;
  float* const sums = asked + queries * layer.key_dim;
  Running* const running = reinterpret_cast<Running*>(sums + queries * layer.value_dim);
  for (int64_t q = 0; q < queries; q++) running[q] = {kLowest, 0.0f};
  for (int64_t i = 0; i < queries * layer.value_dim; i++) sums[i] = 0.0f;
  const float* query = layer.query + piece.row * layer.query_token;
  for (int64_t q = 0; q < queries; q++)
    for (int64_t d = 0; d < layer.key_dim; d++)
      asked[q * layer.key_dim + d] =
          query[(piece.head * group + q) * layer.query_head + d] * layer.scale;
  const T* key_rows[2][kShortUnit];
  const T* value_rows[2][kShortUnit];
  const auto find = [&](int64_t first, int which) {
    const int64_t count = least(kShortUnit, end - first);
    find_rows(all_keys, key_width, piece.blocks, layer.block_tokens, first, count,
              key_rows[which]);
    find_rows(all_values, value_width, piece.blocks, layer.block_tokens, first, count,
              value_rows[which]);
    return count;
  };
  int now = 1;
  int64_t next = find(begin, 0);
  for (int64_t first = begin; first < end; first += kShortUnit) {
    const int64_t count = next;
    now = 1 - now;
    next = first + kShortUnit < end ? find(first + kShortUnit, 1 - now) : 0;
    const T* const* keys = key_rows[now];
    const T* const* values = value_rows[now];
    const T* const* next_keys = key_rows[1 - now];
    const T* const* next_values = value_rows[1 - now];
    for (int64_t h = 0; h < piece.heads; h++) {
      const int64_t key = (piece.head + h) * layer.key_dim;
      const int64_t value = (piece.head + h) * layer.value_dim;
      for (int64_t g = 0; g < group; g++) {
        const int64_t q = h * group + g;
        alignas(64) float scores[kShortUnit];
        for (int64_t t = 0; t < count; t++) {
          scores[t] = dot(asked + q * layer.key_dim, keys[t] + key, layer.key_dim);
          if (g > 0 || t >= next) continue;
          ask_for(next_keys[t] + key, layer.key_dim);
          ask_for(next_values[t] + value, layer.value_dim);
        }
        const float factor = weigh(scores, count, layer.softcap, running[q]);
        add_values(scores, values, count, value, layer.value_dim, factor,
                   sums + q * layer.value_dim);
      }
    }
  }
  float* out = layer.out + (piece.row * layer.heads + piece.head * group) * layer.value_dim;
  for (int64_t q = 0; q < queries; q++) {
    const float total = running[q].total;
    for (int64_t d = 0; d < layer.value_dim; d++)
      out[q * layer.value_dim + d] = sums[q * layer.value_dim + d] / total;
  }
}

// Up to kLanes queries of one KV head side by side in lanes.
struct Tile {
  int64_t lanes;  // in use, rounded up to whole parts
  alignas(64) float most[kLanes], total[kLanes];
  alignas(64) int32_t places[kLanes];
  float* asked;   // [key_dim][lanes]
  float* sums;    // [value_dim][lanes]
  float* scores;  // [kUnit][lanes]
};

// Weights of a unit's scores, in place; sums are scaled down where a larger score came.
inline void weigh_tile(Tile& tile, const Layer& layer, int64_t first, int64_t count, bool edge) {
  for (int64_t at = 0; at < tile.lanes; at += kPartFloats) {
    const Part before = load(tile.most + at);
    const Ints places = *reinterpret_cast<const Ints*>(tile.places + at);
    Part most = before;
    for (int64_t t = 0; t < count; t++) {
      float* place = tile.scores + t * tile.lanes + at;
      Part score = load(place);
      if (layer.softcap != 0.0f) score = capped(score, layer.softcap);
      if (edge) {
        const int32_t own = static_cast<int32_t>(first + t);
        Ints seen = places >= own;
        if (layer.window > 0) seen &= places - own < static_cast<int32_t>(layer.window);
        score = seen ? score : all(kUnseen);
      }
      if (edge || layer.softcap != 0.0f) store(score, place);
      most = larger(most, score);
    }
    Part sum = {};
    for (int64_t t = 0; t < count; t++) {
      float* place = tile.scores + t * tile.lanes + at;
      const Part weight = exponential(load(place) - most);
      store(weight, place);
      sum += weight;
    }
    const Part factor = exponential(before - most);
    store(load(tile.total + at) * factor + sum, tile.total + at);
    store(most, tile.most + at);
    float factors[kPartFloats];
    store(factor, factors);
    bool changed = false;
    for (float f : factors) changed = changed || f != 1.0f;
    if (!changed) continue;
    for (int64_t d = 0; d < layer.value_dim; d++) {
      float* place = tile.sums + d * tile.lanes + at;
      store(load(place) * factor, place);
    }
  }
}

// Lane i asks for head i % group of token i / group.
inline void open_tile(Tile& tile, const Layer& layer, const Piece& piece, int64_t head,
                      int64_t first_query, int64_t queries, float* scratch) {
  const int64_t group = layer.heads / layer.kv_heads;
  tile.lanes = round_up(queries, kPartFloats);
  tile.asked = scratch;
  tile.sums = tile.asked + layer.key_dim * tile.lanes;
  tile.scores = tile.sums + layer.value_dim * tile.lanes;
  for (int64_t i = 0; i < layer.value_dim * tile.lanes; i++) tile.sums[i] = 0.0f;
  for (int64_t i = 0; i < tile.lanes; i++) {
    // Lanes of padding repeat the last query.
    const int64_t query = first_query + least(i, queries - 1);
    const int64_t token = query / group;
    tile.most[i] = kLowest;
    tile.total[i] = 0.0f;
    tile.places[i] = static_cast<int32_t>(piece.place + token);
    const float* from = layer.query + (piece.row + token) * layer.query_token +
                        (head * group + query % group) * layer.query_head;
    for (int64_t d = 0; d < layer.key_dim; d++)
      tile.asked[d * tile.lanes + i] = from[d] * layer.scale;
  }
}

inline void close_tile(const Tile& tile, const Layer& layer, const Piece& piece, int64_t head,
                       int64_t first_query, int64_t queries) {
  const int64_t group = layer.heads / layer.kv_heads;
  for (int64_t i = 0; i < queries; i++) {
    const int64_t query = first_query + i;
    float* to = layer.out + ((piece.row + query / group) * layer.heads + head * group +
                             query % group) * layer.value_dim;
    for (int64_t d = 0; d < layer.value_dim; d++)
      to[d] = tile.sums[d * tile.lanes + i] / tile.total[i];
  }
}

template <typename T>
inline void attend_tile(const Layer& layer, const Piece& piece, const T* all_keys,
                        const T* all_values, int64_t head, int64_t first_query, int64_t queries,
                        float* scratch) {
  Tile tile;
  open_tile(tile, layer, piece, head, first_query, queries, scratch);
  const int64_t low = tile.places[0], high = tile.places[queries - 1];
  const int64_t begin = layer.window > 0 ? most_of(0, low - layer.window + 1) : 0;
  const T* keys[kUnit];
  const T* values[kUnit];
  for (int64_t first = begin; first <= high; first += kUnit) {
    const int64_t count = least(kUnit, high + 1 - first);
    find_rows(all_keys + head * layer.key_dim, layer.kv_heads * layer.key_dim, piece.blocks,
              layer.block_tokens, first, count, keys);
    find_rows(all_values + head * layer.value_dim, layer.kv_heads * layer.value_dim,
              piece.blocks, layer.block_tokens, first, count, values);
    tiles_of<false>(ByRow<T>{keys}, count, layer.key_dim, tile.asked, tile.lanes, tile.scores);
    const bool edge = first + count - 1 > low || (layer.window > 0 && first + layer.window <= high);
    weigh_tile(tile, layer, first, count, edge);
    tiles_of<true>(ByColumn<T>{values, 0}, layer.value_dim, count, tile.scores, tile.lanes,
                   tile.sums);
  }
  close_tile(tile, layer, piece, head, first_query, queries);
}

inline int64_t attend_floats(const Layer& layer, int64_t heads) {
  const int64_t one = heads * kFewQueries * (layer.key_dim + layer.value_dim + 2);
  return most_of(one, (layer.key_dim + layer.value_dim + kUnit) * kLanes);
}

template <typename T>
inline void attend_over(const Layer& layer, const Piece& piece, const T* keys, const T* values,
                        float* scratch) {
  const int64_t group = layer.heads / layer.kv_heads;
  if (piece.tokens == 1 && group <= kFewQueries)
    return attend_one(layer, piece, keys, values, scratch);
  for (int64_t head = piece.head; head < piece.head + piece.heads; head++)
    for (int64_t query = 0; query < piece.tokens * group; query += kLanes)
      attend_tile(layer, piece, keys, values, head, query,
                  least(kLanes, piece.tokens * group - query), scratch);
}

inline void attend(const Layer& layer, const Piece& piece, float* scratch) {
  if (layer.half_keys != nullptr)
    attend_over(layer, piece, layer.half_keys, layer.half_values, scratch);
  else attend_over(layer, piece, layer.keys, layer.values, scratch);
}
