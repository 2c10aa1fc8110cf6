// Binding of mode `contract16`.
#include "bind.hpp"

namespace ragrig {

void bind_contract(py::module_& m) { (void)m; }

}  // namespace ragrig
