#include "exact_kernels.hpp"

namespace ragrig {

namespace {

const ExactOps& ops_of(Isa isa) {
#if RAGRIG_X86
  if (isa == Isa::avx512) return kExactAvx512;
  if (isa == Isa::avx2) return kExactAvx2;
#else
  (void)isa;
#endif
  return kExactPortable;
}

}  // namespace

ExactDistances exact_distances(Isa isa, ExactKind kind) {
  const ExactOps& ops = ops_of(isa);
  if (kind.squared) return kind.half ? ops.l2_half : ops.l2;
  return kind.half ? ops.ip_half : ops.ip;
}

HalvesToFloats halves_to_floats(Isa isa) { return ops_of(isa).widen; }

}  // namespace ragrig
