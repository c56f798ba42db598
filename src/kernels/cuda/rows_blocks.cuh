// Quantizing a row in groups along K (MX, NVFP4): a thread takes 8 columns, the threads
// of a group share their range. Formulas and encoders are the host's (quant/formulas.h,
// encode_value.h), compiled without contraction, so codes and scales are equal bit for bit.
#pragma once

#include "kernels/activation.h"
#include "kernels/cuda/device_types.cuh"
#include "quant/encode_value.h"

namespace mantissa::cuda {

constexpr int kGroupChunk = 8;  // columns of a thread

// One quantized form as kernels see it. Groups: 8 times a power of two, at most 256.
struct GroupForm {
  RecipeInput in;
  RecipeRow recipe;
  int group;       // columns of a scale
  uint8_t* codes;  // [M, stride]
  int64_t stride;
  float* scales;  // [M, scale_stride]
  int64_t scale_stride;
  const float* global;  // [1], of two-level scales; nullptr: one level
  const float* amax;    // [1], what a dynamic global scale was made from; else nullptr
};

// The n values from x on, zeros beyond and for NaN.
template <class T>
__device__ void load_group_chunk(const T* x, int n, float (&out)[kGroupChunk]) {
  if (sizeof(T) == 2 && n == kGroupChunk && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    alignas(16) T raw[kGroupChunk];
    *reinterpret_cast<uint4*>(raw) = *reinterpret_cast<const uint4*>(x);
#pragma unroll
    for (int i = 0; i < kGroupChunk; ++i) out[i] = to_f32(raw[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kGroupChunk; ++i) out[i] = i < n ? to_f32(x[i]) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kGroupChunk; ++i) out[i] = out[i] == out[i] ? out[i] : 0.0f;
}

__device__ inline uint2 group_codes(const GroupForm& f, const BlockScale& scale,
                                    const float (&v)[kGroupChunk]) {
  uint32_t word[2] = {};
  const bool divide = divides(f.recipe.apply);
  const auto put = [&](int i, uint8_t code) { word[i / 4] |= uint32_t{code} << (i % 4 * 8); };
  if (f.recipe.ties_down) {
#pragma unroll
    for (int i = 0; i < kGroupChunk; ++i) put(i, encode_ties_down(v[i] * scale.factor));
  } else {
    with_encoder(f.in, scale.zero, [&](auto encode) {
#pragma unroll
      for (int i = 0; i < kGroupChunk; ++i) put(i, encode(to_units(divide, v[i], scale.factor)));
    });
  }
  return {word[0], word[1]};
}

// One row, by the whole block (a multiple of 32 threads). x was written by this block, or before
// it ran.
template <class T>
__device__ void quantize_groups(const T* x, int64_t row, int cols, const GroupForm& f) {
  const int lanes = f.group / kGroupChunk;
  RecipeInput in = f.in;
  if (f.global != nullptr) in.global_scale = *f.global;
  if (f.amax != nullptr) in.global_amax = *f.amax;
  for (int base = 0; base < cols; base += static_cast<int>(blockDim.x) * kGroupChunk) {
    const int c = base + static_cast<int>(threadIdx.x) * kGroupChunk;
    const int n = max(0, min(kGroupChunk, cols - c));
    float v[kGroupChunk];
    load_group_chunk(x + c, n, v);
    BlockRange range;
#pragma unroll
    for (int i = 0; i < kGroupChunk; ++i) {
      if (fabsf(v[i]) <= formulas::kLargest) range.amax = fmaxf(range.amax, fabsf(v[i]));
    }
    for (int step = lanes / 2; step > 0; step /= 2)
      range.amax = fmaxf(range.amax, __shfl_xor_sync(0xffffffffu, range.amax, step));
    if (n == 0) continue;
    const BlockScale scale = block_scale(f.recipe.rule, in, range);
    if (c % f.group == 0) f.scales[row * f.scale_stride + c / f.group] = scale.scale;
    const uint2 codes = group_codes(f, scale, v);
    uint8_t* to = f.codes + row * f.stride + c;
    if (n == kGroupChunk && reinterpret_cast<uintptr_t>(to) % 8 == 0) {
      *reinterpret_cast<uint2*>(to) = codes;
    } else {
      for (int i = 0; i < n; ++i)
        to[i] = static_cast<uint8_t>((i < 4 ? codes.x : codes.y) >> (i % 4 * 8));
    }
  }
}

}  // namespace mantissa::cuda
