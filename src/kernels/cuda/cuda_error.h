// CUDA's error codes as Error, and facts of the current device.
#pragma once

#include <cuda_runtime.h>

namespace mantissa::cuda {

// Throws Error (run-time) naming what was being done.
void cuda_check(cudaError_t code, const char* doing);
// Streaming multiprocessors of the current device.
int multiprocessors();
// 80: Ampere, 90: Hopper.
int compute_capability();

}  // namespace mantissa::cuda
