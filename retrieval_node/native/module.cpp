// The extension module; its interface is _scan.pyi.
#include "bind.hpp"

PYBIND11_MODULE(_scan, m) {
  m.doc() = "Compiled PQ scan.";
  ragrig::bind_core(m);
  ragrig::bind_fast(m);
  ragrig::bind_card(m);
  ragrig::bind_contract(m);
  ragrig::bind_exact(m);
}
