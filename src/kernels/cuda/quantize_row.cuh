// A row of values -> codes and scales, bit for bit those of quant/quantize.h: the same float32
// divisions and roundings, in code that is compiled without contraction. Either a block reads the
// row again from memory (any shape), or its threads hold the row in registers.
#pragma once

#include <cfloat>

#include "kernels/activation.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_decode.cuh"

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

// Values as the run dtype (16 bits) holds them, 0 beyond the row.
template <int kUnits>
struct Held {
  uint4 v[kUnits];
};

template <class T>
__device__ void unpack(float (&to)[kUnitCols], const uint4& unit) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kUnitCols / 2; ++i) {
      const auto two = from_bits<typename Pair<T>::Type>(word_of(unit, i));
      to[2 * i] = to_f32(two.x);
      to[2 * i + 1] = to_f32(two.y);
    }
  }
}
template <class T>
__device__ uint32_t pack_pair(float x, float y) {
  if constexpr (std::is_same_v<T, __half>) {
    return bits_of(__floats2half2_rn(x, y));
  } else {
    return bits_of(__floats2bfloat162_rn(x, y));
  }
}
template <class T>
__device__ uint4 pack(const float (&v)[kUnitCols]) {
  return {pack_pair<T>(v[0], v[1]), pack_pair<T>(v[2], v[3]), pack_pair<T>(v[4], v[5]),
          pack_pair<T>(v[6], v[7])};
}

// What is made of these words is made anew after this, not kept from before.
__device__ inline void keep_packed(uint4& unit) {
  float words[4] = {__uint_as_float(unit.x), __uint_as_float(unit.y), __uint_as_float(unit.z),
                    __uint_as_float(unit.w)};
  ptx::fence_registers(words);
  unit = {__float_as_uint(words[0]), __float_as_uint(words[1]), __float_as_uint(words[2]),
          __float_as_uint(words[3])};
}
// visit(value, index) for each: a loop that stays one, for what is rare.
template <class T, class Visit>
__device__ void for_each_value(const uint4& unit, const Visit& visit) {
  uint64_t low = uint64_t{unit.y} << 32 | unit.x, high = uint64_t{unit.w} << 32 | unit.z;
#pragma unroll 1
  for (int i = 0; i < kUnitCols; ++i) {
    const auto bits = static_cast<uint16_t>(low);
    T value;
    memcpy(&value, &bits, sizeof bits);
    visit(to_f32(value), i);
    low = low >> 16 | high << 48;
    high >>= 16;
  }
}

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

// Of magnitudes, NaN the largest: their bits order as integers.
__device__ inline float larger(float a, float b) {
  return __uint_as_float(max(__float_as_uint(a), __float_as_uint(b)));
}
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
    for (int i = 0; i < blocks; ++i) x = larger(x, of_block[i]);
    return x;
  }
};

// The largest magnitude of a unit's values and of two packed ones; NaN where one is.
template <class T>
__device__ uint32_t amax_pair(const uint4& unit, uint32_t sofar) {
  using P = typename Pair<T>::Type;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto magnitudes = from_bits<P>(word_of(unit, i) & 0x7fff7fffu);
    sofar = bits_of(__hmax2_nan(from_bits<P>(sofar), magnitudes));
  }
  return sofar;
}
template <class T>
__device__ float amax_of_pair(uint32_t pair) {
  const auto larger_bits = static_cast<uint16_t>(max(pair >> 16, pair & 0xffffu));
  T value;
  memcpy(&value, &larger_bits, sizeof larger_bits);
  return to_f32(value);
}

// Of a row or group; finite: every value is, else the range is that of the others.
struct HeldRange {
  Range range;
  bool finite;
};
template <class T, int kUnits>
__device__ HeldRange range_of_row(const Held<kUnits>& held, CodeKind kind, const Team& team) {
  if (kind != CodeKind::kInt8Asymmetric) {
    uint32_t pair = 0;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) pair = amax_pair<T>(held.v[u], pair);
    const float amax = team.amax(amax_of_pair<T>(pair));
    if (amax <= FLT_MAX) return {{amax, 0, 0}, true};
  }
  Range r{0, 0, 0};
#pragma unroll
  for (int u = 0; u < kUnits; ++u)
    for_each_value<T>(held.v[u], [&](float x, int) { r = include(r, x); });
  return {{team.amax(r.amax), -team.amax(fabsf(r.min)), team.amax(r.max)}, false};
}
// Of the group that `lanes` lanes hold together.
template <class T>
__device__ HeldRange range_of_group(const uint4& unit, CodeKind kind, int lanes) {
  const float amax = amax_of_pair<T>(amax_pair<T>(unit, 0));
  if (kind != CodeKind::kInt8Asymmetric && __all_sync(0xffffffffu, amax <= FLT_MAX)) {
    float most = amax;
    for (int step = lanes / 2; step > 0; step /= 2)
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    return {{most, 0, 0}, true};
  }
  Range r{0, 0, 0};
  for_each_value<T>(unit, [&](float x, int) { r = include(r, x); });
  for (int step = lanes / 2; step > 0; step /= 2) {
    r = {fmaxf(r.amax, __shfl_xor_sync(0xffffffffu, r.amax, step)),
         fminf(r.min, __shfl_xor_sync(0xffffffffu, r.min, step)),
         fmaxf(r.max, __shfl_xor_sync(0xffffffffu, r.max, step))};
  }
  return {r, false};
}

__device__ inline void put_codes(const Form& form, int64_t row, int col,
                                 const float (&v)[kUnitCols], const Scale& s) {
  uint2 codes;
  codes.x = codes_of(form.kind, v[0], v[1], s) | codes_of(form.kind, v[2], v[3], s) << 16;
  codes.y = codes_of(form.kind, v[4], v[5], s) | codes_of(form.kind, v[6], v[7], s) << 16;
  *reinterpret_cast<uint2*>(form.codes + row * form.stride + col) = codes;
}

