// Code paths of the kernels.
#pragma once

#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#define RAGRIG_X86 1
#else
#define RAGRIG_X86 0
#endif

namespace ragrig {

enum class Isa { portable, avx2, avx512 };

const char* isa_name(Isa isa);
// Those this machine runs, best first; portable is always the last.
std::vector<Isa> machine_isas();

// Whether this machine multiplies pairs of bfloat16 by itself, as torch's products do.
bool multiplies_halves();
// Throws std::invalid_argument for a name it does not know or cannot run.
Isa parse_isa(const std::string& name);

}  // namespace ragrig
