// Codes of an 8-bit cache -> pairs of bf16, in registers; exact but for NaN (kv_cache.cuh).
#pragma once

#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

// The upper byte of each 16-bit half of a word. An 8-bit float moved down to bf16's mantissa stands
// there with too small an exponent, denormals included: the product with a power of two is exact.
template <CellKind kKind>
__device__ inline uint32_t decode_high_bytes(uint32_t word) {
  if constexpr (kKind == CellKind::kInt8) {
    // bf16 has 7 mantissa bits: (128 + low seven) - (128, or 256 where the sign is set).
    const uint32_t low = word >> 8;
    return subtract<__nv_bfloat16>((low & 0x007f007fu) | 0x43004300u,
                                   (low & 0x00800080u) | 0x43004300u);
  } else {
    constexpr int kShift = kKind == CellKind::kE4M3 ? 4 : 3;
    constexpr uint32_t kMagnitude = kKind == CellKind::kE4M3 ? 0x07f007f0u : 0x0fe00fe0u;
    constexpr uint32_t kFactor =
        kKind == CellKind::kE4M3 ? 0x7b807b80u : 0x77807780u;  // 2^120, 112
    const uint32_t moved = (word & 0x80008000u) | (word >> kShift & kMagnitude);
    return bits_of(__hmul2(from_bits<__nv_bfloat162>(moved), from_bits<__nv_bfloat162>(kFactor)));
  }
}
// Bytes 0 and 2, or 1 and 3.
template <CellKind kKind>
__device__ inline uint32_t decode_even(uint32_t word) {
  if constexpr (kKind == CellKind::kInt8) {
    return subtract<__nv_bfloat16>((word & 0x007f007fu) | 0x43004300u,
                                   (word & 0x00800080u) | 0x43004300u);
  } else {
    return decode_high_bytes<kKind>(word << 8);
  }
}
template <CellKind kKind>
__device__ inline uint32_t decode_odd(uint32_t word) {
  return decode_high_bytes<kKind>(word);
}
// Bytes 0 and 1, or 2 and 3.
template <CellKind kKind>
__device__ inline uint32_t decode_lower(uint32_t word) {
  return decode_high_bytes<kKind>(__byte_perm(word, 0, 0x1404));
}
template <CellKind kKind>
__device__ inline uint32_t decode_upper(uint32_t word) {
  return decode_high_bytes<kKind>(__byte_perm(word, 0, 0x3424));
}

}  // namespace mantissa::cuda
