// A resident weight: packed in the layout of the kernel that reads it. Made by Ops::plan_weight and
// filled by Ops::pack_rows, band by band, while the model loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "quant/scheme.h"

namespace mantissa {

// What a weight is asked to be; decides its layout and kernel.
struct WeightRequest {
  std::string name;  // for messages: "model.layers.0.self_attn.qkv_proj"
  Scheme scheme;
  const Elem* run_dtype = nullptr;
  int64_t rows = 0, cols = 0;  // N outputs, K inputs
  bool gathered = false;       // also (or only) read by Ops::embed, row by row
};

// What every backend's row of linear kernels begins with (its first member, so that the backend
// gets its own row back by a cast). The name is printed by plans and `mantissa kernels`.
struct LinearKernel {
  std::string_view name;  // gemm_e4m3_e4m3_row_bf16__avx512
};

struct Weight {
  WeightRequest request;
  const LinearKernel* kernel = nullptr;
  int64_t bytes = 0;          // packed size; known before anything is loaded
  std::byte* data = nullptr;  // [bytes], 64-byte aligned, on the device; set by the loader
};

}  // namespace mantissa
