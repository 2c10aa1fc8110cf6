// Kernels that the compiler vectorises well for every code path. Included once by
// each kernels_*.cpp, inside its own namespace and under its own target, hence no
// include guard and no headers here. Before it come kPartBytes (of a register),
// kPanelQueries (that fit in the registers), pair(), subtract_product(), quantize(),
// filter(), collect().

#define RAGRIG_INLINE static inline __attribute__((always_inline))

// 16 floats in as many registers as the code path needs for them.
typedef float Part __attribute__((vector_size(kPartBytes)));
typedef float LoosePart __attribute__((vector_size(kPartBytes), aligned(4), may_alias));
constexpr int kPartFloats = kPartBytes / 4;
constexpr int kParts = static_cast<int>(kFloatLanes) / kPartFloats;

struct Vec {
  Part part[kParts];
};

RAGRIG_INLINE void load(const float* from, Vec& to) {
  for (int i = 0; i < kParts; ++i)
    to.part[i] = *reinterpret_cast<const LoosePart*>(from + i * kPartFloats);
}

RAGRIG_INLINE void store(const Vec& from, float* to) {
  for (int i = 0; i < kParts; ++i)
    *reinterpret_cast<LoosePart*>(to + i * kPartFloats) = from.part[i];
}

RAGRIG_INLINE void fill(float value, Vec& to) {
  for (int i = 0; i < kParts; ++i) to.part[i] = value - Part{};
}

RAGRIG_INLINE void add(Vec& to, const Vec& more) {
  for (int i = 0; i < kParts; ++i) to.part[i] += more.part[i];
}

RAGRIG_INLINE void lower(Vec& to, const Vec& other) {
  for (int i = 0; i < kParts; ++i)
    to.part[i] = other.part[i] < to.part[i] ? other.part[i] : to.part[i];
}

RAGRIG_INLINE float add_lanes(const Vec& lanes) {
  alignas(64) float values[kFloatLanes];
  store(lanes, values);
  float total = 0.0f;
  for (int u = 0; u < kFloatLanes; ++u) total += values[u];
  return total;
}

// Zeros past the end change no bit: lanes never hold -0.
RAGRIG_INLINE void load_tail(const float* from, int64_t count, Vec& to) {
  alignas(64) float padded[kFloatLanes] = {};
  for (int64_t t = 0; t < count; ++t) padded[t] = from[t];
  load(padded, to);
}

template <bool kL2>
RAGRIG_INLINE void step(Vec& lanes, const Vec& a, const Vec& b) {
  for (int i = 0; i < kParts; ++i) {
    const Part diff = a.part[i] - b.part[i];
    if (kL2) lanes.part[i] += diff * diff;
    else lanes.part[i] -= a.part[i] * b.part[i];
  }
}

template <bool kL2>
float distance(const float* a, const float* b, int64_t dim) {
  Vec lanes = {};
  int64_t t = 0;
  Vec x, y;
  for (; t + kFloatLanes <= dim; t += kFloatLanes) {
    load(a + t, x);
    load(b + t, y);
    step<kL2>(lanes, x, y);
  }
  if (t < dim) {
    load_tail(a + t, dim - t, x);
    load_tail(b + t, dim - t, y);
    step<kL2>(lanes, x, y);
  }
  return add_lanes(lanes);
}

double coarse_ip(const float* a, const float* b, int64_t dim) {
  double lanes[kFloatLanes] = {};
  int64_t t = 0;
  for (; t + kFloatLanes <= dim; t += kFloatLanes)
    for (int64_t u = 0; u < kFloatLanes; ++u)
      lanes[u] -= static_cast<double>(a[t + u]) * static_cast<double>(b[t + u]);
  for (; t < dim; ++t)
    lanes[t % kFloatLanes] -= static_cast<double>(a[t]) * static_cast<double>(b[t]);
  double total = 0.0;
  for (int64_t u = 0; u < kFloatLanes; ++u) total += lanes[u];
  return total;
}

RAGRIG_INLINE CodePlace place_of(const AdcJob& job, uint32_t position) {
  return code_place(job.codes, job.blocks, job.m, position);
}

// kSub 0: any; else the number of floats of an entry, so that copies are moves.
template <int kSub>
RAGRIG_INLINE void decode(const AdcJob& job, CodePlace at, float* out) {
  const int64_t sub = kSub ? kSub : job.sub;
  const float* book = job.codebooks;
  for (int64_t j = 0; j < job.m; ++j) {
    const float* entry = book + at.base[j * at.stride] * sub;
    if (kSub) {
      __builtin_memcpy(out + j * sub, entry, (kSub ? kSub : 1) * sizeof(float));
    } else {
      for (int64_t t = 0; t < sub; ++t) out[j * sub + t] = entry[t];
    }
    book += kCodes * sub;
  }
}

