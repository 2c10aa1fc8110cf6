// Exact distances in plain C++.
#include <cstdint>
#include <cstring>

#include "exact_kernels.hpp"

namespace ragrig {
namespace exact_portable {

constexpr int kVectorBytes = 16;
float widen(uint16_t half);
inline void widen16(const uint16_t* halves, float* floats) {
  for (int u = 0; u < 16; u++) floats[u] = widen(halves[u]);
}
#include "exact_body.hpp"

}  // namespace exact_portable

const ExactOps kExactPortable = {
    exact_portable::distances_of<true, float>,    exact_portable::distances_of<false, float>,
    exact_portable::distances_of<true, uint16_t>, exact_portable::distances_of<false, uint16_t>,
    exact_portable::widen_all,
};

}  // namespace ragrig