// The codes of finite values under a dynamic scale, in two multiplications each.
//
// e4m3: x / s as x r + x t, where r is 1 / s rounded towards zero and t what is missing: within
// 2^-45 of the quotient before its rounding to float32 (for s up to kFastScaleMax, where t is no
// denormal). Its code differs from that of the rounded quotient only if the quotient lies so near
// to the middle between a float32 T, where codes meet, and its neighbour: X 2^c = S N + e, |e| <=
// 8, with the significands X of x (at most 11 bits) and S of s (24 bits) and N = 2^20 t +- 1, 16 <=
// t < 32. Modulo 2^20 then S = 2^20 k + d, |d| <= 8, and modulo 2^37 d t +- k = 0 with 8 <= k <=
// 16: so t = k = 16, S = 2^24 - 1. No amax / 448 has that significand: it is that of A / 7, A of
// at most 11 bits. t >= 0 keeps the sign of 0.
//
// int8: |x| 127 / amax is at most 127 and a rounding, so nothing saturates; adding 1.5 2^23 rounds
// to an integer, whose low byte is the code.
constexpr float kFastScaleMax = 0x1p60f;
struct FastCodes {
  float factor, rest;
  CodeKind kind;

  __device__ static bool fits(CodeKind kind, const HeldRange& range, const Scale& s) {
    return range.finite && kind != CodeKind::kInt8Asymmetric && s.scale <= kFastScaleMax;
  }
  __device__ FastCodes(CodeKind kind, const Scale& s) : factor(s.factor), rest(0), kind(kind) {
    if (kind != CodeKind::kE4M3) return;
    factor = __frcp_rz(s.factor);
    rest = fmaf(-factor, s.factor, 1.0f) * factor;
  }
  // Four values.
  __device__ uint32_t word(float a, float b, float c, float d) const {
    if (kind == CodeKind::kE4M3) {
      const auto two = [&](float x, float y) {
        return uint32_t{__nv_cvt_float2_to_fp8x2(
            make_float2(fmaf(x, factor, x * rest), fmaf(y, factor, y * rest)), __NV_SATFINITE,
            __NV_E4M3)};
      };
      return two(a, b) | two(c, d) << 16;
    }
    const auto rounded = [&](float x) { return __float_as_uint(x * factor + 0x1.8p23f); };
    return __byte_perm(__byte_perm(rounded(a), rounded(b), 0x0040),
                       __byte_perm(rounded(c), rounded(d), 0x0040), 0x5410);
  }
  __device__ void put(const Form& form, int64_t row, int col, const float (&v)[kUnitCols]) const {
    *reinterpret_cast<uint2*>(form.codes + row * form.stride + col) =
        make_uint2(word(v[0], v[1], v[2], v[3]), word(v[4], v[5], v[6], v[7]));
  }
};

// fast: nullptr where values or scale are none for it.
template <class T>
__device__ void put_unit(const Form& form, int64_t row, int col, const uint4& unit, const Scale& s,
                         const FastCodes* fast) {
  if (fast != nullptr) {
    float v[kUnitCols];
    unpack<T>(v, unit);
    fast->put(form, row, col, v);
    return;
  }
  uint64_t codes = 0;
  for_each_value<T>(
      unit, [&](float x, int i) { codes |= uint64_t{code_of(form.kind, x, s)} << (8 * i); });
  *reinterpret_cast<uint64_t*>(form.codes + row * form.stride + col) = codes;
}

// Groups: each has its own scale.
template <class T, int kUnits>
__device__ void quantize_held_groups(const Held<kUnits>& held, int64_t row, int cols,
                                     const Form& form, const Team& team) {
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int col = team.col(u);
    const HeldRange range = range_of_group<T>(held.v[u], form.kind, form.group / kUnitCols);
    const Scale s = scale_of(form.kind, form.extent, range.range);
    if (col < cols && col % form.group == 0) form.put_scale(row, col / form.group, s);
    if (col >= cols) continue;
    const FastCodes codes(form.kind, s);
    if (FastCodes::fits(form.kind, range, s)) {
      put_unit<T>(form, row, col, held.v[u], s, &codes);
    } else {
      put_unit<T>(form, row, col, held.v[u], s, nullptr);
    }
  }
}

template <class T, int kUnits>
__device__ void quantize_held(Held<kUnits> held, int64_t row, int cols, const Form& form,
                              const Team& team) {
  // Unpacked where they are used: else the compiler keeps twice the registers from form to form.
#pragma unroll
  for (int u = 0; u < kUnits; ++u) keep_packed(held.v[u]);
  if (form.extent == Extent::kGroup && !form.given)
    return quantize_held_groups<T>(held, row, cols, form, team);
  Scale s{};
  bool fast = false;
  if (form.given) {
    s = form.given_scale();
  } else {
    const HeldRange range = range_of_row<T>(held, form.kind, team);
    s = scale_of(form.kind, form.extent, range.range);
    fast = FastCodes::fits(form.kind, range, s) && form.extent == Extent::kRow;
    if (threadIdx.x == 0 && team.rank == 0) form.put_scale(row, 0, s);
  }
  const FastCodes codes(form.kind, s);
  const auto put = [&](const FastCodes* by) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (team.col(u) < cols) put_unit<T>(form, row, team.col(u), held.v[u], s, by);
    }
  };
  if (fast) {
    put(&codes);
  } else {
    put(nullptr);
  }
}

}  // namespace mantissa::cuda
