// The device's half of the numeric contract, and the lane masks it reads.
#pragma once

#include <cstdint>

#include "batch.hpp"
#include "isa.hpp"

namespace ragrig {

// Arrays of contract_scan in _scan.pyi; sizes are checked by scan_jobs.
struct DeviceScan {
  static constexpr int64_t kJobFields = 6;

  const int64_t* jobs = nullptr;    // [num_jobs][kJobFields]
  int64_t num_jobs = 0;
  const int64_t* starts = nullptr;  // [n + 1]
  int64_t n = 0;
  const uint8_t* codes = nullptr;
  int64_t code_bytes = 0;
  const uint32_t* ids = nullptr;
  int64_t num_ids = 0;
  int64_t row_start = 0;
  const uint8_t* alive = nullptr;
  int64_t alive_bytes = 0;
  const uint16_t* tables = nullptr;
  int64_t num_tables = 0;
  int m = 0;
  uint32_t sum_max = 0;
  int64_t k = 0;
  int64_t* sums = nullptr;
  int64_t* rows = nullptr;
  int32_t* counts = nullptr;
};

// Codes scanned. Throws std::invalid_argument for a job outside its arrays.
int64_t scan_jobs(const DeviceScan& given, Isa isa);

// Lane masks of jobs (fields as above; field 5 is set): bit i of a job's mask is
// whether its row i is live and passes its filter, padded to whole blocks.
// filter_of: per job, -1 none. With `out` null only counts. Bytes used.
int64_t mask_jobs(int64_t* jobs, int64_t num_jobs, const uint32_t* ids, int64_t num_ids,
                  int64_t row_start, const Bitmap& live, const uint8_t* filters,
                  int64_t filter_count, int64_t filter_bytes, const int64_t* filter_of,
                  uint8_t* out);

}  // namespace ragrig
