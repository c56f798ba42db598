// Activations in codes -> the bf16 values that they stand for, less scales of whole rows: for
// linear kernels that multiply bf16 (gemm_rows_sm90.cu). Exact: integers less their zero point have
// 8 bits, FP8, FP6 and FP4 fewer, also after a block's scale (a power of two, or an e4m3 value
// beside FP4).
#include "kernels/cuda/any_operand.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256, kUnit = 8;

// Grid: rows. folds: scales of blocks.
__global__ void __launch_bounds__(kThreads)
    decode_rows_kernel(AnyOperand x, bool folds, int cols, __nv_bfloat16* out) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const int row = static_cast<int>(blockIdx.x);
  for (int k = static_cast<int>(threadIdx.x) * kUnit; k < cols; k += kThreads * kUnit) {
    const uint4 halves = decode_any<__half>(x, load_raw_unit(x, row, k), unit_context(x, row, k));
    const float scale = folds ? any_scale(x, row, k) : 1.0f;
    uint32_t two[kUnit / 2];
#pragma unroll
    for (int i = 0; i < kUnit / 2; ++i) {
      const float2 v = __half22float2(from_bits<__half2>(word_of(halves, i)));
      two[i] = bits_of(__floats2bfloat162_rn(v.x * scale, v.y * scale));
    }
    *reinterpret_cast<uint4*>(out + int64_t{row} * cols + k) =
        make_uint4(two[0], two[1], two[2], two[3]);
  }
}

}  // namespace

void decode_rows(AnyOperand x, int rows, int cols, __nv_bfloat16* out, cudaStream_t stream) {
  const bool folds = x.scales != nullptr && x.group_shift < kWholeRows;
  x.folds = false;  // in float32, whose range is bf16's
  launch("launching decode_rows", decode_rows_kernel,
         {.grid = dim3(static_cast<unsigned>(rows)), .block = dim3(kThreads)}, stream, x, folds,
         cols, out);
}

}  // namespace mantissa::cuda
