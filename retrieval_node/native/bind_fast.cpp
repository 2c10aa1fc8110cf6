// Binding of mode `fast` and of the coarse search.
#include "bind.hpp"

namespace ragrig {

void bind_fast(py::module_& m) { (void)m; }

}  // namespace ragrig
