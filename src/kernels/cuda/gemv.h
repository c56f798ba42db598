// Linear for up to 8 rows of activations at the speed of memory: out [M, N] = x w^T * scales + bias
// + residual, weights streamed once. Any GPU from sm_80 on. What it asks of shapes stands at
// gemv_sm80_why_not().
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

namespace mantissa::cuda {

enum class GemvWeight : uint8_t {
  kRun,        // the run dtype (bf16 or f16)
  kE4M3,       // scale per row
  kS8,         // scale per row
  kS4,         // scales (and zero points) per group of K, bf16; integers of fewer bits are widened
  kE4M3Tiles,  // float32 scales per group of 128 of K on both sides, of 128 rows of weights at once
               // (gemv__sm90 alone)
  // gemm_rows__sm90 (kMini4: gemv_fp4__sm90 too) alone:
  kS8Groups,    // 5 to 8 bits, scales (and zero points) per group of 32, 64 or multiples of 128
  kE4M3Groups,  // bf16 scales per group of 32 that multiply the codes (MX)
  kMini8,       // FP6, likewise
  kMini4,       // FP4, of 32 or 16 (NVFP4), scales as bytes in tiles (weight.h)
};
// What x holds: the run dtype, or codes. int8 weights meet int8 codes in exact int32 arithmetic;
// e4m3 weights meet e4m3 codes, and 4-bit weights either code, as f16, which holds them exactly.
enum class GemvInput : uint8_t { kRun, kE4M3, kS8 };

struct GemvArgs {
  GemvWeight weight = GemvWeight::kRun;
  GemvInput input = GemvInput::kRun;
  bool run_is_f16 = false;  // the run dtype: f16, else bf16
  bool out_f32 = false;

  const unsigned char* w = nullptr;  // [N, row_bytes], 16-byte aligned
  int64_t row_bytes = 0;             // multiple of 16; of 64 for kS4 (order: weight.h, nibble_of)
  const void* w_scale = nullptr;     // [N] float32; kS4: [N, groups] bf16; kE4M3Tiles: float32
                                     // [N / 128, groups], up to multiples of 1 and 4
  const int8_t* w_zero = nullptr;    // kS4: [N, groups]; nullptr: none
  int group_cols = 0;                // kS4 and groups
  bool wide_scales = false;          // of groups of kS8Groups: float32, else bf16
  int spare_bits = 0;                // kS8Groups: 8 less their own
  int man_bits = 0, exp_bias = 0;    // kMini8, kMini4
  const float* w_global = nullptr;   // [N], multiplies the scales; nullptr: 1

  const void* x = nullptr;          // [M, x_stride]
  int64_t x_stride = 0;             // elements
  const float* x_scale = nullptr;   // [M], x_scale_stride apart (0: one for all); nullptr: 1
  const int32_t* x_zero = nullptr;  // like x_scale; nullptr: 0
  int x_scale_stride = 0;
  const float* x_global = nullptr;  // [1], likewise

  const float* bias = nullptr;     // [N]
  const void* residual = nullptr;  // [M, N] run dtype, may be out
  int64_t residual_stride = 0;
  void* out = nullptr;  // [M, N] run dtype or float32
  int64_t out_stride = 0;
  int m = 0, n = 0, k = 0;
  // 0: picked by shape. Benchmarks set them.
  int warps = 0;                              // of a block (sm_80)
  int stages = 0, piece = 0, shared_kib = 0;  // of the ring (sm_90)
  int in_flight = 0;                          // stages
};
constexpr int kGemvRowsMax = 8;

// Empty when gemv__sm80 can run these, else the reason.
std::string gemv_sm80_why_not(const GemvArgs& args);
void gemv__sm80(const GemvArgs& args, cudaStream_t stream);

// The same on Hopper, weights by the copy engine.
std::string gemv_sm90_why_not(const GemvArgs& args);
void gemv__sm90(const GemvArgs& args, cudaStream_t stream);

// FP4 weights in groups of 32 or 16, up to 8 rows of bf16 activations, on Hopper.
std::string gemv_fp4_sm90_why_not(const GemvArgs& args);
void gemv_fp4__sm90(const GemvArgs& args, cudaStream_t stream);

// Any M, for weights decoded to the run dtype (all but int8 codes on both sides).
std::string gemm_mixed_sm80_why_not(const GemvArgs& args);
void gemm_mixed__sm80(const GemvArgs& args, cudaStream_t stream);

// Any M on Hopper: bf16, e4m3 or int8 on both sides, or weights decoded to bf16 activations; at its
// best from 9 to some hundred rows.
std::string gemm_rows_sm90_why_not(const GemvArgs& args);
void gemm_rows__sm90(const GemvArgs& args, cudaStream_t stream);

// What all ask of the weights; shared memory that x takes in the small-batch kernels.
std::string weights_why_not(const GemvArgs& args);
int64_t gemv_input_bytes(const GemvArgs& args);

}  // namespace mantissa::cuda