// Entries shorter than half a register, or of no round length: through memory.
template <bool kL2, int kSub>
void adc_decoded(const AdcJob& job, const uint32_t* positions, int64_t count, float* out) {
  const int64_t dim = job.m * job.sub, padded = padded_dim(dim);
  // Two buffers: a code is decoded while the one before is still summed.
  float* buffers[2] = {job.scratch, job.scratch + padded};
  for (float* buffer : buffers)
    for (int64_t t = dim; t < padded; ++t) buffer[t] = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    float* entry = buffers[i & 1];
    decode<kSub>(job, place_of(job, positions[i]), entry);
    Vec lanes = {}, x, y;
    for (int64_t t = 0; t < padded; t += kFloatLanes) {
      load(job.query + t, x);
      load(entry + t, y);
      step<kL2>(lanes, x, y);
    }
    out[i] = add_lanes(lanes);
  }
}

// Component t of the decoded code, for the register that starts there.
template <int kSub>
RAGRIG_INLINE void entry_part(const AdcJob& job, CodePlace at, int64_t t, Part& to) {
  const int64_t j = t / kSub;
  const float* entry = job.codebooks + (j * kCodes + at.base[j * at.stride]) * kSub;
  if (kSub >= kPartFloats) {
    to = *reinterpret_cast<const LoosePart*>(entry + t % kSub);
  } else {
    const float* next = job.codebooks + ((j + 1) * kCodes + at.base[(j + 1) * at.stride]) * kSub;
    pair(entry, next, to);
  }
}

// Entries of half a register or more, whole vectors of 16.
template <bool kL2, int kSub>
void adc_direct(const AdcJob& job, const uint32_t* positions, int64_t count, float* out) {
  const int64_t dim = job.m * kSub;
  for (int64_t i = 0; i < count; ++i) {
    const CodePlace at = place_of(job, positions[i]);
    Vec lanes = {}, x, y;
    for (int64_t t = 0; t < dim; t += kFloatLanes) {
      load(job.query + t, x);
      for (int p = 0; p < kParts; ++p) entry_part<kSub>(job, at, t + p * kPartFloats, y.part[p]);
      step<kL2>(lanes, x, y);
    }
    out[i] = add_lanes(lanes);
  }
}

template <bool kL2, int kSub>
void adc_sub(const AdcJob& job, const uint32_t* positions, int64_t count, float* out) {
  if constexpr (2 * kSub >= kPartFloats)
    if (job.m * kSub % kFloatLanes == 0)
      return adc_direct<kL2, kSub>(job, positions, count, out);
  adc_decoded<kL2, kSub>(job, positions, count, out);
}

template <bool kL2>
void adc(const AdcJob& job, const uint32_t* positions, int64_t count, float* out) {
  switch (job.sub) {
    case 1: return adc_sub<kL2, 1>(job, positions, count, out);
    case 2: return adc_sub<kL2, 2>(job, positions, count, out);
    case 4: return adc_sub<kL2, 4>(job, positions, count, out);
    case 8: return adc_sub<kL2, 8>(job, positions, count, out);
    case 16: return adc_sub<kL2, 16>(job, positions, count, out);
    default: return adc_sub<kL2, 0>(job, positions, count, out);
  }
}

void table(const float* query, const float* codebooks, int64_t m, int64_t sub, float factor,
           float* out, float* minima) {
  constexpr int kPieces = 4, kWide = 4;  // 4 pieces of 4 * 16 entries: they stay in registers
  for (int64_t j = 0; j < m; ++j) {
    Vec low = {};
    for (int piece = 0; piece < kPieces; ++piece) {
      const int64_t start = piece * kWide * kFloatLanes;
      Vec sums[kWide] = {}, entries;
      const float* book = codebooks + j * sub * kCodes + start;
      for (int64_t t = 0; t < sub; ++t) {
        const float value = factor * query[j * sub + t];
        for (int i = 0; i < kWide; ++i) {
          load(book + t * kCodes + i * kFloatLanes, entries);
          for (int p = 0; p < kParts; ++p) sums[i].part[p] += value * entries.part[p];
        }
      }
      if (piece == 0) low = sums[0];
      for (int i = 0; i < kWide; ++i) {
        store(sums[i], out + j * kCodes + start + i * kFloatLanes);
        lower(low, sums[i]);
      }
    }
    alignas(64) float values[kFloatLanes];
    store(low, values);
    float least = values[0];
    for (int u = 1; u < kFloatLanes; ++u) least = values[u] < least ? values[u] : least;
    minima[j] = least;
  }
}

