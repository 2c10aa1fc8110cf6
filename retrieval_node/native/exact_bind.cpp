// Binding of the exact search, refinement and checksums.
#include "bind.hpp"

namespace ragrig {

void bind_exact(py::module_& m) { (void)m; }

}  // namespace ragrig
