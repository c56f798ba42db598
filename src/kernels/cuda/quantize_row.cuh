// A row of values -> codes and scales, bit for bit those of quant/quantize.h: the same float32
// divisions and roundings, in code that is compiled without contraction. Either a block reads the
// row again from memory (any shape), or its threads hold the row in registers.
#pragma once

#include <cfloat>

#include "kernels/activation.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda {

enum class CodeKind : uint8_t { kE4M3, kInt8, kInt8Asymmetric };

struct Range {
  float amax, min, max;
};
// NaN and infinities do not enter a range.
__device__ inline Range include(Range r, float x) {
  if (!(fabsf(x) <= FLT_MAX)) return r;
  return {fmaxf(r.amax, fabsf(x)), fminf(r.min, x), fmaxf(r.max, x)};
}

struct Scale {
  float scale, factor;  // codes are of x / factor, or x * factor
  int zero;
  bool divide;
  float reciprocal;  // of factor, rounded; where codes divide

  __device__ static Scale dividing(float by) { return {by, by, 0, true, 1.0f / by}; }
  __device__ static Scale multiplying(float scale, float by, int zero = 0) {
    return {scale, by, zero, false, 1.0f};
  }
  // x / factor as division rounds it: two corrections of the product with the reciprocal, exact
  // remainders (Markstein). Quotients that codes tell from 0 are far from where remainders
  // underflow; those that overflow need no correction, and 0 keeps its sign without.
  __device__ float units(float x) const {
    const float first = x * (divide ? reciprocal : factor);
    if (!divide || !(fabsf(first) <= FLT_MAX) || first == 0) return first;
    const float second = fmaf(fmaf(-first, factor, x), reciprocal, first);
    return fmaf(fmaf(-second, factor, x), reciprocal, second);
  }
};
constexpr float kFp8Floor = 1.0f / (448.0f * 512.0f);

// Whose range a scale covers, as formulas tell them apart.
enum class Extent : uint8_t { kRow, kGroup, kTensor };

// quant/formulas.h: fp8_vllm_row, fp8_vllm_group, fp8_vllm_tensor, int_activation.
__device__ inline Scale scale_of(CodeKind kind, Extent extent, const Range& r) {
  if (kind == CodeKind::kE4M3 && extent == Extent::kTensor) {
    const float exact = r.amax / 448.0f;
    const float s = exact >= FLT_MIN ? exact : kFp8Floor;
    return Scale::multiplying(s, 1.0f / s);
  }
  if (kind == CodeKind::kE4M3) {
    const float s = extent == Extent::kGroup ? fmaxf(r.amax, 1e-10f) / 448.0f
                                             : fmaxf(r.amax / 448.0f, kFp8Floor);
    return Scale::dividing(s);
  }
  if (kind == CodeKind::kInt8) {
    const float s = r.amax / 127.0f;
    if (s < FLT_MIN) return Scale::multiplying(FLT_EPSILON, 1.0f / FLT_EPSILON);
    return Scale::multiplying(s, 127.0f / r.amax);
  }
  float s = (r.max - r.min) / 255.0f;
  if (!(s <= FLT_MAX)) s = r.max / 255.0f - r.min / 255.0f;
  if (!(s >= FLT_MIN)) s = FLT_EPSILON;
  const float zero = fminf(fmaxf(-128.0f - r.min / s, -128.0f), 127.0f);
  return Scale::multiplying(s, 1.0f / s, __float2int_rn(zero));
}
// given_scale() of quant/recipe.cc, with the row of static activations.
__device__ inline Scale static_scale_of(CodeKind kind, float scale, int zero) {
  return kind == CodeKind::kInt8 ? Scale::dividing(scale)
                                 : Scale::multiplying(scale, 1.0f / scale, zero);
}

