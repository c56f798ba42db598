// One call of `linear`, as its kernels get it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <optional>

#include "kernels/cuda/gemv.h"
#include "kernels/ops.h"

namespace mantissa::cuda {

// How codes of an activation are read.
enum class InputCode : uint8_t { kInt8, kE4M3, kMini };  // kMini: FP4 and FP6

// The activation: run dtype, or codes with scales.
struct LinearInput {
  const void* data = nullptr;  // run dtype [M, stride], or codes
  int64_t stride = 0;
  const float* scales = nullptr;  // nullptr: run dtype
  const int32_t* zero_points = nullptr;
  const float* global = nullptr;  // [1], multiplies every scale; nullptr: 1
  int64_t scale_stride = 0;       // 0: one scale for the tensor
  int group_cols = 1;
  InputCode code = InputCode::kInt8;
  int bits = 8, man_bits = 0, bias = 0;  // kMini
};

struct CudaQueue;
struct LinearCall {
  View out;
  LinearInput x;
  const Weight& w;
  const Epilogue& epilogue;
  int rows;  // M
  cudaStream_t stream;
  bool fast_accum = false;
  int* tile = nullptr;  // where a kernel that picks among tiles leaves its columns
  CudaQueue* queue = nullptr;
};

// linear() without an epilogue; the kernel that ran, with its tile where it picks among several.
std::string name_linear(View out, const Activation& x, const Weight& w, Queue* queue);

// What the small-batch kernels call the scheme; nothing where they do not read it.
struct GemvFormats {
  GemvWeight weight;
  GemvInput input;
};
std::optional<GemvFormats> gemv_formats(const WeightRequest& request);

// Every format.
void linear_any__sm80(const LinearCall& call);
// Every format but float32 run dtypes and codebooks beside f16, where rows start at multiples of 16
// bytes (codes: 8) and K is a multiple of 8; by tensor cores.
bool try_linear_any_16(const LinearCall& call);
// The activation's codes as bf16 in the queue's scratch memory (decode_rows.cu); nullptr where rows
// do not start at multiples of 8 bytes.
const void* decoded_input(const LinearCall& call);

}  // namespace mantissa::cuda
