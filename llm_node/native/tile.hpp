// The inner loop of attention and of linear layers, compiled once per code path.
//
// Included inside the path's namespace, after its `#pragma GCC target`. The path
// defines first: kPartBytes (of a register), kTileParts (registers of lanes side by
// side), tile_rows(parts) (how many rows of sums then fit), and add_lanes(Part).
//
// Sums lie in lanes: c[r][lane] = sum over k of a(r, k) * b[k][lane]. What `a` reads
// is taken where it lies, one number at a time, so neither weights nor cached K and V
// have to be arranged beforehand; only b, the smaller side, is.
//
// Nothing here or in the other bodies calls a template of the standard library: the
// linker keeps one copy of those, which could be that of a path this machine cannot run.

#define RAGRIG_INLINE inline __attribute__((always_inline))

constexpr int kPartFloats = kPartBytes / 4;
constexpr int kLanes = kTileParts * kPartFloats;
using Part = float __attribute__((vector_size(kPartBytes)));
using LoosePart = float __attribute__((vector_size(kPartBytes), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(kPartBytes)));

RAGRIG_INLINE Part load(const float* from) { return *reinterpret_cast<const LoosePart*>(from); }
// Numbers of half the width: what is missing of each float is zeros.
RAGRIG_INLINE float wide(Half value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float found;
  __builtin_memcpy(&found, &bits, sizeof found);
  return found;
}
RAGRIG_INLINE float wide(float value) { return value; }
RAGRIG_INLINE Part load(const Half* from) {
  using Halves = Half __attribute__((vector_size(kPartBytes / 2)));
  using LooseHalves = Half __attribute__((vector_size(kPartBytes / 2), aligned(2), may_alias));
  using Bits = uint32_t __attribute__((vector_size(kPartBytes)));
  const Halves halves = *reinterpret_cast<const LooseHalves*>(from);
  return reinterpret_cast<Part>(__builtin_convertvector(halves, Bits) << 16);
}
RAGRIG_INLINE void store(const Part& from, float* to) { *reinterpret_cast<LoosePart*>(to) = from; }
RAGRIG_INLINE Part all(float value) { return value - Part{}; }
RAGRIG_INLINE Part larger(const Part& a, const Part& b) { return a > b ? a : b; }

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Element (r, k) of rows that lie anywhere: row r's k-th number.
template <typename T>
struct ByRow {
  const T* const* rows;
  RAGRIG_INLINE float operator()(int64_t r, int64_t k) const { return wide(rows[r][k]); }
  RAGRIG_INLINE ByRow from(int64_t r) const { return {rows + r}; }
};

// The transposed: number first + r of row k.
template <typename T>
struct ByColumn {
  const T* const* rows;
  int64_t first;
  RAGRIG_INLINE float operator()(int64_t r, int64_t k) const { return wide(rows[k][first + r]); }
  RAGRIG_INLINE ByColumn from(int64_t r) const { return {rows, first + r}; }
};

// c: as many rows as `a` has here, kLanes apart, like those of b.
template <int Rows, int Parts, bool Add, typename A>
inline void tile(const A& a, int64_t depth, const float* b, int64_t stride, float* c) {
  Part sums[Rows][Parts] = {};
  for (int64_t k = 0; k < depth; k++) {
    Part right[Parts];
#pragma GCC unroll 4
    for (int p = 0; p < Parts; p++) right[p] = load(b + k * stride + p * kPartFloats);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) {
      const Part left = all(a(r, k));
#pragma GCC unroll 4
      for (int p = 0; p < Parts; p++) sums[r][p] += left * right[p];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < Parts; p++) {
      float* to = c + r * stride + p * kPartFloats;
      store(Add ? load(to) + sums[r][p] : sums[r][p], to);
    }
  }
}

// As tile, for any number of rows.
template <int Parts, bool Add, typename A>
void tiles(const A& a, int64_t rows, int64_t depth, const float* b, int64_t stride, float* c) {
  constexpr int kRows = tile_rows(Parts);
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    tile<kRows, Parts, Add>(a.from(r), depth, b, stride, c + r * stride);
  for (; r + 4 <= rows; r += 4) tile<4, Parts, Add>(a.from(r), depth, b, stride, c + r * stride);
  for (; r < rows; r++) tile<1, Parts, Add>(a.from(r), depth, b, stride, c + r * stride);
}

