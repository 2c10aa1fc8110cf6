// Exact distances in the order fixedpoint.exact_distances fixes, once per code path.
#pragma once

#include <cstdint>

#include "isa.hpp"

namespace ragrig {

// How stored vectors are compared; `half`: their components are float16.
struct ExactKind {
  bool squared;  // squared L2, else minus the inner product
  bool half;
};

// distances[i] = distance of query to rows[i], both of dim components.
using ExactDistances = void (*)(const float* query, const void* const* rows, int64_t count,
                                int64_t dim, float* distances);

// Throws std::invalid_argument when the machine cannot run `isa`.
ExactDistances exact_distances(Isa isa, ExactKind kind);

// float16 to float32, count of them; exact.
using HalvesToFloats = void (*)(const uint16_t* halves, int64_t count, float* floats);
HalvesToFloats halves_to_floats(Isa isa);

struct ExactOps {
  ExactDistances l2, ip, l2_half, ip_half;
  HalvesToFloats widen;
};

extern const ExactOps kExactPortable;
#if RAGRIG_X86
extern const ExactOps kExactAvx2;
extern const ExactOps kExactAvx512;
#endif

}  // namespace ragrig
