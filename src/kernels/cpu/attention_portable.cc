// Attention and the KV cache's writes, compiled for portable. No standard library code here.
#include "kernels/cpu/attention_abi.h"
// The order matters: each is written over the names of the one before.
// clang-format off
#include "kernels/cpu/simd_portable.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/attention_body.inc"
// clang-format on

namespace mantissa::cpu {
const AttentionKernels kAttentionPortable = kAttentionKernels;
}  // namespace mantissa::cpu
