// One call of `linear`, as its kernels get it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/ops.h"

namespace mantissa::cuda {

// The activation: run dtype, or codes with scales.
struct LinearInput {
  const void* data = nullptr;  // run dtype [M, stride], or codes
  int64_t stride = 0;
  const float* scales = nullptr;  // nullptr: run dtype
  const int32_t* zero_points = nullptr;
  int64_t scale_stride = 0;  // 0: one scale for the tensor
  int group_cols = 1;
  bool is_int8 = false;
};

struct LinearCall {
  View out;
  LinearInput x;
  const Weight& w;
  const Epilogue& epilogue;
  int rows;  // M
  cudaStream_t stream;
  bool fast_accum = false;
};

// Every format.
void linear_any__sm80(const LinearCall& call);

}  // namespace mantissa::cuda
