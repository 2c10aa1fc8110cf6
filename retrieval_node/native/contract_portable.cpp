// The numeric contract in plain C++: any machine, and the measure of the others.
#include <cstdint>
#include <cstring>
#include <limits>

#include "contract_kernels.hpp"
#include "layout.hpp"

namespace ragrig {
namespace contract_portable {

constexpr int kVectorBytes = 16;
constexpr int kTileLists = 2;
constexpr int kTileColumns = 4;
#include "contract_tables_body.hpp"

constexpr int kPassBlocks = 1;

inline int slot(int lane) { return lane; }

inline void sum_block(const uint8_t* codes, int64_t stride, const uint8_t* bytes, int m,
                      uint16_t* sums) {
  std::memset(sums, 0, kLanes * sizeof(uint16_t));
  for (int j = 0; j < m; j++) {
    const uint8_t* row = codes + j * stride;
    const uint8_t* column = bytes + j * kSplitColumn;
    for (int i = 0; i < kLanes; i++) sums[i] = static_cast<uint16_t>(sums[i] + column[row[i]]);
  }
}

inline void pass(const uint8_t* codes, int64_t stride, int, const uint8_t* bytes, int m, int limit,
                 uint64_t* masks, BlockSums* sums) {
  sum_block(codes, stride, bytes, m, sums->main);
  uint64_t mask = 0;
  for (int i = 0; i < kLanes; i++) {
    mask |= static_cast<uint64_t>(sums->main[i] <= limit) << i;
  }
  masks[0] = mask;
}

#include "contract_scan_body.hpp"

}  // namespace contract_portable

const ContractOps kContractPortable = {
    contract_portable::tables<true>,   contract_portable::tables<false>, contract_portable::quantize_split,
    contract_portable::quantize,       contract_portable::split_bytes,   contract_portable::scan,
};

}  // namespace ragrig
