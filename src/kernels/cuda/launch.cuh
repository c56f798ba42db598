// Launches with programmatic dependent launch: on Hopper a kernel may start while the one before it
// in the stream still ends, which hides most of a launch inside CUDA graphs. The rule that keeps it
// correct: every kernel launched here calls ptx::grid_dependency_wait() in every thread before it
// reads or writes memory that other kernels of the stream write. Weights, gains and tables are
// written by copies alone, so a kernel may fetch them ahead of that wait. A kernel calls
// ptx::grid_dependency_launch() once most of its work is under way: the next one may then occupy
// what is free.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda {

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes = 0;
  int cluster = 1;  // blocks of x that share memory; needs sm_90
};

// Lets launches of kKernel have up to `bytes` of shared memory. One kernel always asks for the
// same: the driver hears it once. `doing` stands in the Error where it refuses.
template <auto kKernel>
void allow_shared(int bytes, const char* doing) {
  static const bool allowed = [&] {
    cuda_check(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               doing);
    return true;
  }();
  (void)allowed;
}

// `what` names the kernel in the Error when the launch is refused.
template <class... Parameters, class... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), const LaunchShape& shape,
            cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  static const bool dependent = compute_capability() >= 90;
  if (dependent) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  }
  cuda_check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), what);
}

}  // namespace mantissa::cuda
