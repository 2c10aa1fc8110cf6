// Sums of 16 bits, for long codes. Included once by kernels_avx512.cpp, inside its namespace and
// under its target, hence no include guard and no headers here. Before it come look_up() and
// Waiting, which all filters of a group are given.

// Sums of 16 bits of a block's lanes. `pairs` adds lanes 2i + 256 * (2i + 1), modulo
// 2^16; `odd` the odd lanes alone, so that the even ones are what is left.
struct WideSums {
  __m512i pairs, odd;
};

RAGRIG_ALWAYS __m512i even_lanes(const WideSums& sums) {
  return _mm512_sub_epi16(sums.pairs, _mm512_slli_epi16(sums.odd, 8));
}

// Lanes 32 * half .. 32 * half + 31 in their order.
RAGRIG_ALWAYS __m512i in_order(__m512i even, __m512i odd, int half) {
  alignas(64) uint16_t from[32];
  for (int i = 0; i < 32; ++i)
    from[i] = static_cast<uint16_t>(16 * half + i / 2 + (i % 2) * 32);
  return _mm512_permutex2var_epi16(even, _mm512_load_si512(from), odd);
}

static uint64_t wide_mask(const FilterJob& job, int64_t block, const WideSums& sums) {
  const __m512i limit = _mm512_set1_epi16(static_cast<short>(job.limit));
  const __m512i factor = _mm512_set1_epi16(static_cast<short>(job.bias_factor));
  const __m512i even = even_lanes(sums);
  if (!(_mm512_cmple_epu16_mask(even, limit) | _mm512_cmple_epu16_mask(sums.odd, limit))) return 0;
  uint64_t mask = 0;
  for (int half = 0; half < 2; ++half) {
    __m512i sum = in_order(even, sums.odd, half);
    if (job.bias) {
      const __m512i bias = _mm512_loadu_si512(job.bias + block * kLanes + 32 * half);
      sum = _mm512_adds_epu16(sum, _mm512_mulhi_epu16(bias, factor));
    }
    mask |= uint64_t{_mm512_cmple_epu16_mask(sum, limit)} << (32 * half);
  }
  return mask;
}

template <int kWidth>
RAGRIG_ALWAYS bool wide_beyond(const FilterJob& job, const WideSums* sums) {
  __m512i least = sums[0].odd;
#pragma GCC unroll 8
  for (int b = 0; b < kWidth; ++b)
    least = _mm512_min_epu16(least, _mm512_min_epu16(even_lanes(sums[b]), sums[b].odd));
  return _mm512_cmple_epu16_mask(least, _mm512_set1_epi16(static_cast<short>(job.limit))) == 0;
}

template <int kWidth>
static uint64_t wide_group(const FilterJob& job, const uint8_t* codes, int64_t first,
                           const uint8_t* ahead, Waiting&, uint64_t* masks) {
  WideSums sums[kWidth];
#pragma GCC unroll 8
  for (int b = 0; b < kWidth; ++b) sums[b] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  int64_t j = 0;
  for (int64_t part = 2; part <= 4; ++part) {
    for (const int64_t next = job.m * part / 4; j < next; ++j) {
      const uint8_t* row = job.table + j * kCodes;
      const __m512i t0 = _mm512_load_si512(row), t1 = _mm512_load_si512(row + 64);
      const __m512i t2 = _mm512_load_si512(row + 128), t3 = _mm512_load_si512(row + 192);
      const int64_t at = j * kWidth * kLanes;
#pragma GCC unroll 8
      for (int b = 0; b < kWidth; ++b) {
        const __m512i some = _mm512_loadu_si512(codes + at + b * kLanes);
        const __m512i units = look_up(t0, t1, t2, t3, some);
        sums[b].pairs = _mm512_add_epi16(sums[b].pairs, units);
        sums[b].odd = _mm512_add_epi16(sums[b].odd, _mm512_srli_epi16(units, 8));
        if (ahead)
          _mm_prefetch(reinterpret_cast<const char*>(ahead + at + b * kLanes), _MM_HINT_T0);
      }
    }
    if (part < 4 && wide_beyond<kWidth>(job, sums)) {
      for (int b = 0; b < kWidth; ++b) masks[first + b] = 0;
      return 0;
    }
  }
  uint64_t any = 0;
#pragma GCC unroll 8
  for (int b = 0; b < kWidth; ++b) any |= masks[first + b] = wide_mask(job, first + b, sums[b]);
  return any;
}
