// A query's tables: floats first, integers once the scale of all its lists is known.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "contract_kernels.hpp"
#include "contract_numbers.hpp"
#include "contract_vectors.hpp"
#include "index.hpp"

namespace ragrig {

// Columns of several sub-quantisers must fit a 16-bit sum of bytes.
constexpr int64_t kMaxContractM = 256;

// Throws std::invalid_argument for an index the contract's kernels cannot scan.
void check_contract_index(const Index& index);

// Whether each list has a table of its own; else one serves all lists of a query.
inline bool table_per_list(const Index& index) {
  return index.metric == Metric::l2 && index.residual;
}

// One query's tables. Steps: reset, fill every piece (in any order and thread),
// finish, then quantise table by table. Tables from integers have no pieces: their
// scale is known before they are made.
class QueryTables {
 public:
  // Lists in the order of the caller; the pointers are kept.
  void reset(const Index& index, const Contract& contract, const float* query,
             const int64_t* lists, int64_t count);

  // Pieces of work of the first pass; those of a query are independent.
  int64_t pieces() const;
  void fill(int64_t piece);
  // Base, scale and biases, from all pieces.
  void finish();

  const Scale& scale() const { return contract_.integers ? vectors_.scale() : scale_; }
  uint32_t bias(int64_t list) const {
    return contract_.integers ? vectors_.bias(list) : biases_[static_cast<size_t>(list)];
  }
  int64_t tables() const { return tables_; }
  int64_t table_of(int64_t list) const { return tables_ == 1 ? 0 : list; }

  // Integer entries of one table, split into bytes; whether any high byte is set.
  // `work` is the caller's own memory, for a table that was not kept.
  bool split(int64_t table, std::vector<float>& work, uint8_t* split) const;
  void words(int64_t table, std::vector<float>& work, uint16_t* out) const;

 private:
  void floats(int64_t first, int64_t count, float* out, float* lows, float* highs) const;
  const float* kept(int64_t table, std::vector<float>& work) const;
  void finish_floats();

  const Index* index_ = nullptr;
  const ContractOps* ops_ = nullptr;
  const float* query_ = nullptr;
  const int64_t* lists_ = nullptr;
  int64_t count_ = 0;   // lists
  int64_t tables_ = 0;
  int64_t kept_ = 0;    // float tables held until they are quantised
  Contract contract_;
  QueryVectors vectors_;  // where tables are made from integers
  Scale scale_;
  Aligned<float> floats_;  // not zeroed: it is large and written before it is read
  std::vector<float> lows_, highs_;
  std::vector<double> coarse_;
  std::vector<ListRange> ranges_;
  std::vector<uint32_t> biases_;
};

}  // namespace ragrig
