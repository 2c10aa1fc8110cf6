#include "attend.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "team.hpp"

namespace ragrig {
namespace {

// Bytes of a token's K that one thread reads side by side: less would waste what
// memory brings along, more would leave threads without work.
constexpr int64_t kRunBytes = 1024;
// Floats of K or V that are worth waking another thread.
constexpr int64_t kScatterFloats = 1 << 16;

}  // namespace

Batch::Batch(const int32_t* starts, const int32_t* contexts, const int32_t* tables,
             int64_t sequences, int64_t width, int64_t block_tokens, int64_t blocks)
    : starts_(starts, starts + sequences + 1),
      contexts_(contexts, contexts + sequences),
      tables_(tables, tables + sequences * width),
      width_(width),
      block_tokens_(block_tokens),
      blocks_(blocks) {
  if (block_tokens < 1) throw std::invalid_argument("block_tokens: it is not positive");
  if (starts_.front() != 0) throw std::invalid_argument("starts: the first is not 0");
  for (int64_t i = 0; i < sequences; i++) check(i);
}

void Batch::check(int64_t sequence) const {
  const size_t i = static_cast<size_t>(sequence);
  const int64_t tokens = int64_t{starts_[i + 1]} - starts_[i], context = contexts_[i];
  const std::string name = " of sequence " + std::to_string(sequence);
  if (tokens < 1) throw std::invalid_argument("starts: no tokens" + name);
  if (context < tokens) throw std::invalid_argument("contexts: less than the new tokens" + name);
  const int64_t used = (context + block_tokens_ - 1) / block_tokens_;
  if (used > width_) throw std::invalid_argument("tables: too few blocks" + name);
  for (int64_t b = 0; b < used; b++) {
    const int32_t block = tables_[static_cast<size_t>(sequence * width_ + b)];
    if (block < 0 || block >= blocks_)
      throw std::invalid_argument("tables: there is no block " + std::to_string(block) + name);
  }
}

void Batch::attend(const Layer& layer, const Ops& ops, int threads) const {
  const int64_t group = layer.heads / layer.kv_heads;
  const int64_t run_heads = std::clamp<int64_t>(
      kRunBytes / (layer.key_dim * static_cast<int64_t>(sizeof(float))), 1, layer.kv_heads);
  std::vector<Piece> pieces;
  for (size_t i = 0; i < contexts_.size(); i++) {
    const int64_t tokens = starts_[i + 1] - starts_[i];
    // One token's heads are read together; many tokens share what they read of one head.
    const int64_t heads = tokens == 1 ? run_heads : 1;
    const int64_t most = ops.piece_tokens(group);
    for (int64_t first = 0; first < tokens; first += most) {
      for (int64_t head = 0; head < layer.kv_heads; head += heads) {
        pieces.push_back({tables_.data() + static_cast<int64_t>(i) * width_, starts_[i] + first,
                          contexts_[i] - tokens + first, std::min(most, tokens - first), head,
                          std::min(heads, layer.kv_heads - head)});
      }
    }
  }
  // Long ones first, so that threads end together.
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.tokens * a.heads * (a.place + a.tokens) > b.tokens * b.heads * (b.place + b.tokens);
  });
  const size_t floats = static_cast<size_t>(ops.attend_floats(layer, run_heads));
  run_team(static_cast<int64_t>(pieces.size()), threads, [&](int64_t task) {
    thread_local std::vector<float> scratch;
    if (scratch.size() < floats) scratch.resize(floats);
    ops.attend(layer, pieces[static_cast<size_t>(task)], scratch.data());
  });
}

void scatter(const Scatter& job, int threads) {
  const int64_t width = job.heads * job.dim;
  const int64_t tokens = std::max<int64_t>(1, kScatterFloats / std::max<int64_t>(1, width));
  run_team((job.tokens + tokens - 1) / tokens, threads, [&](int64_t task) {
    const int64_t end = std::min(job.tokens, (task + 1) * tokens);
    for (int64_t t = task * tokens; t < end; t++) {
      for (int64_t h = 0; h < job.heads; h++)
        std::memcpy(job.pool + job.slots[t] * width + h * job.dim,
                    job.rows + t * job.token_stride + h * job.head_stride,
                    static_cast<size_t>(job.dim) * sizeof(float));
    }
  });
}

}  // namespace ragrig
