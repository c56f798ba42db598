// Attention and the KV cache's writes, compiled for avx2. No standard library code here.
#include "kernels/cpu/attention_abi.h"
// The order matters: each is written over the names of the one before.
// clang-format off
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/attention_body.inc"
// clang-format on

namespace mantissa::cpu {
const AttentionKernels kAttentionAvx2 = kAttentionKernels;
}  // namespace mantissa::cpu
