#include "maker.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "contract_kernels.hpp"
#include "layout.hpp"

namespace ragrig {

int component_limit(int64_t sub) {
  const int64_t most = (int64_t{1} << 30) / sub;
  int64_t root = static_cast<int64_t>(std::sqrt(static_cast<double>(most)));
  while (root * root > most) root--;
  while ((root + 1) * (root + 1) <= most) root++;
  return static_cast<int>(std::min<int64_t>(root, INT16_MAX));
}

IntegerBook::IntegerBook(int64_t m_, int64_t pairs_)
    : m(m_), pairs(pairs_), lengths(static_cast<size_t>(m_), 0) {
  const int64_t size = m * pairs * 2 * kCodes;
  std::memset(components.reserve(size), 0, static_cast<size_t>(size) * sizeof(int16_t));
  std::memset(norms.reserve(m * kCodes), 0, static_cast<size_t>(m * kCodes) * sizeof(int32_t));
}

std::shared_ptr<const IntegerBook> IntegerBook::of(const float* codebooks, int64_t m,
                                                   int64_t sub) {
  float largest = 0.0f;
  for (int64_t i = 0; i < m * kCodes * sub; i++) largest = std::max(largest, std::abs(codebooks[i]));
  auto book = std::make_shared<IntegerBook>(m, (sub + 1) / 2);
  if (largest > 0.0f) book->unit = component_limit(sub) / static_cast<double>(largest);
  for (int64_t j = 0; j < m; j++) {
    for (int64_t c = 0; c < kCodes; c++) {
      int64_t length = 0;
      for (int64_t t = 0; t < sub; t++) {
        const int16_t value = rounded(codebooks[(j * kCodes + c) * sub + t], book->unit);
        book->component(j, t, c) = value;
        length += int64_t{value} * value;
      }
      book->norms.get()[j * kCodes + c] = static_cast<int32_t>(length >> 1);
      int64_t& longest = book->lengths[static_cast<size_t>(j)];
      longest = std::max(longest, length);
    }
  }
  return book;
}

bool make_table_portable(const IntegerBook& book, const TableOrder& order, uint8_t* split) {
  uint32_t any = 0;
  for (int64_t j = 0; j < book.m; j++) {
    const int16_t* words = book.components.get() + j * book.pairs * 2 * kCodes;
    const int16_t* own = order.vector + j * book.pairs * 2;
    uint32_t dots[kCodes] = {};  // modulo 2^32, as everywhere
    for (int64_t p = 0; p < book.pairs; p++) {
      const int16_t* pair = words + p * 2 * kCodes;
      for (int c = 0; c < kCodes; c++) {
        dots[c] += static_cast<uint32_t>(pair[2 * c] * own[2 * p]);
        dots[c] += static_cast<uint32_t>(pair[2 * c + 1] * own[2 * p + 1]);
      }
    }
    const int32_t* norms = book.norms.get() + j * kCodes;
    uint8_t* low = split + j * kSplitColumn;
    for (int c = 0; c < kCodes; c++) {
      const uint32_t norm =
          order.norm_shift >= kNoNorms ? 0 : static_cast<uint32_t>(norms[c]) >> order.norm_shift;
      const uint32_t lifted = norm - dots[c] - static_cast<uint32_t>(order.lows[j]);
      const uint32_t sum = std::min(lifted >> order.sum_shift, 65535u);
      uint32_t entry = sum * static_cast<uint32_t>(order.factor) >> 16;
      if (order.narrow) entry = std::min((entry + 128) >> 8, 255u);
      low[c] = static_cast<uint8_t>(entry);
      low[kCodes + c] = static_cast<uint8_t>(entry >> 8);
      any |= entry;
    }
  }
  return any > 255;
}

MakeTable table_maker(Isa isa) {
#if RAGRIG_X86
  if (isa == Isa::avx512) return make_table_avx512;
  if (isa == Isa::avx2) return make_table_avx2;
#else
  (void)isa;
#endif
  return make_table_portable;
}

}  // namespace ragrig
