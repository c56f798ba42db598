// Norm, gate and quantization of rows, compiled for avx2. No standard library code here.
#include "kernels/cpu/rows_abi.h"
// The order matters: each is written over the names of the one before.
// clang-format off
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/rows_body.inc"
// clang-format on

namespace mantissa::cpu {
const RowsKernels kRowsAvx2 = kRowsKernels;
}  // namespace mantissa::cpu
