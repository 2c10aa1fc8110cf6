#include "isa.hpp"

#include <stdexcept>

namespace ragrig {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    case Isa::portable: break;
  }
  return "portable";
}

std::vector<Isa> machine_isas() {
  std::vector<Isa> found;
#if RAGRIG_X86
  // These also ask whether the system saves the wide registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    found.push_back(Isa::avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(Isa::avx2);
#endif
  found.push_back(Isa::portable);
  return found;
}

bool multiplies_halves() {
#if RAGRIG_X86
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

Isa parse_isa(const std::string& name) {
  for (Isa isa : {Isa::avx512, Isa::avx2, Isa::portable}) {
    if (name != isa_name(isa)) continue;
    for (Isa here : machine_isas())
      if (here == isa) return isa;
    throw std::invalid_argument("isa: this machine cannot run " + name);
  }
  throw std::invalid_argument("isa: " + name + " is not avx512, avx2 or portable");
}

}  // namespace ragrig
