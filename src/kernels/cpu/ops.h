// The row "cpu" of the table of backends: AVX-512, AVX2 and portable kernels, chosen at run time.
#pragma once

#include "kernels/ops.h"

namespace mantissa {

extern const Ops kCpuOps;

}  // namespace mantissa
