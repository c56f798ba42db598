// The row "ref" of the table of backends: float64 loops, the definition of every operation.
#pragma once

#include "kernels/ops.h"

namespace mantissa {

extern const Ops kRefOps;

}  // namespace mantissa
