#include "guard.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "crc32.hpp"

namespace ragrig {

Guard::Guard(const uint8_t* file, int64_t size, int64_t first, int64_t block_bytes,
             const uint32_t* crcs, int64_t blocks, std::shared_ptr<void> owner)
    : file_(file), size_(size), first_(first), block_bytes_(block_bytes), blocks_(blocks),
      crcs_(crcs), owner_(std::move(owner)) {
  if (first < 0 || first > size)
    throw std::invalid_argument("first: " + std::to_string(first) + " is outside the file");
  if (block_bytes < 1) throw std::invalid_argument("block_bytes: must be at least 1");
  const int64_t wanted = (size - first) / block_bytes + ((size - first) % block_bytes != 0);
  if (blocks != wanted)
    throw std::invalid_argument("crcs: " + std::to_string(blocks) + " values for " +
                                std::to_string(wanted) + " blocks");
  sound_ = std::make_unique<std::atomic<uint64_t>[]>(static_cast<size_t>(blocks / 64 + 1));
}

bool Guard::verify(int64_t block) {
  std::atomic<uint64_t>& word = sound_[static_cast<size_t>(block / 64)];
  const uint64_t bit = uint64_t{1} << (block % 64);
  if (word.load(std::memory_order_relaxed) & bit) return true;
  const int64_t start = first_ + block * block_bytes_;
  const int64_t bytes = std::min(block_bytes_, size_ - start);
  if (crc32(file_ + start, static_cast<size_t>(bytes)) != crcs_[block]) return false;
  // Two threads may have verified it; only one counts.
  if (!(word.fetch_or(bit, std::memory_order_relaxed) & bit))
    verified_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

int64_t Guard::ensure(int64_t start, int64_t stop) {
  start = std::max(start, first_);
  stop = std::min(stop, size_);
  if (start >= stop) return -1;
  const int64_t last = (stop - 1 - first_) / block_bytes_;
  for (int64_t block = (start - first_) / block_bytes_; block <= last; ++block)
    if (!verify(block)) return first_ + block * block_bytes_;
  return -1;
}

int64_t Guard::offset_of(const void* data) const {
  const auto base = reinterpret_cast<uintptr_t>(file_);
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (at < base || at >= base + static_cast<uintptr_t>(size_)) return -1;
  return static_cast<int64_t>(at - base);
}

int64_t Guard::ensure_memory(const void* data, int64_t bytes) {
  const int64_t start = offset_of(data);
  return start < 0 ? -1 : ensure(start, start + bytes);
}

}  // namespace ragrig
