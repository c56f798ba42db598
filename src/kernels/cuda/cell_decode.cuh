// Codes of an 8-bit cache -> pairs of 16-bit floats, in registers; exact, but NaN of e4m3 and the
// infinities and NaN of e5m2 as bf16 (kv_cache.cuh says why that is enough).
#pragma once

#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

// As f16: bytes 0 and 2, and bytes 1 and 3.
template <CellKind kKind>
__device__ inline void decode_codes(uint32_t word, uint32_t& even, uint32_t& odd) {
  if constexpr (kKind == CellKind::kInt8) {  // 1024 + (code + 128) - 1152
    even = subtract<__half>(ptx::and_xor(word, 0x00ff00ffu, 0x64806480u), 0x64806480u);
    odd = subtract<__half>(ptx::and_xor(word >> 8, 0x00ff00ffu, 0x64806480u), 0x64806480u);
  } else if constexpr (kKind == CellKind::kE5M2) {  // the upper byte of f16
    even = __byte_perm(word, 0, 0x2404);
    odd = word & 0xff00ff00u;
  } else {
    const uint32_t sorted = __byte_perm(word, 0, 0x3120);
    even = decode_e4m3<__half>(sorted & 0xffffu);
    odd = decode_e4m3<__half>(sorted >> 16);
  }
}

// As bf16: the upper byte of each 16-bit half of a word. An 8-bit float moved down to bf16's
// mantissa stands there with too small an exponent, denormals included: the product with a power of
// two is exact.
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
        kKind == CellKind::kE4M3 ? 0x7b807b80u : 0x77807780u;  // 2^120, 2^112
    const uint32_t moved = (word & 0x80008000u) | (word >> kShift & kMagnitude);
    return bits_of(__hmul2(from_bits<__nv_bfloat162>(moved), from_bits<__nv_bfloat162>(kFactor)));
  }
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
