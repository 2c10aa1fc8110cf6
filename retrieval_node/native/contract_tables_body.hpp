// Tables of the numeric contract, compiled once per code path.
//
// Included inside the path's namespace, after its `#pragma GCC target`; the path
// defines kVectorBytes, kTileLists and kTileColumns first. No include guard.

using Floats = float __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
using Order = int __attribute__((vector_size(kVectorBytes)));
constexpr int kWide = kVectorBytes / static_cast<int>(sizeof(float));
constexpr int kEntries = 256;

inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
inline void store(float* to, const Floats& value) { *reinterpret_cast<Floats*>(to) = value; }

inline Floats smaller(const Floats& a, const Floats& b) { return a < b ? a : b; }
inline Floats larger(const Floats& a, const Floats& b) { return a > b ? a : b; }

// Lane i of the result is lane i ^ by.
template <int By>
inline Floats swapped(const Floats& value) {
  Order order;
  for (int i = 0; i < kWide; i++) order[i] = i ^ By;
  return __builtin_shuffle(value, order);
}

inline void extremes(Floats low, Floats high, float* least, float* most) {
  if constexpr (kWide >= 16) {
    low = smaller(low, swapped<8>(low));
    high = larger(high, swapped<8>(high));
  }
  if constexpr (kWide >= 8) {
    low = smaller(low, swapped<4>(low));
    high = larger(high, swapped<4>(high));
  }
  low = smaller(low, swapped<2>(low));
  high = larger(high, swapped<2>(high));
  low = smaller(low, swapped<1>(low));
  high = larger(high, swapped<1>(high));
  *least = low[0];
  *most = high[0];
}

// Columns x kWide entries of `Lists` tables; every step rounds to float32.
template <bool Squared, int Lists, int Columns>
inline void tile(const float* values, int64_t dim, const float* book, int sub, float* out,
                 int64_t out_stride, Floats* low, Floats* high) {
  Floats sums[Lists][Columns];
#pragma GCC unroll 8
  for (int l = 0; l < Lists; l++) {
#pragma GCC unroll 8
    for (int c = 0; c < Columns; c++) sums[l][c] = Floats{};
  }
  for (int t = 0; t < sub; t++) {
    Floats words[Columns];
#pragma GCC unroll 8
    for (int c = 0; c < Columns; c++) words[c] = load(book + t * kEntries + c * kWide);
#pragma GCC unroll 8
    for (int l = 0; l < Lists; l++) {
      const Floats value = Floats{} + values[l * dim + t];
#pragma GCC unroll 8
      for (int c = 0; c < Columns; c++) {
        if constexpr (Squared) {
          const Floats diff = value - words[c];
          sums[l][c] = sums[l][c] + diff * diff;
        } else {
          sums[l][c] = sums[l][c] - value * words[c];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < Lists; l++) {
#pragma GCC unroll 8
    for (int c = 0; c < Columns; c++) {
      store(out + l * out_stride + c * kWide, sums[l][c]);
      low[l] = smaller(sums[l][c], low[l]);
      high[l] = larger(sums[l][c], high[l]);
    }
  }
}

template <bool Squared, int Lists>
inline void column(const float* values, int64_t dim, const float* book, int m, int sub, int j,
                   float* out, float* lows, float* highs) {
  constexpr int kStep = kTileColumns * kWide;
  constexpr float kHuge = std::numeric_limits<float>::infinity();
  Floats low[Lists], high[Lists];
  for (int l = 0; l < Lists; l++) {
    low[l] = Floats{} + kHuge;
    high[l] = Floats{} - kHuge;
  }
  const int64_t stride = static_cast<int64_t>(m) * kEntries;
  for (int c = 0; c < kEntries; c += kStep) {
    tile<Squared, Lists, kTileColumns>(values + j * sub, dim, book + c, sub,
                                       out + j * kEntries + c, stride, low, high);
  }
  for (int l = 0; l < Lists; l++) extremes(low[l], high[l], lows + l * m + j, highs + l * m + j);
}

template <bool Squared>
void tables(const float* values, int64_t lists, const float* book, int m, int sub, float* out,
            float* lows, float* highs) {
  const int64_t dim = static_cast<int64_t>(m) * sub, stride = static_cast<int64_t>(m) * kEntries;
  // Sub-quantiser by sub-quantiser: its codewords stay in the nearest cache.
  for (int j = 0; j < m; j++) {
    const float* words = book + static_cast<int64_t>(j) * sub * kEntries;
    int64_t p = 0;
    for (; p + kTileLists <= lists; p += kTileLists) {
      column<Squared, kTileLists>(values + p * dim, dim, words, m, sub, j, out + p * stride,
                                  lows + p * m, highs + p * m);
    }
    for (; p < lists; p++) {
      column<Squared, 1>(values + p * dim, dim, words, m, sub, j, out + p * stride, lows + p * m,
                         highs + p * m);
    }
  }
}

inline int entry(float value, float low, float scale, int table_max) {
  const int rounded = static_cast<int>((value - low) * scale + 0.5f);
  return rounded < table_max ? rounded : table_max;
}

bool quantize_split(const float* table, const float* lows, float scale, uint32_t table_max, int m,
                    uint8_t* split) {
  int any = 0;
  for (int j = 0; j < m; j++) {
    const float* column = table + j * kEntries;
    uint8_t* low = split + j * kSplitColumn;
    uint8_t* high = low + kEntries;
    const float least = lows[j];
    for (int c = 0; c < kEntries; c++) {
      const int value = entry(column[c], least, scale, static_cast<int>(table_max));
      low[c] = static_cast<uint8_t>(value);
      high[c] = static_cast<uint8_t>(value >> 8);
      any |= value;
    }
  }
  return any > 255;
}

void quantize(const float* table, const float* lows, float scale, uint32_t table_max, int m,
              uint16_t* out) {
  for (int j = 0; j < m; j++) {
    const float* column = table + j * kEntries;
    uint16_t* words = out + j * kEntries;
    const float least = lows[j];
    for (int c = 0; c < kEntries; c++) {
      words[c] = static_cast<uint16_t>(entry(column[c], least, scale, static_cast<int>(table_max)));
    }
  }
}

bool split_bytes(const uint16_t* table, int m, uint8_t* split) {
  unsigned any = 0;
  for (int j = 0; j < m; j++) {
    const uint16_t* column = table + j * kEntries;
    uint8_t* low = split + j * kSplitColumn;
    uint8_t* high = low + kEntries;
    for (int c = 0; c < kEntries; c++) {
      low[c] = static_cast<uint8_t>(column[c]);
      high[c] = static_cast<uint8_t>(column[c] >> 8);
      any |= column[c];
    }
  }
  return any > 255;
}
