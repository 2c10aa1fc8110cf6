// Exact distances, compiled once per code path.
//
// Included inside the path's namespace, after its `#pragma GCC target`. The path
// defines first: kVectorBytes, and widen16(halves, floats) for 16 float16 values.

constexpr int kExactLanes = 16;
constexpr int kParts = kExactLanes * static_cast<int>(sizeof(float)) / kVectorBytes;
constexpr int kPartFloats = kVectorBytes / static_cast<int>(sizeof(float));
using Part = float __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));

// The bits of float16 as a float32: exact, subnormals too.
inline float widen(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = half & 0x7FFFu;
  // Moves the exponent from float16's bias to float32's; infinities and NaN stay so.
  uint32_t bits = sign | (rest >= 0x7C00u ? 0x7F800000u | (rest & 0x3FFu) << 13 : rest << 13);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return rest >= 0x7C00u ? value : value * 5.192296858534828e33f;  // 2^112
}

inline void fetch(const float* from, Part* to) {
#pragma GCC unroll 4
  for (int p = 0; p < kParts; p++) {
    to[p] = *reinterpret_cast<const Part*>(from + p * kPartFloats);
  }
}
inline void fetch(const uint16_t* from, Part* to) {
  float floats[kExactLanes];
  widen16(from, floats);
  fetch(floats, to);
}
inline float one(const float* from) { return *from; }
inline float one(const uint16_t* from) { return widen(*from); }

template <bool Squared, typename T>
inline T step(const T& sum, const T& query, const T& value) {
  if constexpr (Squared) {
    const T diff = query - value;
    return sum + diff * diff;
  } else {
    return sum - query * value;
  }
}

// Several rows side by side hide the latency of an addition.
template <bool Squared, typename Stored, int Rows>
inline void some(const float* query, const void* const* rows, int64_t dim, float* distances) {
  Part sums[Rows][kParts];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; p++) sums[r][p] = Part{};
  }
  const int64_t whole = dim - dim % kExactLanes;
  for (int64_t t = 0; t < whole; t += kExactLanes) {
    Part asked[kParts];
    fetch(query + t, asked);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) {
      Part stored[kParts];
      fetch(static_cast<const Stored*>(rows[r]) + t, stored);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; p++) {
        sums[r][p] = step<Squared>(sums[r][p], asked[p], stored[p]);
      }
    }
  }
  float lanes[Rows][kExactLanes];
  std::memcpy(lanes, sums, sizeof(lanes));
  for (int r = 0; r < Rows; r++) {
    const Stored* row = static_cast<const Stored*>(rows[r]);
    for (int64_t u = 0; u < dim - whole; u++) {
      lanes[r][u] = step<Squared>(lanes[r][u], query[whole + u], one(row + whole + u));
    }
  }
  float totals[Rows] = {};
  for (int u = 0; u < kExactLanes; u++) {
    for (int r = 0; r < Rows; r++) totals[r] = totals[r] + lanes[r][u];
  }
  for (int r = 0; r < Rows; r++) distances[r] = totals[r];
}

template <bool Squared, typename Stored>
void distances_of(const float* query, const void* const* rows, int64_t count, int64_t dim,
                  float* distances) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    some<Squared, Stored, 4>(query, rows + i, dim, distances + i);
  }
  for (; i < count; i++) some<Squared, Stored, 1>(query, rows + i, dim, distances + i);
}

void widen_all(const uint16_t* halves, int64_t count, float* floats) {
  int64_t i = 0;
  for (; i + kExactLanes <= count; i += kExactLanes) widen16(halves + i, floats + i);
  for (; i < count; i++) floats[i] = widen(halves[i]);
}
