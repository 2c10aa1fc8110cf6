#include "segment.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace ragrig {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument(text); }

std::string numbers(int64_t got, int64_t wanted) {
  return std::to_string(got) + " instead of " + std::to_string(wanted);
}

}  // namespace

Segment::Segment(std::shared_ptr<const Index> index, SegmentArrays arrays)
    : index_(std::move(index)), arrays_(std::move(arrays)) {
  const SegmentArrays& a = arrays_;
  if (a.lists < 1) refuse("list_offsets: at least two values are needed");
  if (a.guard) {
    const int64_t offset_bytes = (a.lists + 1) * static_cast<int64_t>(sizeof(int64_t));
    const int64_t affine_bytes = a.lists * 2 * static_cast<int64_t>(sizeof(float));
    if (a.guard->ensure_memory(a.list_offsets, offset_bytes) >= 0)
      refuse("list_offsets: their bytes are damaged");
    if (a.bias_affine && a.guard->ensure_memory(a.bias_affine, affine_bytes) >= 0)
      refuse("bias_affine: its bytes are damaged");
  }
  offsets_.assign(a.list_offsets, a.list_offsets + a.lists + 1);
  check_shapes();
  blocks_.resize(offsets_.size());
  for (size_t l = 0; l + 1 < offsets_.size(); ++l)
    blocks_[l + 1] = blocks_[l] + blocks_of(offsets_[l + 1] - offsets_[l]);
  if (!exact()) check_codes();
  sound_ = std::make_unique<std::atomic<uint8_t>[]>(static_cast<size_t>(a.lists));
  if (a.bias) bias_low_.reset(new uint16_t[static_cast<size_t>(blocks_.back())]);
}

void Segment::check_shapes() const {
  const SegmentArrays& a = arrays_;
  if (offsets_.front() != 0 || offsets_.back() != a.rows)
    refuse("list_offsets: they do not go from 0 to the " + std::to_string(a.rows) + " ids");
  for (size_t l = 0; l + 1 < offsets_.size(); ++l)
    if (offsets_[l] > offsets_[l + 1]) refuse("list_offsets: list " + std::to_string(l) +
                                              " ends before it starts");
  if (a.row_start < 0 || a.row_count < 0 || a.row_count > int64_t{UINT32_MAX} + 1)
    refuse("row_count: row_start and row_count are out of range");
  if (a.rows > a.row_count)
    refuse("ids: more rows than row_count, " + std::to_string(a.row_count));
  if (a.codes && !index_) refuse("index: a segment of codes needs one");
  if (!a.codes && !a.vectors) refuse("vectors: an exact segment needs them");
  if (!a.codes && (a.bias || a.bias_affine)) refuse("bias: an exact segment has none");
  if (a.vectors && a.vector_dim < 1) refuse("vectors: they have no components");
}

void Segment::check_codes() const {
  const SegmentArrays& a = arrays_;
  if (a.lists != index_->nlist)
    refuse("list_offsets: lists are " + numbers(a.lists, index_->nlist));
  const int64_t lanes = blocks_.back() * kLanes;
  if (a.code_bytes != lanes * index_->m)
    refuse("codes: bytes are " + numbers(a.code_bytes, lanes * index_->m));
  if ((index_->metric == Metric::l2) != (a.bias != nullptr))
    refuse("bias: l2 needs it, other metrics have none");
  if ((a.bias != nullptr) != (a.bias_affine != nullptr))
    refuse("bias_affine: it is given with bias or not at all");
  if (a.bias && a.bias_count != lanes) refuse("bias: values are " + numbers(a.bias_count, lanes));
  for (int64_t l = 0; a.bias_affine && l < a.lists; ++l)
    if (!std::isfinite(a.bias_affine[2 * l]) || !std::isfinite(a.bias_affine[2 * l + 1]) ||
        a.bias_affine[2 * l + 1] < 0.0f)
      refuse("bias_affine: list " + std::to_string(l) + " is not finite or has a negative step");
}

ListView Segment::list(int64_t l) const {
  const int64_t block = blocks_[static_cast<size_t>(l)];
  const int64_t first = offsets_[static_cast<size_t>(l)];
  ListView view;
  view.codes = arrays_.codes + block * kLanes * index_->m;
  view.bias = arrays_.bias ? arrays_.bias + block * kLanes : nullptr;
  view.bias_base = arrays_.bias_affine ? arrays_.bias_affine[2 * l] : 0.0f;
  view.bias_step = arrays_.bias_affine ? arrays_.bias_affine[2 * l + 1] : 0.0f;
  view.ids = arrays_.ids + first;
  view.rows = offsets_[static_cast<size_t>(l) + 1] - first;
  view.blocks = blocks_[static_cast<size_t>(l) + 1] - block;
  view.first_row = first;
  view.bias_low = bias_low_ ? bias_low_.get() + block : nullptr;
  return view;
}

int64_t Segment::open_list(int64_t l) const {
  const int64_t bad = arrays_.guard ? verify_list(l) : -1;
  if (bad >= 0) return bad;
  if (arrays_.bias) {
    std::lock_guard<std::mutex> lock(noting_);
    note_bias(l);
    sound_[static_cast<size_t>(l)].store(1, std::memory_order_release);
    return -1;
  }
  sound_[static_cast<size_t>(l)].store(1, std::memory_order_release);
  return -1;
}

int64_t Segment::verify_list(int64_t l) const {
  Guard& guard = *arrays_.guard;
  if (exact()) return ensure_ids(offsets_[static_cast<size_t>(l)], list_rows(l));
  const ListView view = list(l);
  const int64_t lanes = view.blocks * kLanes;
  int64_t bad = guard.ensure_memory(view.codes, lanes * index_->m);
  if (bad < 0 && view.bias) bad = guard.ensure_memory(view.bias, lanes * 2);
  if (bad < 0) bad = guard.ensure_memory(view.ids, view.rows * 4);
  return bad;
}

void Segment::note_bias(int64_t l) const {
  // Another thread may have been first, and readers may be there by now.
  if (sound_[static_cast<size_t>(l)].load(std::memory_order_relaxed)) return;
  const ListView view = list(l);
  uint16_t* const low = bias_low_.get() + blocks_[static_cast<size_t>(l)];
  for (int64_t b = 0; b < view.blocks; ++b) {
    const uint16_t* const first = view.bias + b * kLanes;
    low[b] = *std::min_element(first, first + std::min(kLanes, view.rows - b * kLanes));
  }
}

int64_t Segment::ensure_vectors(int64_t first, int64_t count) const {
  if (!arrays_.guard) return -1;
  return arrays_.guard->ensure_memory(vector(first), count * vector_bytes());
}

int64_t Segment::ensure_ids(int64_t first, int64_t count) const {
  if (!arrays_.guard) return -1;
  return arrays_.guard->ensure_memory(arrays_.ids + first, count * 4);
}

int64_t Segment::id_offset(int64_t position) const {
  const int64_t offset =
      arrays_.guard ? arrays_.guard->offset_of(arrays_.ids + position) : -1;
  return offset < 0 ? position * 4 : offset;
}

}  // namespace ragrig
