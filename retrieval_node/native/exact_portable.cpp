// Exact distances in plain C++.
#include <cstdint>
#include <cstring>

#include "exact_kernels.hpp"

namespace ragrig {
namespace portable {

constexpr int kVectorBytes = 16;
float widen(uint16_t half);
inline void widen16(const uint16_t* halves, float* floats) {
  for (int u = 0; u < 16; u++) floats[u] = widen(halves[u]);
}
#include "exact_body.hpp"

}  // namespace portable

const ExactOps kExactPortable = {
    portable::distances_of<true, float>,    portable::distances_of<false, float>,
    portable::distances_of<true, uint16_t>, portable::distances_of<false, uint16_t>,
    portable::widen_all,
};

}  // namespace ragrig
