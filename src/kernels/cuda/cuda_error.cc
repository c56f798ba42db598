#include "kernels/cuda/cuda_error.h"

#include "base/error.h"

namespace mantissa::cuda {

void cuda_check(cudaError_t code, const char* doing) {
  if (code == cudaSuccess) return;
  throw Error(
      text("CUDA: ", doing, ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")"),
      "see `mantissa devices` for the GPU's state; --device cpu runs without it",
      Error::Kind::kRuntime);
}

int compute_capability() {
  int device = 0, major = 0, minor = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "asking for the compute capability");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "asking for the compute capability");
  return major * 10 + minor;
}

int multiprocessors() {
  static const int count = [] {
    int device = 0, value = 0;
    cuda_check(cudaGetDevice(&device), "asking for the current device");
    cuda_check(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device),
               "counting multiprocessors");
    return value;
  }();
  return count;
}

}  // namespace mantissa::cuda
