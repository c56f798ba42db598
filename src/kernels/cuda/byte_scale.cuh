// Scales of FP4 weights that are bytes (weight.h): their values, and bytes of values.
#pragma once

#include "kernels/cuda/weight.h"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

// Exponents of 2^(e - 127), 2^-127 a denormal; 255 is NaN.
__device__ inline float e8m0_value(uint32_t byte) {
  const float value = __uint_as_float(max(byte << 23, 0x00400000u));
  return fmaf(value, 0.0f, value);  // NaN of infinity
}
__device__ inline float e4m3_value(uint32_t byte) {
  return __low2float(from_bits<__half2>(decode_e4m3<__half>(byte)));
}
__device__ inline float byte_scale(const void* scales, ScaleForm form, int64_t at) {
  const uint32_t byte = __ldg(static_cast<const uint8_t*>(scales) + at);
  return form == ScaleForm::kE8M0 ? e8m0_value(byte) : e4m3_value(byte);
}
// Of a scale that is exact in the form, or NaN.
__device__ inline uint8_t byte_of_scale(float scale, ScaleForm form) {
  if (form == ScaleForm::kE8M0) return static_cast<uint8_t>(__float_as_uint(scale) >> 23);
  return __nv_cvt_float_to_fp8(scale, __NV_SATFINITE, __NV_E4M3);
}

// The bytes of a block's four groups -> two bf16 each of groups 0 and 1, 2 and 3. 2^-127 counts as
// 0, NaN becomes infinity: who uses them turns sums that are infinite back.
__device__ inline uint2 e8m0_pairs(uint32_t word) {
  return {__byte_perm(word, 0, 0x2404) >> 1, __byte_perm(word, 0, 0x3414) >> 1};
}
// Two bf16 of the bytes of a pair.
__device__ inline uint32_t e4m3_pair(uint32_t pair) {
  const float2 v = __half22float2(from_bits<__half2>(decode_e4m3<__half>(pair)));
  return bits_of(__floats2bfloat162_rn(v.x, v.y));
}

}  // namespace mantissa::cuda
