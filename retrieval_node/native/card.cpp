#include "card.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract_kernels.hpp"
#include "layout.hpp"

namespace ragrig {

namespace {

constexpr int kStep = 8;
using Words = uint16_t __attribute__((vector_size(2 * kStep), aligned(1), may_alias));
using Bytes = uint8_t __attribute__((vector_size(2 * kStep), aligned(1), may_alias));

inline Words load(const void* from) { return *static_cast<const Words*>(from); }

// Three perfect shuffles of 8 x 8 words are their transposition.
inline void transpose(Words* rows) {
  Words next[kStep];
#pragma GCC unroll 3
  for (int round = 0; round < 3; round++) {
#pragma GCC unroll 4
    for (int i = 0; i < kStep / 2; i++) {
      const Words a = rows[i], b = rows[i + kStep / 2];
      next[2 * i] = __builtin_shuffle(a, b, Words{0, 8, 1, 9, 2, 10, 3, 11});
      next[2 * i + 1] = __builtin_shuffle(a, b, Words{4, 12, 5, 13, 6, 14, 7, 15});
    }
    std::copy(next, next + kStep, rows);
  }
}

inline uint16_t entry_of(const uint8_t* row, int j, int entry_bytes) {
  if (entry_bytes == 1) return row[j];
  return static_cast<uint16_t>(row[2 * j] | row[2 * j + 1] << 8);
}

void put(uint8_t* split, int column, int c, unsigned value) {
  split[column * kSplitColumn + c] = static_cast<uint8_t>(value);
  split[column * kSplitColumn + kCodes + c] = static_cast<uint8_t>(value >> 8);
}

inline void load_square(const uint8_t* rows, int64_t stride, Words* words) {
#pragma GCC unroll 8
  for (int i = 0; i < kStep; i++) words[i] = load(rows + i * stride);
  transpose(words);
}

// Columns j .. j + 7 of 16-bit rows, split into bytes; or-ed into `any`.
void split_columns(const uint8_t* rows, int j, const CardTable& shape, uint8_t* split,
                   Words& any) {
  const int64_t stride = 2 * shape.width;
  for (int c = 0; c < kCodes; c += 2 * kStep) {
    Words first[kStep], second[kStep];
    load_square(rows + c * stride + 2 * j, stride, first);
    load_square(rows + (c + kStep) * stride + 2 * j, stride, second);
#pragma GCC unroll 8
    for (int i = 0; i < kStep; i++) {
      any |= first[i] | second[i];
      const Bytes a = reinterpret_cast<const Bytes&>(first[i]);
      const Bytes b = reinterpret_cast<const Bytes&>(second[i]);
      uint8_t* to = split + (j + i) * kSplitColumn + c;
      *reinterpret_cast<Bytes*>(to) = __builtin_shuffle(
          a, b, Bytes{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30});
      *reinterpret_cast<Bytes*>(to + kCodes) = __builtin_shuffle(
          a, b, Bytes{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
    }
  }
}

// One table split into low and high bytes; whether any high byte is set.
bool split_rows(const uint8_t* rows, const CardTable& shape, uint8_t* split) {
  int j = 0;
  Words any{};
  if (shape.entry_bytes == 2) {
    for (; j + kStep <= shape.m; j += kStep) split_columns(rows, j, shape, split, any);
  }
  unsigned seen = 0;
  for (int i = 0; i < kStep; i++) seen |= any[i];
  const int64_t stride = int64_t{shape.width} * shape.entry_bytes;
  for (; j < shape.m; j++) {
    for (int c = 0; c < kCodes; c++) {
      const unsigned value = entry_of(rows + c * stride, j, shape.entry_bytes);
      put(split, j, c, value);
      seen |= value;
    }
  }
  return seen > 255;
}

// A probed list, as fpga/regs.toml lays it out.
struct Probed {
  uint32_t first_beat, codes, first_tag, bias, mask_word, table, unused[2];
};
static_assert(sizeof(Probed) == CardScan::kListWords * sizeof(uint32_t));
constexpr uint32_t kNoMask = ~uint32_t{0};

struct Head {
  uint32_t version, error, count, query, cycles_low, cycles_high, codes_low, codes_high;
  uint32_t unused[8];
};
static_assert(sizeof(Head) == 64);

struct Entry {
  uint32_t id, sum;
};

void check(const CardScan& given) {
  const CardTable& shape = given.shape;
  if (shape.m < 1 || shape.m > shape.width) throw std::invalid_argument("m: not in 1..width");
  const int columns = shape.m + (given.code_words != nullptr ? 2 : 0);
  if (columns > 256) throw std::invalid_argument("m: codes and biases are over 256 columns");
  if (given.k < 1) throw std::invalid_argument("k: it is 0");
  if (given.nprobe < 1) throw std::invalid_argument("nprobe: it is 0");
  if (given.book == nullptr) return;
  given.vectors.check();
  if (given.code_words != nullptr) throw std::invalid_argument("book: with biases of codes");
  if (given.vector_stride < given.vectors.vector_bytes()) {
    throw std::invalid_argument("vector_stride: less than a vector");
  }
}

void check_list(const CardScan& given, const Probed& list) {
  const int64_t columns = given.shape.m + (given.code_words != nullptr ? 2 : 0);
  const int64_t first = list.first_beat * given.slots_per_beat, blocks = blocks_of(list.codes);
  if (first % kLanes != 0) throw std::invalid_argument("lists: a first beat is not aligned");
  if (list.bias > given.sum_max) throw std::invalid_argument("lists: a bias is too large");
  if ((first + blocks * kLanes) * columns > given.image_bytes) {
    throw std::out_of_range("lists: codes beyond the channels' memory");
  }
  if (int64_t{list.first_tag} + list.codes > given.num_ids) {
    throw std::out_of_range("lists: tags beyond the ids");
  }
  const bool made = given.book != nullptr;
  const int64_t stride = made ? given.vector_stride : given.shape.bytes();
  const int64_t size = made ? given.vectors.vector_bytes() : stride;
  if (int64_t{list.table} * stride + size > given.table_bytes) {
    throw std::out_of_range("lists: a table that is not there");
  }
  if (given.masks != nullptr && list.mask_word != kNoMask &&
      (int64_t{list.mask_word} + blocks) * 8 > given.mask_bytes) {
    throw std::out_of_range("lists: a mask beyond the masks");
  }
}

// One start: what its queries share.
class Run {
 public:
  Run(const CardScan& given, Isa isa)
      : given_(given), ops_(contract_ops(isa)), make_table_(table_maker(isa)),
        columns_(given.shape.m + (given.code_words != nullptr ? 2 : 0)),
        split_(static_cast<size_t>(columns_ * kSplitColumn)) {}

  int64_t query(int64_t q) {
    top_.reset(given_.k);
    if (given_.code_words != nullptr) put_code_words(given_.code_words + q * 2 * kCodes);
    int64_t scanned = 0;
    for (int64_t p = 0; p < given_.nprobe; p++) {
      Probed list;
      std::memcpy(&list, given_.lists + (q * given_.nprobe + p) * CardScan::kListWords,
                  sizeof(list));
      if (list.codes == 0) continue;
      check_list(given_, list);
      scanned += list.codes;
      if (list.bias <= top_.worst_sum()) scan(list);
    }
    write(q, scanned);
    return scanned;
  }

 private:
  void put_code_words(const uint16_t* words) {
    words_high_ = false;
    for (int c = 0; c < 2 * kCodes; c++) {
      put(split_.data(), given_.shape.m + c / kCodes, c % kCodes, words[c]);
      words_high_ = words_high_ || words[c] > 255;
    }
  }

  bool load(int64_t table) {
    return split_rows(given_.tables + table * given_.shape.bytes(), given_.shape, split_.data());
  }

  bool make(int64_t table) {
    vector_.read(given_.tables + table * given_.vector_stride, given_.vectors,
                 given_.shape.entry_bytes == 1);
    return make_table_(*given_.book, vector_.order(), split_.data());
  }

  void scan(const Probed& list) {
    const uint8_t* codes = given_.image + list.first_beat * given_.slots_per_beat * columns_;
    ask_for_head(codes, blocks_of(list.codes) * kLanes * columns_);
    if (list.table != split_of_) {
      high_ = given_.book != nullptr ? make(list.table) : load(list.table);
      split_of_ = list.table;
    }
    while (tags_.size() < list.codes) tags_.push_back(static_cast<uint32_t>(tags_.size()));
    SumScan job;
    job.codes = codes;
    job.rows = list.codes;
    job.ids = tags_.data();
    job.row_start = list.first_tag;
    job.row_count = int64_t{1} << 32;
    job.at = 0;
    job.split = split_.data();
    job.m = static_cast<int>(columns_);
    job.high = high_ || words_high_;
    job.bias = list.bias;
    job.sum_max = given_.sum_max;
    const bool masked = given_.masks != nullptr && list.mask_word != kNoMask;
    job.lanes = masked ? given_.masks + int64_t{list.mask_word} * 8 : nullptr;
    ops_.scan(job, top_);
  }

  void write(int64_t q, int64_t scanned) {
    const std::vector<Ranked>& best = top_.finish();
    uint8_t* record = given_.results + q * card_result_bytes(given_.k);
    Head head{};
    head.version = given_.version;
    head.count = static_cast<uint32_t>(best.size());
    head.query = static_cast<uint32_t>(q);
    head.codes_low = static_cast<uint32_t>(scanned);
    head.codes_high = static_cast<uint32_t>(scanned >> 32);
    std::memcpy(record, &head, sizeof(head));
    std::memset(record + sizeof(head), 0xFF,
                static_cast<size_t>(card_result_bytes(given_.k)) - sizeof(head));
    for (size_t i = 0; i < best.size(); i++) {
      const Entry entry{given_.ids[row_of(best[i].key)], sum_of(best[i].key)};
      std::memcpy(record + sizeof(head) + i * sizeof(entry), &entry, sizeof(entry));
    }
  }

  const CardScan& given_;
  const ContractOps& ops_;
  const MakeTable make_table_;
  const int64_t columns_;
  std::vector<uint8_t> split_;
  CardVector vector_;
  std::vector<uint32_t> tags_;
  int64_t split_of_ = -1;
  bool high_ = false, words_high_ = false;
  TopSums top_;
};

}  // namespace

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the card's words are little-endian");

void card_rows(const uint16_t* columns, const CardTable& shape, uint8_t* out) {
  const int64_t stride = int64_t{shape.width} * shape.entry_bytes;
  if (shape.m < shape.width) std::memset(out, 0, static_cast<size_t>(shape.bytes()));
  int j = 0;
  for (; j + kStep <= shape.m; j += kStep) {
    for (int c = 0; c < kCodes; c += kStep) {
      Words words[kStep];
#pragma GCC unroll 8
      for (int i = 0; i < kStep; i++) words[i] = load(columns + (j + i) * kCodes + c);
      transpose(words);
      uint8_t* to = out + c * stride + j * shape.entry_bytes;
#pragma GCC unroll 8
      for (int i = 0; i < kStep; i++) {
        if (shape.entry_bytes == 2) {
          *reinterpret_cast<Words*>(to + i * stride) = words[i];
          continue;
        }
        for (int t = 0; t < kStep; t++) to[i * stride + t] = static_cast<uint8_t>(words[i][t]);
      }
    }
  }
  for (; j < shape.m; j++) {
    for (int c = 0; c < kCodes; c++) {
      const uint16_t value = columns[j * kCodes + c];
      uint8_t* to = out + c * stride + j * shape.entry_bytes;
      to[0] = static_cast<uint8_t>(value);
      if (shape.entry_bytes == 2) to[1] = static_cast<uint8_t>(value >> 8);
    }
  }
}

int64_t scan_card(const CardScan& given, Isa isa) {
  *given.done = 0;
  check(given);
  Run run(given, isa);
  int64_t scanned = 0;
  for (int64_t q = 0; q < given.n; q++) {
    scanned += run.query(q);
    *given.done = q + 1;
  }
  return scanned;
}

}  // namespace ragrig
