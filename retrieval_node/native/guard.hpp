// Verifies a mapped file's blocks as they are first touched.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace ragrig {

class Guard {
 public:
  // file: the whole mapping, `size` bytes. Block i is bytes first + i * block_bytes
  // up to the next block or the end; crcs holds one value for each. `owner` keeps
  // both alive. Throws std::invalid_argument where the numbers do not fit.
  Guard(const uint8_t* file, int64_t size, int64_t first, int64_t block_bytes,
        const uint32_t* crcs, int64_t blocks, std::shared_ptr<void> owner);

  // -1 when bytes start .. stop - 1 of the file are sound, else the offset of
  // the first bad block. Bytes before `first` are not this guard's business.
  int64_t ensure(int64_t start, int64_t stop);

  // The same for memory; memory outside the file counts as sound.
  int64_t ensure_memory(const void* data, int64_t bytes);

  // Offset in the file, or -1 for memory outside it.
  int64_t offset_of(const void* data) const;

  int64_t verified_blocks() const { return verified_.load(std::memory_order_relaxed); }

 private:
  bool verify(int64_t block);

  const uint8_t* file_;
  int64_t size_, first_, block_bytes_, blocks_;
  const uint32_t* crcs_;
  std::shared_ptr<void> owner_;
  std::unique_ptr<std::atomic<uint64_t>[]> sound_;  // a bit per block
  std::atomic<int64_t> verified_{0};
};

}  // namespace ragrig
