// One shard's rows of one segment.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "guard.hpp"
#include "index.hpp"
#include "layout.hpp"

namespace ragrig {

// What the caller gives; the pointers stay valid as long as `owner`.
struct SegmentArrays {
  const int64_t* list_offsets = nullptr;  // [lists + 1]
  int64_t lists = 0;
  const uint8_t* codes = nullptr;         // null: an exact segment
  int64_t code_bytes = 0;
  const uint16_t* bias = nullptr;         // l2 only
  int64_t bias_count = 0;
  const float* bias_affine = nullptr;     // [lists][2]
  const uint32_t* ids = nullptr;          // [rows]
  int64_t rows = 0;
  int64_t row_start = 0, row_count = 0;
  const void* vectors = nullptr;          // float or float16 [rows][vector_dim]
  bool half = false;
  int64_t vector_dim = 0;
  std::shared_ptr<Guard> guard;           // null: everything is sound
  std::shared_ptr<void> owner;
};

class Segment {
 public:
  // index: null for an exact segment. Throws std::invalid_argument, naming the
  // argument, where shapes do not fit or the offsets are damaged.
  Segment(std::shared_ptr<const Index> index, SegmentArrays arrays);

  bool exact() const { return arrays_.codes == nullptr; }
  int64_t rows() const { return arrays_.rows; }
  int64_t lists() const { return arrays_.lists; }
  int64_t row_start() const { return arrays_.row_start; }
  int64_t row_count() const { return arrays_.row_count; }
  const uint32_t* ids() const { return arrays_.ids; }
  bool has_vectors() const { return arrays_.vectors != nullptr; }
  bool half() const { return arrays_.half; }
  int64_t vector_dim() const { return arrays_.vector_dim; }
  const Index* index() const { return index_.get(); }

  // Not of an exact segment. Touches no mapped bytes except the list's affine pair.
  ListView list(int64_t l) const;
  int64_t list_rows(int64_t l) const { return offsets_[l + 1] - offsets_[l]; }

  // Verifies a list's codes, bias and ids: -1 when sound, else the offset of the
  // first bad block in the file. Notes each block's smallest bias, so that a scan
  // need not read most biases. Any thread; one load once that is done.
  int64_t ensure_list(int64_t l) const {
    if (sound_[static_cast<size_t>(l)].load(std::memory_order_acquire)) return -1;
    return open_list(l);
  }

  // The vector of the row at `position`; call ensure_vectors before reading it.
  const void* vector(int64_t position) const {
    const int64_t bytes = vector_bytes();
    return static_cast<const char*>(arrays_.vectors) + position * bytes;
  }
  int64_t vector_bytes() const { return arrays_.vector_dim * (arrays_.half ? 2 : 4); }
  // As ensure_list, for vectors (and ids of exact segments) first .. first + count - 1.
  int64_t ensure_vectors(int64_t first, int64_t count) const;
  int64_t ensure_ids(int64_t first, int64_t count) const;

  // Where ids[position] lies in the file, for a report of a row id out of range.
  int64_t id_offset(int64_t position) const;

 private:
  void check_shapes() const;
  void check_codes() const;
  int64_t open_list(int64_t l) const;
  int64_t verify_list(int64_t l) const;
  void note_bias(int64_t l) const;

  std::shared_ptr<const Index> index_;
  SegmentArrays arrays_;
  std::vector<int64_t> offsets_;  // copied: read for every list of every query
  std::vector<int64_t> blocks_;   // [lists + 1], first block of each list
  std::unique_ptr<std::atomic<uint8_t>[]> sound_;
  mutable std::mutex noting_;
  std::unique_ptr<uint16_t[]> bias_low_;  // [blocks], of lists that are sound
};

}  // namespace ragrig
