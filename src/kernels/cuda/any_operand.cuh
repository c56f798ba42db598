// One side of a product in any of the table's formats, decoded to f16 or bf16 in registers for mma.
// Codes are exact in both: integers less their zero point (at most 8 bits), e4m3, FP6 and FP4; with
// NVFP4's block scale multiplied in they still are. Scales of groups of 32 or more multiply float32
// sums of the group's products, scales of whole rows the sums of the row.
#pragma once

#include "kernels/cuda/any_call.h"
#include "kernels/cuda/byte_scale.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/weight.h"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

__device__ inline float any_scale(const AnyOperand& o, int row, int k) {
  if (o.scales == nullptr) return 1.0f;
  const int group = k >> o.group_shift;
  if (is_byte(o.scale_form))
    return byte_scale(o.scales, o.scale_form,
                      byte_scale_at(row, group, o.scale_blocks, o.scale_group));
  const int64_t at = scale_at(row, group, o.scale_rows, o.scale_pitch);
  return o.scale_form == ScaleForm::kF32
             ? __ldg(static_cast<const float*>(o.scales) + at)
             : __bfloat162float(static_cast<const __nv_bfloat16*>(o.scales)[at]);
}
// What the sums of a row are multiplied with in the end.
__device__ inline float any_row_factor(const AnyOperand& o, int row) {
  float factor = o.grouped() || o.folds ? 1.0f : any_scale(o, row, 0);
  if (o.row_globals != nullptr) factor *= o.row_globals[row];
  if (o.global != nullptr) factor *= *o.global;
  return factor;
}

// Eight codes as loaded: bytes, or nibbles in x.
struct RawUnit {
  uint2 codes;
};
// Elements [k, k + 8) of a row.
__device__ inline RawUnit load_raw_unit(const AnyOperand& o, int row, int k) {
  const unsigned char* from = o.codes + row * o.row_bytes;
  if (!o.nibbles) return {*reinterpret_cast<const uint2*>(from + k)};
  return {{*reinterpret_cast<const uint32_t*>(from + nibble_of(k).byte), 0}};
}

// What a unit is decoded with.
struct UnitContext {
  uint32_t offset;  // kInt: two f16 of 1024 + 2^(bits - 1) + zero
  uint32_t fold;    // two f16 of the block's scale
  const __nv_bfloat16* codebook;
};
__device__ inline uint32_t twice(float v) {
  return bits_of(__float2half2_rn(v));
}
__device__ inline UnitContext unit_context(const AnyOperand& o, int row, int k) {
  UnitContext c{};
  const int64_t at = row * o.scale_stride + (k >> o.group_shift);
  if (o.format == AnyFormat::kInt) {
    const int zero = o.zeros != nullptr ? o.zeros[at] : o.zeros32 != nullptr ? o.zeros32[at] : 0;
    c.offset = twice(static_cast<float>(1024 + (1 << (o.bits - 1)) + zero));
  }
  if (o.folds) c.fold = twice(any_scale(o, row, k));
  if (o.format == AnyFormat::kCodebook) c.codebook = o.codebooks + (at << o.bits);
  return c;
}

// A pair of codes, one in each half -> two f16.
__device__ inline uint32_t decode_pair(const AnyOperand& o, uint32_t pair, const UnitContext& c) {
  if (o.format == AnyFormat::kInt) {
    const uint32_t sign = 0x10001u << (o.bits - 1);
    return subtract<__half>((pair ^ sign) | 0x64006400u, c.offset);
  }
  const uint32_t sign = 0x10001u << (o.bits - 1);
  const uint32_t value = (pair & sign) << (16 - o.bits) | (pair & (sign - 0x10001u))
                                                              << (10 - o.man_bits);
  return bits_of(__hmul2(from_bits<__half2>(value), from_bits<__half2>(o.rescale)));
}

template <class T>
__device__ inline uint32_t from_halves(uint32_t pair);
template <>
__device__ inline uint32_t from_halves<__half>(uint32_t pair) {
  return pair;
}
template <>
__device__ inline uint32_t from_halves<__nv_bfloat16>(uint32_t pair) {
  const float2 v = __half22float2(from_bits<__half2>(pair));
  return bits_of(__floats2bfloat162_rn(v.x, v.y));
}

__device__ inline uint32_t codebook_pair(uint32_t pair, const __nv_bfloat16* codebook) {
  const auto* entries = reinterpret_cast<const uint16_t*>(codebook);
  return __ldg(entries + (pair & 0xffffu)) | uint32_t{__ldg(entries + (pair >> 16))} << 16;
}

// Eight elements in order, as four registers of two.
template <class T>
__device__ inline uint4 decode_any(const AnyOperand& o, const RawUnit& raw, const UnitContext& c) {
  uint32_t out[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = j < 2 ? raw.codes.x : raw.codes.y;
    const uint32_t pair = o.nibbles ? (raw.codes.x >> (4 * j)) & 0x000f000fu
                                    : __byte_perm(word, 0, j % 2 == 0 ? 0x4140 : 0x4342);
    if (o.format == AnyFormat::kCodebook) {
      out[j] = codebook_pair(pair, c.codebook);
      continue;
    }
    uint32_t halves = o.format == AnyFormat::kE4M3
                          ? decode_e4m3<__half>(word >> (j % 2 * 16) & 0xffffu)
                          : decode_pair(o, pair, c);
    if (o.folds) halves = bits_of(__hmul2(from_bits<__half2>(halves), from_bits<__half2>(c.fold)));
    out[j] = from_halves<T>(halves);
  }
  return {out[0], out[1], out[2], out[3]};
}

// factor: of row m times of column n.
__device__ inline void store_any(const AnyArgs& a, int m, int n, float sum, float factor) {
  float value = sum * factor;
  if (a.bias != nullptr) value += a.bias[n];
  if (a.residual != nullptr) {
    const int64_t at = m * a.residual_stride + n;
    value += a.run_is_f16 ? to_f32(static_cast<const __half*>(a.residual)[at])
                          : to_f32(static_cast<const __nv_bfloat16*>(a.residual)[at]);
  }
  const int64_t at = m * a.out_stride + n;
  if (a.out_f32) {
    static_cast<float*>(a.out)[at] = value;
  } else if (a.run_is_f16) {
    static_cast<__half*>(a.out)[at] = from_f32<__half>(value);
  } else {
    static_cast<__nv_bfloat16*>(a.out)[at] = from_f32<__nv_bfloat16>(value);
  }
}

}  // namespace mantissa::cuda
