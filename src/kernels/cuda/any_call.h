// Linear of any format on tensor cores (gemm_any_sm80.cu, gemv_any_sm80.cu): what its kernels get.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/weight.h"

namespace mantissa::cuda {

enum class AnyFormat : uint8_t {
  kRun,      // the operand's own type
  kInt,      // two's complement in the low `bits`
  kE4M3,     // by the hardware's conversion
  kMini,     // FP4, FP6: sign, exponent, mantissa in the low bits
  kCodebook  // bf16 entries of the row's group
};

constexpr int kWholeRows = 31;

struct AnyOperand {
  const unsigned char* codes;  // [rows, row_bytes]
  int64_t row_bytes;
  AnyFormat format;
  bool nibbles;  // nibble_of's order, else a byte a code
  int bits, man_bits;
  uint32_t rescale;    // kMini: two f16 of 2^(15 - bias)
  const void* scales;  // [rows, scale_stride], or as weight.h has them; nullptr: none
  ScaleForm scale_form;
  int scale_blocks, scale_group;  // of bytes: byte_scale_at
  bool folds;                     // groups of 16: the scale multiplies the codes
  int scale_rows;                 // that share their scales
  int64_t scale_pitch;            // of rows of scales; 0: one for all rows
  int64_t scale_stride;           // of rows of zero points and codebooks, likewise
  int group_shift;                // log2 of a group's columns; kWholeRows
  const int8_t* zeros;            // [rows, scale_stride]; nullptr: 0
  const int32_t* zeros32;
  const float* row_globals;        // [rows]; nullptr: 1
  const float* global;             // [1]; nullptr: 1
  const __nv_bfloat16* codebooks;  // [rows, scale_stride, 2^bits]

  __host__ __device__ bool grouped() const {
    return !folds && group_shift < kWholeRows && scales != nullptr;
  }
};

struct AnyArgs {
  AnyOperand x, w;
  int m, n, k;
  bool promotes_32, promotes_64;  // groups of 32, of more
  bool run_is_f16, out_f32;
  void* out;  // [M, N] run dtype or float32
  int64_t out_stride;
  const float* bias;
  const void* residual;  // run dtype
  int64_t residual_stride;
};

// Whether operands are f16: codes on both sides, or f16 activations.
inline bool any_is_half(const AnyArgs& a) {
  return a.x.format != AnyFormat::kRun || a.run_is_f16;
}

// Rows [rows, cols] of x in bf16, contiguous, without scales of whole rows (decode_rows.cu).
// Columns are a multiple of 8, rows start at multiples of 8 bytes.
void decode_rows(AnyOperand x, int rows, int cols, __nv_bfloat16* out, cudaStream_t stream);

constexpr int kGemvAnyRowsMax = 32;
// Up to kGemvAnyRowsMax rows: weights are streamed once (gemv_any_sm80.cu).
void gemv_any__sm80(const AnyArgs& args, cudaStream_t stream);
void gemm_any__sm80(const AnyArgs& args, cudaStream_t stream);

}  // namespace mantissa::cuda
