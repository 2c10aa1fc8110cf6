// The integer scan of the numeric contract, compiled once per code path.
//
// A sum is 256 * (sum of high bytes) + (sum of low bytes), so the high bytes alone
// bound it from below: one lookup a code rules out nearly all of them, and the low
// bytes are summed for the blocks where a code is left.
//
// Included inside the path's namespace, after its `#pragma GCC target`. The path
// defines first:
//   kPassBlocks: blocks summed side by side;
//   slot(lane): where a block's sums keep a lane;
//   pass(codes, stride, blocks, bytes, m, limit, masks, sums): sums the bytes of
//     `blocks` blocks; masks[b] gets the lanes whose sum is at most `limit`, sums[b]
//     is filled where masks[b] is not 0;
//   sum_block(codes, stride, bytes, m, sums): sums of one block.

// Lanes of a block that are rows, and marked valid.
inline uint64_t valid_lanes(const SumScan& job, int64_t block) {
  const int64_t left = job.rows - block * kLanes;
  uint64_t valid = left >= kLanes ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
  if (job.lanes != nullptr) {
    uint64_t marked;
    std::memcpy(&marked, job.lanes + block * (kLanes / 8), sizeof(marked));
    valid &= marked;
  }
  return valid;
}

// -1, or the position of an id that is out of range.
template <bool High>
inline int64_t take(const SumScan& job, int64_t block, uint64_t mask, const BlockSums& sums,
                    TopSums& top) {
  for (; mask != 0; mask &= mask - 1) {
    const int lane = __builtin_ctzll(mask);
    const int at = slot(lane);
    const uint32_t entries = High ? sums.low[at] + 256u * sums.main[at] : sums.main[at];
    const uint32_t total = entries < job.sum_max - job.bias ? job.bias + entries : job.sum_max;
    if (total > top.worst_sum()) continue;
    const int64_t place = block * kLanes + lane;
    const int64_t id = job.ids[place];
    if (id >= job.row_count) return place;
    const uint64_t key = pack_sum(total, job.row_start + id);
    if (key >= top.worst()) continue;
    if (!job.live.test(job.row_start + id) || !job.filter.test(job.row_start + id)) continue;
    top.push(key, job.at + place);
  }
  return -1;
}

// The largest sum of main bytes that may still matter; below 0: none does.
template <bool High>
inline int limit_of(const SumScan& job, const TopSums& top) {
  const uint32_t worst = top.worst_sum();
  if (worst >= job.sum_max) return 0xFFFF;
  if (worst < job.bias) return -1;
  const uint32_t left = High ? (worst - job.bias) >> 8 : worst - job.bias;
  return left < 0xFFFF ? static_cast<int>(left) : 0xFFFF;
}

template <bool High>
int64_t scan_with(const SumScan& job, TopSums& top) {
  const int64_t blocks = blocks_of(job.rows);
  const uint8_t* bytes = job.split + (High ? kCodes : 0);
  uint64_t masks[kPassBlocks];
  BlockSums sums[kPassBlocks];
  const uint8_t* group = job.codes;
  for (int64_t first = 0; first < blocks; first += kGroupBlocks) {
    const int64_t width = blocks - first < kGroupBlocks ? blocks - first : kGroupBlocks;
    const int64_t stride = width * kLanes;
    for (int64_t at = 0; at < width; at += kPassBlocks) {
      // Sums only grow: once the bias alone is too much the list is done.
      const int limit = limit_of<High>(job, top);
      if (limit < 0) return -1;
      const int here = static_cast<int>(width - at < kPassBlocks ? width - at : kPassBlocks);
      pass(group + at * kLanes, stride, here, bytes, job.m, limit, masks, sums);
      for (int b = 0; b < here; b++) {
        const int64_t block = first + at + b;
        if (masks[b] == 0 || (masks[b] &= valid_lanes(job, block)) == 0) continue;
        if constexpr (High) {
          sum_block(group + (at + b) * kLanes, stride, job.split, job.m, sums[b].low);
        }
        const int64_t bad = take<High>(job, block, masks[b], sums[b], top);
        if (bad >= 0) return bad;
      }
    }
    group += stride * job.m;
  }
  return -1;
}

int64_t scan(const SumScan& job, TopSums& top) {
  return job.high ? scan_with<true>(job, top) : scan_with<false>(job, top);
}