// stride: lanes, a multiple of kPartFloats up to kLanes.
template <bool Add, typename A>
void tiles_of(const A& a, int64_t rows, int64_t depth, const float* b, int64_t stride, float* c) {
  switch (stride / kPartFloats) {
    case 1: return tiles<1, Add>(a, rows, depth, b, stride, c);
    case 2: return tiles<2, Add>(a, rows, depth, b, stride, c);
    case 3: return tiles<kTileParts < 3 ? 1 : 3, Add>(a, rows, depth, b, stride, c);
    default: return tiles<kTileParts < 4 ? 1 : 4, Add>(a, rows, depth, b, stride, c);
  }
}

// to[j][i] = from[i][j] for 4 x 4 numbers.
RAGRIG_INLINE void turn4(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  using Four = float __attribute__((vector_size(16)));
  using LooseFour = float __attribute__((vector_size(16), aligned(4), may_alias));
  using Order = int32_t __attribute__((vector_size(16)));
  Four rows[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) rows[i] = *reinterpret_cast<const LooseFour*>(from + i * from_stride);
  const Four low01 = __builtin_shuffle(rows[0], rows[1], Order{0, 4, 1, 5});
  const Four high01 = __builtin_shuffle(rows[0], rows[1], Order{2, 6, 3, 7});
  const Four low23 = __builtin_shuffle(rows[2], rows[3], Order{0, 4, 1, 5});
  const Four high23 = __builtin_shuffle(rows[2], rows[3], Order{2, 6, 3, 7});
  *reinterpret_cast<LooseFour*>(to) = __builtin_shuffle(low01, low23, Order{0, 1, 4, 5});
  *reinterpret_cast<LooseFour*>(to + to_stride) =
      __builtin_shuffle(low01, low23, Order{2, 3, 6, 7});
  *reinterpret_cast<LooseFour*>(to + 2 * to_stride) =
      __builtin_shuffle(high01, high23, Order{0, 1, 4, 5});
  *reinterpret_cast<LooseFour*>(to + 3 * to_stride) =
      __builtin_shuffle(high01, high23, Order{2, 3, 6, 7});
}

// to[j][i] = from[i][j] for i < rows, j < columns.
inline void turn_block(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                       float* to, int64_t to_stride) {
  const int64_t whole = columns - columns % 4;
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    for (int64_t j = 0; j < whole; j += 4)
      turn4(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
    for (int64_t j = whole; j < columns; j++)
      for (int64_t u = 0; u < 4; u++) to[j * to_stride + i + u] = from[(i + u) * from_stride + j];
  }
  for (; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) to[j * to_stride + i] = from[i * from_stride + j];
}

// The inner product of two rows.
template <typename T>
RAGRIG_INLINE float dot(const float* a, const T* b, int64_t count) {
  Part sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kPartFloats <= count; i += 2 * kPartFloats) {
    sums[0] += load(a + i) * load(b + i);
    sums[1] += load(a + i + kPartFloats) * load(b + i + kPartFloats);
  }
  for (; i + kPartFloats <= count; i += kPartFloats) sums[0] += load(a + i) * load(b + i);
  float total = add_lanes(sums[0] + sums[1]);
  for (; i < count; i++) total += a[i] * wide(b[i]);
  return total;
}

// e^x to two units in the last place; 0 below the normal numbers, NaN for NaN.
// x is at most 80.
RAGRIG_INLINE Part exponential(const Part& x) {
  const Part shifted = x * 1.44269504f + 12582912.0f;  // the integer is in the low bits
  const Part whole = shifted - 12582912.0f;
  const Part rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Part series = all(1.0f / 720.0f);
  series = series * rest + 1.0f / 120.0f;
  series = series * rest + 1.0f / 24.0f;
  series = series * rest + 1.0f / 6.0f;
  series = series * rest + 0.5f;
  series = series * rest + 1.0f;
  series = series * rest + 1.0f;
  // Adding to the exponent multiplies by a power of two.
  const Ints power = reinterpret_cast<Ints>(shifted) << 23;
  const Part value = reinterpret_cast<Part>(reinterpret_cast<Ints>(series) + power);
  return x < -87.0f ? Part{} : value;
}

// softcap * tanh(x / softcap).
RAGRIG_INLINE Part capped(const Part& x, float softcap) {
  const Part y = x / softcap;
  const Part size = y < 0.0f ? -y : y;
  const Part doubled = 2.0f * size;
  const Part power = exponential(doubled > 40.0f ? all(40.0f) : doubled);
  // NaN passes both comparisons unchanged.
  const Part found = 1.0f - 2.0f / (power + 1.0f);
  return (y < 0.0f ? -found : found) * softcap;
}
