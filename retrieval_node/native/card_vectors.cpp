#include "card_vectors.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "layout.hpp"

namespace ragrig {

namespace {

constexpr int64_t kBeat = 64;

struct VectorHead {
  uint32_t norm_shift, sum_shift, factor, unused[13];
};
static_assert(sizeof(VectorHead) == kBeat);

// Where component t of column j lies in words of components.
int64_t place(const VectorShape& shape, int64_t j, int64_t t) {
  return (t / shape.macs * shape.width + j) * shape.macs + t % shape.macs;
}

}  // namespace

void VectorShape::check() const {
  if (m < 1 || m > width) throw std::invalid_argument("m: it is not in 1..width");
  if (macs < 1) throw std::invalid_argument("macs: it is less than 1");
  if (steps < 1 || steps > 1 << 16) throw std::invalid_argument("steps: it is not in 1..65536");
  if (width > 4096 || macs > 4096 || word_bytes() % kBeat != 0) {
    throw std::invalid_argument("width: words are not whole beats of 64 bytes");
  }
}

void put_book(const IntegerBook& book, const VectorShape& shape, uint8_t* out) {
  std::memset(out, 0, static_cast<size_t>(shape.book_bytes()));
  const int64_t known = std::min(2 * book.pairs, shape.steps * shape.macs);
  for (int64_t c = 0; c < kCodes; c++) {
    uint8_t* to = out + c * shape.code_bytes();
    for (int64_t j = 0; j < shape.m; j++) {
      std::memcpy(to + 4 * j, book.norms.get() + j * kCodes + c, 4);
      for (int64_t t = 0; t < known; t++) {
        std::memcpy(to + shape.column_bytes() + 2 * place(shape, j, t),
                    book.components.get() + ((j * book.pairs + t / 2) * kCodes + c) * 2 + t % 2, 2);
      }
    }
  }
}

void put_vector(const TableOrder& order, int64_t pairs, const VectorShape& shape, uint8_t* out) {
  std::memset(out, 0, static_cast<size_t>(shape.vector_bytes()));
  VectorHead head{};
  head.norm_shift = static_cast<uint32_t>(order.norm_shift);
  head.sum_shift = static_cast<uint32_t>(order.sum_shift);
  head.factor = static_cast<uint32_t>(order.factor);
  std::memcpy(out, &head, sizeof(head));
  std::memcpy(out + kBeat, order.lows, static_cast<size_t>(shape.m) * 4);
  uint8_t* words = out + kBeat + shape.column_bytes();
  const int64_t known = std::min(2 * pairs, shape.steps * shape.macs);
  for (int64_t j = 0; j < shape.m; j++) {
    // Within a step a column's components lie side by side.
    for (int64_t t = 0; t < known; t += shape.macs) {
      const int64_t here = std::min(shape.macs, known - t);
      std::memcpy(words + 2 * place(shape, j, t), order.vector + j * 2 * pairs + t,
                  static_cast<size_t>(here) * 2);
    }
  }
}

std::shared_ptr<const IntegerBook> read_book(const uint8_t* from, const VectorShape& shape) {
  auto book = std::make_shared<IntegerBook>(shape.m, shape.pairs());
  book->unit = 0.0;
  for (int64_t c = 0; c < kCodes; c++) {
    const uint8_t* row = from + c * shape.code_bytes();
    for (int64_t j = 0; j < shape.m; j++) {
      std::memcpy(book->norms.get() + j * kCodes + c, row + 4 * j, 4);
      for (int64_t t = 0; t < shape.steps * shape.macs; t++) {
        std::memcpy(&book->component(j, t, c), row + shape.column_bytes() + 2 * place(shape, j, t),
                    2);
      }
    }
  }
  return book;
}

void CardVector::read(const uint8_t* from, const VectorShape& shape, bool narrow) {
  VectorHead head;
  std::memcpy(&head, from, sizeof(head));
  lows_.resize(static_cast<size_t>(shape.m));
  std::memcpy(lows_.data(), from + kBeat, static_cast<size_t>(shape.m) * 4);
  const int64_t padded = 2 * shape.pairs();
  components_.assign(static_cast<size_t>(shape.m * padded), 0);
  const uint8_t* words = from + kBeat + shape.column_bytes();
  for (int64_t j = 0; j < shape.m; j++) {
    for (int64_t t = 0; t < shape.steps * shape.macs; t += shape.macs) {
      std::memcpy(components_.data() + j * padded + t, words + 2 * place(shape, j, t),
                  static_cast<size_t>(shape.macs) * 2);
    }
  }
  order_ = {components_.data(),
            lows_.data(),
            static_cast<int>(std::min<uint32_t>(head.norm_shift, kNoNorms)),
            static_cast<int>(head.sum_shift & 31),
            static_cast<int>(head.factor & 0xFFFF),
            narrow};
}

}  // namespace ragrig