// out = start - <query, centroid> of a panel's centroids, fused: each one is loaded once
// for kQueries queries.
template <int kQueries>
RAGRIG_INLINE void near_rows(const float* queries, int64_t dim, const float* panel,
                             const float* start, float* out, int64_t out_stride) {
  Vec sums[kQueries][2];
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
    load(start, sums[q][0]);
    load(start + kFloatLanes, sums[q][1]);
  }
  for (int64_t t = 0; t < dim; ++t) {
    Vec left, right;
    load(panel + t * kPanel, left);
    load(panel + t * kPanel + kFloatLanes, right);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      Vec value;
      fill(queries[q * dim + t], value);
      for (int p = 0; p < kParts; ++p) {
        subtract_product(value.part[p], left.part[p], sums[q][0].part[p]);
        subtract_product(value.part[p], right.part[p], sums[q][1].part[p]);
      }
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
    store(sums[q][0], out + q * out_stride);
    store(sums[q][1], out + q * out_stride + kFloatLanes);
  }
}

void near(const float* queries, int64_t count, int64_t dim, const float* panel,
          const float* start, float* out, int64_t out_stride) {
  int64_t q = 0;
  for (; q + kPanelQueries <= count; q += kPanelQueries)
    near_rows<kPanelQueries>(queries + q * dim, dim, panel, start, out + q * out_stride,
                             out_stride);
  for (; q < count; ++q)
    near_rows<1>(queries + q * dim, dim, panel, start, out + q * out_stride, out_stride);
}

void column_minima(const float* values, int64_t count, int64_t columns, float* minima) {
  for (int64_t c = 0; c < columns; c += kFloatLanes) {
    Vec low, more;
    load(values + c, low);
    for (int64_t i = c + columns; i < count; i += columns) {
      load(values + i, more);
      lower(low, more);
    }
    store(low, minima + c);
  }
}

void rank(const uint32_t* keys, int64_t count, int32_t* ranks) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t key = keys[i];
    uint32_t smaller[kRankLanes] = {};
    for (int64_t j = 0; j < count; j += kRankLanes)
      for (int64_t u = 0; u < kRankLanes; ++u) smaller[u] += keys[j + u] < key;
    uint32_t total = 0;
    for (int64_t u = 0; u < kRankLanes; ++u) total += smaller[u];
    ranks[i] = static_cast<int32_t>(total);
  }
}

typedef uint64_t ReadPart __attribute__((vector_size(kPartBytes)));
typedef uint64_t LooseReadPart __attribute__((vector_size(kPartBytes), aligned(8), may_alias));

template <int kStreams, bool kAhead>
uint64_t read_streams(const uint8_t* data, int64_t bytes, int64_t ahead) {
  // Eight sums hide the latency of an operation, whatever the streams.
  constexpr int kSums = 8, kEach = kSums / kStreams;
  constexpr int64_t kStep = kEach * kPartBytes;
  ReadPart sums[kSums] = {};
  const int64_t length = bytes / kReadBytes * kReadBytes / kStreams;
  for (int64_t at = 0; at < length; at += kStep)
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const uint8_t* from = data + s * length + at;
#pragma GCC unroll 8
      for (int i = 0; i < kEach; ++i) {
        sums[s * kEach + i] ^= reinterpret_cast<const LooseReadPart*>(from)[i];
        if (kAhead) __builtin_prefetch(from + i * kPartBytes + ahead);
      }
    }
  uint64_t total = 0;
  for (int i = 0; i < kSums; ++i)
    for (int u = 0; u < kPartBytes / 8; ++u) total ^= sums[i][u];
  return total;
}

template <int kStreams>
uint64_t read_from(const uint8_t* data, int64_t bytes, int64_t ahead) {
  return ahead ? read_streams<kStreams, true>(data, bytes, ahead)
               : read_streams<kStreams, false>(data, bytes, ahead);
}

uint64_t read(const uint8_t* data, int64_t bytes, int64_t streams, int64_t ahead) {
  switch (streams) {
    case 1: return read_from<1>(data, bytes, ahead);
    case 2: return read_from<2>(data, bytes, ahead);
    case 4: return read_from<4>(data, bytes, ahead);
    default: return read_from<8>(data, bytes, ahead);
  }
}

const Kernels kKernels = {
    filter,          table,     quantize,    adc<true>,    adc<false>,
    distance<true>,  distance<false>, coarse_ip, near,  column_minima,
    collect,         read,            rank,
};
