#include "contract_device.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract_kernels.hpp"
#include "contract_tables.hpp"

namespace ragrig {

namespace {

// Names of a job's fields.
enum Field { kOffset = 0, kRows, kFirst, kTable, kBias, kMask };

[[noreturn]] void refuse(int64_t job, const char* what) {
  throw std::invalid_argument("jobs: the " + std::string(what) + " of job " +
                              std::to_string(job) + " is out of range");
}

void check_job(const DeviceScan& given, int64_t number) {
  const int64_t* job = given.jobs + number * DeviceScan::kJobFields;
  const int64_t rows = job[kRows];
  if (rows < 0 || rows > given.num_ids) refuse(number, "row count");
  if (job[kFirst] < 0 || job[kFirst] > given.num_ids - rows) refuse(number, "first row");
  const int64_t bytes = blocks_of(rows) * kLanes * given.m;
  if (job[kOffset] < 0 || job[kOffset] > given.code_bytes - bytes) refuse(number, "offset");
  if (job[kTable] < 0 || job[kTable] >= given.num_tables) refuse(number, "table");
  if (job[kBias] < 0 || job[kBias] > given.sum_max) refuse(number, "bias");
  const int64_t mask = job[kMask], mask_bytes = blocks_of(rows) * (kLanes / 8);
  if (mask < -1 || (mask >= 0 && (mask % kLanes != 0 || mask / 8 > given.alive_bytes - mask_bytes)))
    refuse(number, "lane mask");
}

void check(const DeviceScan& given) {
  if (given.m < 1 || given.m > kMaxContractM) throw std::invalid_argument("m: it is not in 1..256");
  if (given.k < 1) throw std::invalid_argument("sums: k is 0");
  if (given.starts[0] < 0 || given.starts[given.n] > given.num_jobs) {
    throw std::invalid_argument("starts: they are not positions in jobs");
  }
  for (int64_t q = 0; q < given.n; q++) {
    if (given.starts[q] > given.starts[q + 1]) throw std::invalid_argument("starts: they fall");
  }
  for (int64_t j = 0; j < given.num_jobs; j++) check_job(given, j);
}

}  // namespace

int64_t scan_jobs(const DeviceScan& given, Isa isa) {
  check(given);
  const ContractOps& ops = contract_ops(isa);
  std::vector<uint8_t> split(static_cast<size_t>(given.m * kSplitColumn));
  TopSums top;
  int64_t scanned = 0, split_of = -1;
  bool high = false;
  for (int64_t q = 0; q < given.n; q++) {
    top.reset(given.k);
    for (int64_t j = given.starts[q]; j < given.starts[q + 1]; j++) {
      const int64_t* job = given.jobs + j * DeviceScan::kJobFields;
      if (job[kRows] == 0) continue;
      if (job[kTable] != split_of) {
        high = ops.split(given.tables + job[kTable] * given.m * kCodes, given.m, split.data());
        split_of = job[kTable];
      }
      SumScan scan;
      scan.codes = given.codes + job[kOffset];
      scan.rows = job[kRows];
      scan.ids = given.ids + job[kFirst];
      scan.row_start = given.row_start;
      scan.row_count = int64_t{1} << 32;
      scan.at = 0;
      scan.split = split.data();
      scan.m = given.m;
      scan.high = high;
      scan.bias = static_cast<uint32_t>(job[kBias]);
      scan.sum_max = given.sum_max;
      scan.lanes = job[kMask] < 0 ? nullptr : given.alive + job[kMask] / 8;
      ops.scan(scan, top);
      scanned += job[kRows];
    }
    const std::vector<Ranked>& best = top.finish();
    for (size_t i = 0; i < best.size(); i++) {
      given.sums[q * given.k + static_cast<int64_t>(i)] = sum_of(best[i].key);
      given.rows[q * given.k + static_cast<int64_t>(i)] = row_of(best[i].key);
    }
    given.counts[q] = static_cast<int32_t>(best.size());
  }
  return scanned;
}

int64_t mask_jobs(int64_t* jobs, int64_t num_jobs, const uint32_t* ids, int64_t num_ids,
                  int64_t row_start, const Bitmap& live, const uint8_t* filters,
                  int64_t filter_count, int64_t filter_bytes, const int64_t* filter_of,
                  uint8_t* out) {
  int64_t used = 0;
  for (int64_t j = 0; j < num_jobs; j++) {
    int64_t* job = jobs + j * DeviceScan::kJobFields;
    if (job[kRows] < 0 || job[kFirst] < 0 || job[kFirst] > num_ids - job[kRows]) {
      refuse(j, "row count");
    }
    if (filter_of[j] < -1 || filter_of[j] >= filter_count) refuse(j, "filter");
    const int64_t bytes = blocks_of(job[kRows]) * (kLanes / 8);
    if (out != nullptr) {
      Bitmap filter;
      if (filter_of[j] >= 0) filter = {filters + filter_of[j] * filter_bytes, filter_bytes};
      std::fill_n(out + used, bytes, uint8_t{0});
      for (int64_t i = 0; i < job[kRows]; i++) {
        const int64_t row = row_start + ids[job[kFirst] + i];
        const bool passes = live.test(row) && filter.test(row);
        out[used + i / 8] = static_cast<uint8_t>(out[used + i / 8] | passes << (i % 8));
      }
      job[kMask] = used * 8;
    }
    used += bytes;
  }
  return used;
}

}  // namespace ragrig
