#include "kernels.hpp"

namespace ragrig {

const Ops& ops_of(Isa isa) {
#if RAGRIG_X86
  if (isa == Isa::avx512) return kAvx512;
  if (isa == Isa::avx2) return kAvx2;
#else
  (void)isa;
#endif
  return kPortable;
}

}  // namespace ragrig
