// A linear layer over weights where a checkpoint has them.
#pragma once

#include "kernels.hpp"

namespace ragrig {

// job.turned is set here.
void linear(Linear job, const Ops& ops, int threads);

}  // namespace ragrig