// Two values -> their codes, in the low 16 bits; NaN becomes the code of 0.
__device__ inline uint32_t codes_of(CodeKind kind, float x, float y, const Scale& s) {
  x = x == x ? s.units(x) : 0.0f;
  y = y == y ? s.units(y) : 0.0f;
  if (kind == CodeKind::kE4M3) {
    return __nv_cvt_float2_to_fp8x2(make_float2(x, y), __NV_SATFINITE, __NV_E4M3);
  }
  const auto code = [&](float units) {
    const float shifted = rintf(units) + static_cast<float>(s.zero);
    return static_cast<uint32_t>(__float2int_rn(fminf(fmaxf(shifted, -128.0f), 127.0f))) & 0xffu;
  };
  return code(x) | code(y) << 8;
}
__device__ inline uint8_t code_of(CodeKind kind, float x, const Scale& s) {
  return static_cast<uint8_t>(codes_of(kind, x, 0, s));
}

// One quantized form as kernels see it.
struct Form {
  CodeKind kind;
  Extent extent;   // kTensor: of a single row
  bool given;      // a static scale stands in scales[0] (and zero_points[0])
  int group;       // columns of one scale; the row's length where per token
  uint8_t* codes;  // [M, stride]
  int64_t stride;
  float* scales;  // [M, scale_stride]
  int64_t scale_stride;
  int32_t* zero_points;

  __device__ Scale given_scale() const {
    return static_scale_of(kind, scales[0], zero_points != nullptr ? zero_points[0] : 0);
  }
  __device__ void put_scale(int64_t row, int g, const Scale& s) const {
    scales[row * scale_stride + g] = s.scale;
    if (zero_points != nullptr) zero_points[row * scale_stride + g] = s.zero;
  }
};

struct Forms {
  Form form[Activation::kFormatsMax];
  int count;
};

// ---- from memory

// One row, by the whole block. x was written by this block, or before it ran.
template <class T>
__device__ void quantize_row(const T* x, int64_t row, int cols, const Form& form) {
  if (form.given) {
    const Scale s = form.given_scale();
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
      form.codes[row * form.stride + c] = code_of(form.kind, to_f32(x[c]), s);
    return;
  }
  const bool grouped = form.extent == Extent::kGroup;
  // Per token: the whole block on one row. Groups: a warp a group.
  const int lanes = grouped ? 32 : blockDim.x, lane = threadIdx.x % lanes;
  const int first = grouped ? threadIdx.x / 32 : 0, step = grouped ? blockDim.x / 32 : 1;
  for (int g = first; g * form.group < cols; g += step) {
    const int begin = g * form.group, end = min(cols, begin + form.group);
    Range r{0, 0, 0};
    for (int c = begin + lane; c < end; c += lanes) r = include(r, to_f32(x[c]));
    const auto fold = [&](float v) { return grouped ? warp_max(v) : block_max(v); };
    r = {fold(r.amax), -fold(-r.min), fold(r.max)};
    const Scale s = scale_of(form.kind, form.extent, r);
    if (lane == 0) form.put_scale(row, g, s);
    for (int c = begin + lane; c < end; c += lanes) {
      form.codes[row * form.stride + c] = code_of(form.kind, to_f32(x[c]), s);
    }
  }
}

// ---- from registers: units of 8 columns, one thread after the other, one block after the other

constexpr int kUnitCols = 8;
constexpr int kHeldGroupMax = 32 * kUnitCols;  // a group is within a warp

template <int kUnits>
struct Held {
  float v[kUnits][kUnitCols];  // as the run dtype holds them; 0 beyond the row
};

