// The kernels with plain C++.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels.hpp"

namespace ragrig {
namespace portable {

constexpr int kPartBytes = 16;
constexpr int kTileParts = 2;
constexpr int tile_rows(int parts) { return parts == 1 ? 10 : 6; }
static inline float add_lanes(const float __attribute__((vector_size(16))) & part) {
  return (part[0] + part[2]) + (part[1] + part[3]);
}
#include "tile.hpp"

#include "attend_body.hpp"

#include "linear_body.hpp"

}  // namespace portable

const Ops kPortable = {
    portable::piece_tokens, portable::attend_floats, portable::attend, portable::turned_floats,
    portable::turn_tasks,   portable::turn,          portable::linear,
};

}  // namespace ragrig
