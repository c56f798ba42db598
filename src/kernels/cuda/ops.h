// The row "cuda" of the table of backends.
#pragma once

#include "kernels/ops.h"

namespace mantissa {

extern const Ops kCudaOps;

}  // namespace mantissa
