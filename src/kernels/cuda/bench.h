// What benchmarks ask of the backend "cuda".
#pragma once

#include "kernels/bench_ops.h"

namespace mantissa {

extern const BenchOps kCudaBenchOps;

}  // namespace mantissa
