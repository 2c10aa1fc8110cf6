#include "contract_tables.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ragrig {

namespace {

// Lists whose tables are made together: the codebook is read once for them.
constexpr int64_t kPieceLists = 8;
// Float tables of one query kept between the two passes; more are recomputed.
constexpr int64_t kKeptBytes = 4 << 20;

int64_t table_floats(const Index& index) { return index.m * kCodes; }

}  // namespace

void check_contract_index(const Index& index) {
  if (index.m > kMaxContractM) {
    throw std::invalid_argument("codebooks: m is " + std::to_string(index.m) +
                                ", the contract's kernels take up to 256");
  }
}

void QueryTables::reset(const Index& index, const Contract& contract, const float* query,
                        const int64_t* lists, int64_t count) {
  index_ = &index;
  contract_ = contract;
  ops_ = &contract_ops(index.isa);
  query_ = query;
  lists_ = lists;
  count_ = count;
  tables_ = table_per_list(index) ? count : 1;
  if (contract.integers) return;
  const int64_t floats = table_floats(index);
  kept_ = std::min(tables_, std::max<int64_t>(1, kKeptBytes / 4 / floats));
  // Slack: the last piece may be cut off anywhere.
  floats_.reserve((kept_ + kPieceLists) * floats);
  lows_.resize(static_cast<size_t>(tables_ * index.m));
  highs_.resize(static_cast<size_t>(tables_ * index.m));
  coarse_.assign(static_cast<size_t>(count), 0.0);
  ranges_.resize(static_cast<size_t>(count));
  biases_.resize(static_cast<size_t>(count));
}

int64_t QueryTables::pieces() const {
  return count_ == 0 || contract_.integers ? 0 : (tables_ + kPieceLists - 1) / kPieceLists;
}

void QueryTables::floats(int64_t first, int64_t count, float* out, float* lows,
                         float* highs) const {
  const int m = static_cast<int>(index_->m), sub = static_cast<int>(index_->sub);
  if (!table_per_list(*index_)) {
    const auto fill = index_->metric == Metric::l2 ? ops_->tables_l2 : ops_->tables_ip;
    fill(query_, 1, index_->book.data(), m, sub, out, lows, highs);
    return;
  }
  const int64_t dim = index_->dim;
  std::vector<float> residuals(static_cast<size_t>(count * dim));
  for (int64_t p = 0; p < count; p++) {
    const float* centroid = index_->centroid(lists_[first + p]);
    float* to = residuals.data() + p * dim;
    for (int64_t t = 0; t < dim; t++) to[t] = query_[t] - centroid[t];
  }
  ops_->tables_l2(residuals.data(), count, index_->book.data(), m, sub, out, lows, highs);
}

void QueryTables::fill(int64_t piece) {
  const int64_t first = piece * kPieceLists, m = index_->m;
  const int64_t count = std::min(kPieceLists, tables_ - first), size = table_floats(*index_);
  if (first < kept_) {
    floats(first, count, floats_.get() + first * size, lows_.data() + first * m,
           highs_.data() + first * m);
    return;
  }
  std::vector<float> dropped(static_cast<size_t>(count * size));
  floats(first, count, dropped.data(), lows_.data() + first * m, highs_.data() + first * m);
}

void QueryTables::finish() {
  if (contract_.integers) {
    vectors_.reset(*index_, index_->integer_book(), contract_, query_, lists_, count_);
  } else {
    finish_floats();
  }
}

void QueryTables::finish_floats() {
  scale_ = Scale();
  if (count_ == 0) return;
  const int64_t m = index_->m;
  float largest = 0.0f;
  std::vector<ListRange> of_table(static_cast<size_t>(tables_), ListRange{0.0, 0.0});
  for (int64_t t = 0; t < tables_; t++) {
    ListRange& range = of_table[static_cast<size_t>(t)];
    for (int64_t j = t * m; j < (t + 1) * m; j++) {
      const float low = lows_[static_cast<size_t>(j)];
      const float top = highs_[static_cast<size_t>(j)] - low;
      range.floor += static_cast<double>(low);
      range.spread += static_cast<double>(top);
      largest = std::max(largest, top);
    }
  }
  if (index_->metric == Metric::ip && index_->residual) {
    coarse_ip(query_, index_->centroids, index_->dim, lists_, count_, coarse_.data());
  }
  for (int64_t p = 0; p < count_; p++) {
    const ListRange& range = of_table[static_cast<size_t>(table_of(p))];
    ranges_[static_cast<size_t>(p)] = {coarse_[static_cast<size_t>(p)] + range.floor,
                                       range.spread};
  }
  scale_ = choose_scale(ranges_.data(), count_, largest, static_cast<int>(m), contract_,
                        biases_.data());
}

const float* QueryTables::kept(int64_t table, std::vector<float>& work) const {
  const int64_t size = table_floats(*index_), m = index_->m;
  // Pieces are kept whole: one that starts before kept_ is.
  if (table / kPieceLists * kPieceLists < kept_) return floats_.get() + table * size;
  work.resize(static_cast<size_t>(size + 2 * m));
  floats(table, 1, work.data(), work.data() + size, work.data() + size + m);
  return work.data();
}

bool QueryTables::split(int64_t table, std::vector<float>& work, uint8_t* split) const {
  if (contract_.integers) {
    return table_maker(index_->isa)(index_->integer_book(), vectors_.order(table), split);
  }
  return ops_->quantize_split(kept(table, work), lows_.data() + table * index_->m, scale_.scale,
                              contract_.table_max(), static_cast<int>(index_->m), split);
}

void QueryTables::words(int64_t table, std::vector<float>& work, uint16_t* out) const {
  if (!contract_.integers) {
    ops_->quantize(kept(table, work), lows_.data() + table * index_->m, scale_.scale,
                   contract_.table_max(), static_cast<int>(index_->m), out);
    return;
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(index_->m * kSplitColumn));
  split(table, work, bytes.data());
  for (int64_t j = 0; j < index_->m; j++) {
    const uint8_t* low = bytes.data() + j * kSplitColumn;
    for (int c = 0; c < kCodes; c++) {
      out[j * kCodes + c] = static_cast<uint16_t>(low[c] | low[kCodes + c] << 8);
    }
  }
}

}  // namespace ragrig
