// What benchmarks ask of the backend "cpu".
#pragma once

#include "kernels/bench_ops.h"

namespace mantissa {

extern const BenchOps kCpuBenchOps;

}  // namespace mantissa