template <class T>
__device__ void load_unit(float (&to)[kUnitCols], const T* from) {
  constexpr int kParts = kUnitCols * static_cast<int>(sizeof(T)) / 16;
  alignas(16) T unit[kUnitCols];
#pragma unroll
  for (int i = 0; i < kParts; ++i)
    reinterpret_cast<uint4*>(unit)[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
  for (int i = 0; i < kUnitCols; ++i) to[i] = to_f32(unit[i]);
}
template <class T>
__device__ void store_unit(T* to, const float (&from)[kUnitCols]) {
  constexpr int kParts = kUnitCols * static_cast<int>(sizeof(T)) / 16;
  alignas(16) T unit[kUnitCols];
#pragma unroll
  for (int i = 0; i < kUnitCols; ++i) unit[i] = from_f32<T>(from[i]);
#pragma unroll
  for (int i = 0; i < kParts; ++i)
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(unit)[i];
}

// Of magnitudes: their bits order as integers.
__device__ inline float warp_amax(float x) {
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x)));
}
__device__ inline float block_amax(float x) {
  __shared__ float partial[32];
  x = warp_amax(x);
  __syncthreads();  // the last use of `partial` is over
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();  // every warp's value is there
  return warp_amax(threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0.0f);
}

// The blocks (a cluster) that share a row, and this one's part of it.
struct Team {
  int blocks, rank;

  __device__ int col(int unit) const {
    return static_cast<int>((unit * blocks + rank) * blockDim.x + threadIdx.x) * kUnitCols;
  }
  // Over the row.
  __device__ float amax(float x) const {
    x = block_amax(x);
    if (blocks == 1) return x;
    __shared__ float of_block[ptx::kClusterMax];
    ptx::cluster_sync();  // the others have read the last one
    if (threadIdx.x < blocks) ptx::store_cluster(&of_block[rank], x, threadIdx.x);
    ptx::cluster_sync();  // every block's value is there
    for (int i = 0; i < blocks; ++i) x = fmaxf(x, of_block[i]);
    return x;
  }
};

__device__ inline void put_codes(const Form& form, int64_t row, int col,
                                 const float (&v)[kUnitCols], const Scale& s) {
  uint2 codes;
  codes.x = codes_of(form.kind, v[0], v[1], s) | codes_of(form.kind, v[2], v[3], s) << 16;
  codes.y = codes_of(form.kind, v[4], v[5], s) | codes_of(form.kind, v[6], v[7], s) << 16;
  *reinterpret_cast<uint2*>(form.codes + row * form.stride + col) = codes;
}

// Of all values; where one is infinite, of the others alone.
template <int kUnits>
__device__ Range range_of_row(const Held<kUnits>& held, CodeKind kind, const Team& team) {
  Range r{0, 0, 0};
  if (kind != CodeKind::kInt8Asymmetric) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int i = 0; i < kUnitCols; ++i) r.amax = fmaxf(r.amax, fabsf(held.v[u][i]));
    }
    r.amax = team.amax(r.amax);
    if (r.amax <= FLT_MAX) return r;
    r.amax = 0;
  }
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i) r = include(r, held.v[u][i]);
  }
  return {team.amax(r.amax), -team.amax(fabsf(r.min)), team.amax(r.max)};
}

template <int kUnits>
__device__ void quantize_held(const Held<kUnits>& held, int64_t row, int cols, const Form& form,
                              const Team& team) {
  const bool grouped = form.extent == Extent::kGroup;
  Scale s{};
  if (form.given) {
    s = form.given_scale();
  } else if (!grouped) {
    s = scale_of(form.kind, form.extent, range_of_row(held, form.kind, team));
    if (threadIdx.x == 0 && team.rank == 0) form.put_scale(row, 0, s);
  }
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int col = team.col(u);
    if (grouped) {
      Range r{0, 0, 0};
#pragma unroll
      for (int i = 0; i < kUnitCols; ++i) r = include(r, held.v[u][i]);
      for (int step = form.group / kUnitCols / 2; step > 0; step /= 2) {
        r = {fmaxf(r.amax, __shfl_xor_sync(0xffffffffu, r.amax, step)),
             fminf(r.min, __shfl_xor_sync(0xffffffffu, r.min, step)),
             fmaxf(r.max, __shfl_xor_sync(0xffffffffu, r.max, step))};
      }
      s = scale_of(form.kind, form.extent, r);
      if (col < cols && col % form.group == 0) form.put_scale(row, col / form.group, s);
    }
    if (col < cols) put_codes(form, row, col, held.v[u], s);
  }
}

}  // namespace mantissa::cuda
