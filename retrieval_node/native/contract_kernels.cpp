#include "contract_kernels.hpp"

namespace ragrig {

const ContractOps& contract_ops(Isa isa) {
#if RAGRIG_X86
  if (isa == Isa::avx512) return kContractAvx512;
  if (isa == Isa::avx2) return kContractAvx2;
#else
  (void)isa;
#endif
  return kContractPortable;
}

}  // namespace ragrig
