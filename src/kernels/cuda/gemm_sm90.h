// GEMM on Hopper's tensor cores: out [M, N] = round(A [M, K] B [N, K]^T * a_scale[m] * b_scale[n] +
// bias[n] + residual[m, n]). Needs sm_90a; what it asks of shapes and strides stands at
// gemm_sm90_why_not().
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

namespace mantissa::cuda {

enum class GemmElem : uint8_t { kE4M3, kS8, kBf16 };

struct GemmArgs {
  GemmElem elem = GemmElem::kE4M3;
  bool fast_accum = false;    // e4m3 only: sums stay in the tensor core's accumulator
  bool block_scales = false;  // e4m3 only: scales of 128 of K, see below
  const void* a = nullptr;    // [M, K], rows `a_stride` elements apart
  const void* b = nullptr;    // [N, K], rows K apart
  int64_t a_stride = 0;
  // [M] per token; [1] where a_scale_stride is 0; nullptr: 1. Block scales: [M, K / 128], rows
  // a_scale_stride apart.
  const float* a_scale = nullptr;
  // [N] per channel; [1] where b_scale_stride is 0; nullptr: 1. Block scales: [N / 128, K / 128],
  // rounded up, rows b_scale_stride apart.
  const float* b_scale = nullptr;
  int64_t a_scale_stride = 1, b_scale_stride = 1;
  const float* bias = nullptr;              // [N]
  const __nv_bfloat16* residual = nullptr;  // [M, N], may be out
  int64_t residual_stride = 0;
  void* out = nullptr;     // [M, N] bf16, or float32 where out_f32
  int64_t out_stride = 0;  // elements
  bool out_f32 = false;
  int m = 0, n = 0, k = 0;
  int tile_columns = 0;  // 256, 192 or 128; 0: gemm_sm90_columns() picks
};

// Empty when gemm__sm90 can run these, else the reason.
std::string gemm_sm90_why_not(const GemmArgs& args);
// Columns of a tile (of 256 rows) that these run with.
int gemm_sm90_columns(const GemmArgs& args);
void gemm__sm90(const GemmArgs& args, cudaStream_t stream);

}  // namespace mantissa::cuda
