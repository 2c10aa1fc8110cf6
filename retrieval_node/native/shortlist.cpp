#include "shortlist.hpp"

#include <algorithm>
#include <cmath>

namespace ragrig {
namespace {

constexpr float kInfinite = std::numeric_limits<float>::infinity();
// Least numbers of rows beyond k with which the limit is lowered, and that may be left then.
constexpr int64_t kLeastNews = 4, kLeastTies = 16;

int64_t count_within(const std::vector<float>& values, float bound) {
  int32_t count = 0;
  for (const float value : values) count += value <= bound;
  return count;
}

void ask_for(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64)
    __builtin_prefetch(static_cast<const char*>(from) + at, 0, 2);
}

}  // namespace

void ExactAdc::distances(int64_t list, const uint8_t* codes, int64_t blocks,
                         const uint32_t* slots, int64_t count, float* out) const {
  const bool l2 = index.metric == Metric::l2;
  if (l2 && index.residual) {
    const float* const centroid = index.centroid(list);
    for (int64_t t = 0; t < index.dim; ++t) residual[t] = query[t] - centroid[t];
  } else {
    std::copy(query, query + index.dim, residual);
  }
  const AdcJob job{codes, blocks, index.m, index.sub, index.codebooks, residual, scratch};
  (l2 ? kernels.adc_l2 : kernels.adc_ip)(job, slots, count, out);
  if (l2 || !index.residual) return;
  const double coarse = kernels.coarse_ip(query, index.centroid(list), index.dim);
  for (int64_t i = 0; i < count; ++i)
    out[i] = static_cast<float>(coarse + static_cast<double>(out[i]));
}

void Shortlist::reset(const Batch& batch, int64_t m, int64_t k, bool careful) {
  batch_ = &batch;
  m_ = m;
  k_ = k;
  news_ = std::max(kLeastNews, k / 4);
  ties_ = std::max(kLeastTies, k / 2);
  slots_ = (k_ + ties_ + kAtOnce + kLanes - 1) / kLanes * kLanes;
  careful_ = careful;
  broken_ = false;
  limit_ = kInfinite;
  found_.clear();
  high_.clear();
  codes_.reserve(slots_ * m_);
  spare_.clear();
  for (int64_t slot = slots_; slot-- > 0;) spare_.push_back(static_cast<uint32_t>(slot));
}

int64_t Shortlist::row(const Found& found) const {
  const Segment& segment = *batch_->segments[found.segment];
  return segment.row_start() + segment.ids()[found.position];
}

void Shortlist::add(const Found& found, float high, CodePlace code) {
  const uint32_t slot = spare_.back();
  spare_.pop_back();
  const CodePlace to = place_of(slot);
  auto* out = const_cast<uint8_t*>(to.base);
  for (int64_t j = 0; j < m_; ++j) out[j * to.stride] = code.base[j * code.stride];
  found_.push_back(found);
  found_.back().slot = slot;
  high_.push_back(high);
}

void Shortlist::shorten(const ExactAdc& adc) {
  if (size() < k_ + (limit_ == kInfinite ? 0 : news_)) return;
  if (!careful_) {
    lower_limit();
    drop_beyond();
  }
  // Ties, or bounds too wide to tell rows apart.
  if (limit_ == kInfinite || size() > k_ + ties_) settle(adc);
}

void Shortlist::lower_limit() {
  float low = kInfinite, high = -kInfinite;
  for (const float value : high_) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  high = std::min(high, limit_);
  if (!(high < kInfinite) || count_within(high_, high) < k_) return;
  const int64_t enough = k_ + k_ / 32;
  for (;;) {
    const float middle = low + (high - low) / 2;
    if (!(low < middle && middle < high)) break;
    const int64_t count = count_within(high_, middle);
    if (count < k_) {
      low = middle;
      continue;
    }
    high = middle;
    if (count <= enough) break;
  }
  limit_ = high;
}

void Shortlist::drop_beyond() {
  size_t kept = 0;
  for (size_t i = 0; i < found_.size(); ++i) {
    const Found found = found_[i];
    if (found.low > limit_) {
      spare_.push_back(found.slot);
      continue;
    }
    found_[kept] = found;
    high_[kept++] = high_[i];
  }
  found_.resize(kept);
  high_.resize(kept);
}

void Shortlist::measure(const ExactAdc& adc) {
  uint32_t slots[kAtOnce];
  float distances[kAtOnce];
  for (size_t first = 0; first < found_.size();) {
    const Found& of = found_[first];
    if (of.exact) {
      ++first;
      continue;
    }
    size_t end = first;
    for (; end < found_.size() && end - first < kAtOnce && !found_[end].exact &&
           found_[end].list == of.list;
         ++end)
      slots[end - first] = found_[end].slot;
    adc.distances(of.list, codes_.get(), slots_ / kLanes, slots,
                  static_cast<int64_t>(end - first), distances);
    for (size_t i = first; i < end; ++i) {
      // Written so that NaN, which no sound index gives, comes last.
      const float distance = distances[i - first];
      found_[i].low = high_[i] = distance <= kInfinite ? distance : kInfinite;
      found_[i].exact = true;
    }
    first = end;
  }
}

// Every candidate's exact distance, and the k nearest by (distance, row id).
void Shortlist::settle(const ExactAdc& adc) {
  measure(adc);
  if (limit_ < kInfinite && count_within(high_, limit_) < k_) broken_ = true;
  if (size() > k_) keep_nearest();
  if (size() == k_) limit_ = std::min(limit_, *std::max_element(high_.begin(), high_.end()));
}

void Shortlist::keep_nearest() {
  const auto nearer = [this](const Found& a, const Found& b) {
    return a.low != b.low ? a.low < b.low : row(a) < row(b);
  };
  std::nth_element(found_.begin(), found_.begin() + (k_ - 1), found_.end(), nearer);
  for (int64_t i = k_; i < size(); ++i) spare_.push_back(found_[static_cast<size_t>(i)].slot);
  found_.resize(static_cast<size_t>(k_));
  high_.resize(found_.size());
  for (size_t i = 0; i < found_.size(); ++i) high_[i] = found_[i].low;
}

void Shortlist::take(const Shortlist& other, const ExactAdc& adc) {
  broken_ |= other.broken_;
  int64_t added = 0;
  for (size_t i = 0; i < other.found_.size(); ++i) {
    const Found& found = other.found_[i];
    if (found.low > limit_) continue;
    add(found, other.high_[i], other.place_of(found.slot));
    if (++added % kAtOnce == 0) shorten(adc);
  }
  // By now its k nearest, which lie within its limit, are here.
  limit_ = std::min(limit_, other.limit_);
  shorten(adc);
}

void Shortlist::expect() {
  if (!careful_ && size() > k_) {
    lower_limit();
    drop_beyond();
  }
  for (const Found& found : found_) {
    const Segment& segment = *batch_->segments[found.segment];
    __builtin_prefetch(segment.ids() + found.position);
    if (batch_->refine_k > 0) ask_for(segment.vector(found.position), segment.vector_bytes());
  }
}

bool Shortlist::finish(const ExactAdc& adc, std::vector<Hit>& hits) {
  settle(adc);
  hits.clear();
  if (broken_) return false;
  for (const Found& found : found_) {
    hits.push_back({found.low, found.segment, row(found), found.position});
  }
  return true;
}

}  // namespace ragrig
