// Scale arithmetic in plain numbers: from a block's range to its scale, one formula for each family
// of formats and recipe. constexpr, so that devices compile the same text as the host and their
// quantizers are equal bit for bit. Not here: which spec uses which formula (recipe.cc), codes of
// values (encode_value.h).
#pragma once

#include <cstdint>
#include <limits>

#include "base/convert.h"

namespace mantissa {

// Of a block's finite values; min <= 0 <= max.
struct BlockRange {
  float amax = 0, min = 0, max = 0;
};

// value ~ (code - zero) * scale; `factor` is what values are multiplied with or divided by to get
// to code units.
struct BlockScale {
  float scale = 1, factor = 1;
  int32_t zero = 0;
};

// How a value gets to code units; "rounded" variants round that to the run dtype before the code.
enum class Apply : uint8_t { kDivide, kMultiply, kDivideRounded, kMultiplyRounded };

// The formulas below, by name.
enum class ScaleRule : uint8_t {
  kNone,  // the scale is given, or there is none (codebooks)
  kFp8VllmRow,
  kFp8VllmTensor,
  kFp8VllmGroup,
  kFp8AutoFp8,
  kFp8Torchao,
  kFp8Ct,
  kFp8ModelOpt,
  kIntWeight,
  kIntActivation,
  kInt8Torchao,
  kInt4Torchao,
  kIntCt,
  kIntModelOpt,
  kMxFloor,
  kMxEven,
  kMxEvenFp4,
  kMxRceil,
  kMxModelOpt,
  kNvfp4Torchao,
  kNvfp4ModelOpt,
  kNvfp4Ct
};
// The second level of two-level scales.
enum class GlobalRule : uint8_t { kNone, kNvfp4, kNvfp4Ct };

// Which encoder makes codes (encode_value.h).
enum class Encoder : uint8_t { kInt, kE4M3, kE5M2, kE4M3Fnuz, kE5M2Fnuz, kE2M1, kE2M3, kE3M2 };

struct RecipeRow {
  ScaleRule rule = ScaleRule::kNone;
  Apply apply = Apply::kDivide;
  bool ties_down = false;  // ModelOpt's MXFP4 cast: ties towards zero, zero as -0
  GlobalRule global = GlobalRule::kNone;
};

// What formulas and encoders look at besides the range: a spec in numbers. Made by recipe_input().
struct RecipeInput {
  RunDtype run_dtype = RunDtype::kF32;
  RunDtype scale = RunDtype::kF32;  // integers' scale format
  Encoder encoder = Encoder::kInt;
  bool asymmetric = false, given_global = false;
  int bits = 8, man_bits = 0;
  int lowest = 0, highest = 0;  // codes of integers
  float limit = 0;  // of floats: the largest value, but 224 of MI300's e4m3fnuz, as 240 "will cause
                    // accuracy issues" (vLLM)
  // Code units at or beyond which a finite value counts as saturated: a step past the limits.
  double saturated_above = 0, saturated_below = 0;
  float global_amax = 0;   // over the tensor; two-level scales only
  float global_scale = 1;  // its result
};

namespace formulas {

inline constexpr float kLeastNormal = std::numeric_limits<float>::min();
inline constexpr float kLargest = std::numeric_limits<float>::max();
inline constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

// ---- helpers

// By value: device code may not bind a reference to a constant of namespace scope, as std::max
// would.
constexpr float larger(float a, float b) {
  return a < b ? b : a;
}
constexpr float smaller(float a, float b) {
  return b < a ? b : a;
}
constexpr float clamped(float value, float lo, float hi) {
  return value < lo ? lo : hi < value ? hi : value;
}

// A scale that is zero or subnormal (a block of zeros, or nearly) becomes the recipe's least scale:
// its codes are then 0, and neither it nor its reciprocal is 0 or infinite.
constexpr float or_floor(float scale, float floor) {
  return scale >= kLeastNormal ? scale : floor;
}
// To a storage format, saturating: a scale is never infinite.
constexpr float round_scale(RunDtype format, float scale) {
  const float most = format == RunDtype::kF32   ? kLargest
                     : format == RunDtype::kF16 ? static_cast<float>(max_value(kF16))
                                                : static_cast<float>(max_value(kBF16));
  return smaller(round_to(format, scale), most);
}
constexpr BlockScale divide_by(float scale) {
  return {scale, scale, 0};
}
constexpr BlockScale multiply_by_reciprocal(float scale) {
  return {scale, 1.0f / scale, 0};
}

// To the nearest integer, ties to even, for |value| <= 2^22.
constexpr float round_to_int(float value) {
  return (value + 12582912.0f) - 12582912.0f;
}
constexpr int32_t to_int(float value, int lo, int hi) {
  const float inside = clamped(value, static_cast<float>(lo), static_cast<float>(hi));
  return static_cast<int32_t>(round_to_int(inside));
}
// (max - min) / steps, also where the difference overflows.
constexpr float range_step(const BlockRange& range, float steps) {
  const float step = (range.max - range.min) / steps;
  return step <= kLargest ? step : range.max / steps - range.min / steps;
}

// ---- FP8 (E4M3, E5M2): reference 2.1 to 2.5

constexpr float fp8_floor(const RecipeInput& in) {
  return 1.0f / (in.limit * 512.0f);
}
// scale = max(amax / 448, 1 / (448 * 512)); code of x / scale.
constexpr BlockScale fp8_vllm_row(const RecipeInput& in, const BlockRange& range) {
  return divide_by(larger(range.amax / in.limit, fp8_floor(in)));
}
// scale = amax / 448, where vLLM has no floor (a tensor of zeros is NaN there; ours keeps the row's
// floor); code of x * (1 / scale).
constexpr BlockScale fp8_vllm_tensor(const RecipeInput& in, const BlockRange& range) {
  return multiply_by_reciprocal(or_floor(range.amax / in.limit, fp8_floor(in)));
}
// scale = max(amax, 1e-10) / 448; code of x / scale. Groups of 128 and tiles of 128 x 128.
constexpr BlockScale fp8_vllm_group(const RecipeInput& in, const BlockRange& range) {
  return divide_by(larger(range.amax, 1e-10f) / in.limit);
}
// r = dtype(448 / max(amax, 1e-12)), scale = 1 / r; code of dtype(x * r).
constexpr BlockScale fp8_autofp8(const RecipeInput& in, const BlockRange& range) {
  const float amax = larger(range.amax, round_to(in.run_dtype, 1e-12f));
  const float r = round_scale(in.run_dtype, in.limit / amax);
  return {1.0f / r, r, 0};
}
// scale = dtype(amax / 448); code of x / scale. torchao has no floor (zeros are NaN there).
constexpr BlockScale fp8_torchao(const RecipeInput& in, const BlockRange& range) {
  const float scale = round_scale(in.run_dtype, range.amax / in.limit);
  return divide_by(or_floor(scale, fp8_floor(in)));
}
constexpr float run_dtype_epsilon(const RecipeInput& in) {
  return in.run_dtype == RunDtype::kF32   ? 0x1p-23f
         : in.run_dtype == RunDtype::kF16 ? 0x1p-10f
                                          : 0x1p-7f;
}
// scale = dtype(amax / 448), 0 becomes the dtype's epsilon; code of dtype(x / scale).
constexpr BlockScale fp8_ct(const RecipeInput& in, const BlockRange& range) {
  const float scale = round_scale(in.run_dtype, range.amax / in.limit);
  return divide_by(or_floor(scale, run_dtype_epsilon(in)));
}
// scale = amax / 448; code of x / scale. No floor is defined.
constexpr BlockScale fp8_modelopt(const RecipeInput& in, const BlockRange& range) {
  return divide_by(or_floor(range.amax / in.limit, fp8_floor(in)));
}

// ---- integers: reference 2.6 and 2.9

constexpr BlockScale with_zero_point(const RecipeInput& in, const BlockRange& range, float scale) {
  BlockScale out = divide_by(scale);
  out.zero = to_int(static_cast<float>(in.lowest) - round_to_int(range.min / scale), in.lowest,
                    in.highest);
  return out;
}
// Symmetric: scale = format(amax / 127) at 8 bits, format(amax / (2^(b-1) - 1/2)) below.
// Asymmetric: scale = format((max - min) / (2^b - 1)), zero = lowest - rni(min / scale).
// code = rni(x / scale) + zero with the rounded scale, clamped.
constexpr BlockScale int_weight(const RecipeInput& in, const BlockRange& range) {
  const auto steps = static_cast<float>(in.highest - in.lowest);
  const float half = in.bits == 8 ? 127.0f : steps / 2;
  const float exact = in.asymmetric ? range_step(range, steps) : range.amax / half;
  const float scale = or_floor(round_scale(in.scale, exact), kEpsilon);
  return in.asymmetric ? with_zero_point(in, range, scale) : divide_by(scale);
}
// vLLM, dynamic activations. Symmetric: scale = amax / 127, code = rni(x * (127 / amax)).
// Asymmetric: scale = (max - min) / 255, zero = rni(-128 - min / scale), code =
// rni(x * (1 / scale)) + zero; the range includes 0 (vLLM's does not: its constant rows are NaN).
constexpr BlockScale int_activation(const RecipeInput& in, const BlockRange& range) {
  const auto high = static_cast<float>(in.highest);
  if (!in.asymmetric) {
    const float scale = range.amax / high;
    if (scale < kLeastNormal) return multiply_by_reciprocal(kEpsilon);
    return {scale, high / range.amax, 0};
  }
  const auto steps = static_cast<float>(in.highest - in.lowest);
  const float scale = or_floor(range_step(range, steps), kEpsilon);
  BlockScale out = multiply_by_reciprocal(scale);
  out.zero = to_int(static_cast<float>(in.lowest) - range.min / scale, in.lowest, in.highest);
  return out;
}
// int8: scale = max(amax / 127.5 or (max - min) / 255, epsilon), code of x * (1 / scale).
constexpr BlockScale int8_torchao(const RecipeInput& in, const BlockRange& range) {
  const float exact = in.asymmetric ? range_step(range, 255.0f) : range.amax / 127.5f;
  const float scale = larger(exact, kEpsilon);
  BlockScale out = multiply_by_reciprocal(scale);
  if (in.asymmetric) out.zero = with_zero_point(in, range, scale).zero;
  return out;
}
// int4 beside FP8 activations: scale = format(amax / 8); code of x / scale.
constexpr BlockScale int4_torchao(const RecipeInput& in, const BlockRange& range) {
  return divide_by(or_floor(round_scale(in.scale, range.amax / 8.0f), kEpsilon));
}
// In the run dtype throughout: scale = amax / ((2^b - 1) / 2) or (max - min) / (2^b - 1), 0 becomes
// the dtype's epsilon; zero = rni(clamp(lowest - min / scale)); code = rni(clamp(x / scale +
// zero)).
constexpr BlockScale int_ct(const RecipeInput& in, const BlockRange& range) {
  const auto steps = static_cast<float>(in.highest - in.lowest);
  const float exact = in.asymmetric ? round_scale(in.run_dtype, range.max - range.min) / steps
                                    : range.amax / (steps / 2);
  const float rounded = round_scale(in.scale, round_scale(in.run_dtype, exact));
  BlockScale out = divide_by(or_floor(rounded, run_dtype_epsilon(in)));
  if (!in.asymmetric) return out;
  const float zeros = round_to(in.run_dtype, range.min / out.scale);
  out.zero =
      to_int(round_to(in.run_dtype, static_cast<float>(in.lowest) - zeros), in.lowest, in.highest);
  return out;
}
// scale = format(amax / (2^(b-1) - 1)); code of x / scale.
constexpr BlockScale int_modelopt(const RecipeInput& in, const BlockRange& range) {
  const auto high = static_cast<float>(in.highest);
  return divide_by(or_floor(round_scale(in.scale, range.amax / high), kEpsilon));
}

// ---- MX: reference 2.7. scale = 2^e, e in [-127, 127]; code of x * 2^-e, saturating.

// floor(log2(value)) from its exponent bits: -127 for zero and subnormals, 128 for infinity.
constexpr int floor_log2(float value) {
  return static_cast<int>(__builtin_bit_cast(uint32_t, value) >> 23) - 127;
}
constexpr BlockScale power_scale(int exponent) {
  const int e = exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
  return {static_cast<float>(pow2(e)), static_cast<float>(pow2(-e)), 0};
}
// e = floor(log2(amax)) - emax.
constexpr BlockScale mx_floor(const RecipeInput& in, const BlockRange& range) {
  return power_scale(floor_log2(range.amax) - floor_log2(in.limit));
}
// As floor, after rounding amax up at half a step of a mantissa of man_bits. (compressed-tensors:
// the mantissa of FP4, whatever the element.)
constexpr BlockScale mx_even(const RecipeInput& in, const BlockRange& range, int man_bits) {
  const uint32_t half = 1u << (23 - man_bits - 1);
  const float rounded = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, range.amax) + half);
  return power_scale(floor_log2(rounded) - floor_log2(in.limit));
}
// e = ceil(log2(value)), of subnormals: -126 above 2^-127, else -127.
constexpr int ceil_log2(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t field = bits >> 23, mantissa = bits & 0x7fffffu;
  const bool up = field == 0 ? mantissa > 0x400000u : mantissa > 0;
  return static_cast<int>(field + (up ? 1 : 0)) - 127;
}
// 2^e is amax * (1 / max) rounded up.
constexpr BlockScale mx_rceil(const RecipeInput& in, const BlockRange& range) {
  return power_scale(ceil_log2(range.amax * (1.0f / in.limit)));
}
// e = ceil(log2(amax / 6)).
constexpr BlockScale mx_modelopt(const RecipeInput& in, const BlockRange& range) {
  return power_scale(ceil_log2(range.amax / in.limit));
}

// ---- NVFP4: reference 2.8. value = code * block scale (E4M3) * global scale (float32).

inline constexpr float kNvfp4Range = 448.0f * 6.0f;
// Below, 1 / global / block scale would overflow; such tensors are zeros.
inline constexpr float kNvfp4Least = 0x1p-120f;

constexpr float e4m3(float value) {
  return decode_fast<kE4M3>(encode_fast<kE4M3>(value));
}
// global = amax / (448 * 6).
constexpr float nvfp4_global(const RecipeInput& in) {
  const float global = in.global_amax / kNvfp4Range;
  return global >= kNvfp4Least ? global : 1.0f;
}
// block = e4m3(clamp(amax / 6 / global, 2^-6, 448)); code of x * (1 / global / block).
constexpr BlockScale nvfp4_torchao(const RecipeInput& in, const BlockRange& range) {
  const float block = e4m3(clamped(range.amax / 6.0f / in.global_scale, 0x1p-6f, 448.0f));
  return {block, 1.0f / in.global_scale / block, 0};
}
// block = e4m3(amax / (6 global)), 0 becomes 1; code of x / (block global).
constexpr BlockScale nvfp4_modelopt(const RecipeInput& in, const BlockRange& range) {
  const float exact = e4m3(range.amax / (6.0f * in.global_scale));
  const float block = exact > 0 ? exact : 1.0f;
  return {block, block * in.global_scale, 0};
}
// Divisor G = 448 * 6 / amax, not finite becomes 1; global = 1 / G. (A given global scale: G is its
// reciprocal.)
constexpr float nvfp4_ct_divisor(const RecipeInput& in) {
  if (in.given_global) return 1.0f / in.global_scale;
  const float divisor = kNvfp4Range / in.global_amax;
  return divisor <= 1.0f / kNvfp4Least ? divisor : 1.0f;
}
// block = e4m3(G dtype(amax / 6)), 0 becomes 1/8; code of x / (block / G), in float32 as G is
// (compressed-tensors 0.20; older notes round the quotient to the dtype).
constexpr BlockScale nvfp4_ct(const RecipeInput& in, const BlockRange& range) {
  const float divisor = nvfp4_ct_divisor(in);
  const float exact = e4m3(divisor * round_to(in.run_dtype, range.amax / 6.0f));
  const float block = exact > 0 ? exact : 0.125f;
  return {block, block / divisor, 0};
}

}  // namespace formulas

constexpr BlockScale block_scale(ScaleRule rule, const RecipeInput& in, const BlockRange& range) {
  using namespace formulas;
  switch (rule) {
    case ScaleRule::kNone:
      break;
    case ScaleRule::kFp8VllmRow:
      return fp8_vllm_row(in, range);
    case ScaleRule::kFp8VllmTensor:
      return fp8_vllm_tensor(in, range);
    case ScaleRule::kFp8VllmGroup:
      return fp8_vllm_group(in, range);
    case ScaleRule::kFp8AutoFp8:
      return fp8_autofp8(in, range);
    case ScaleRule::kFp8Torchao:
      return fp8_torchao(in, range);
    case ScaleRule::kFp8Ct:
      return fp8_ct(in, range);
    case ScaleRule::kFp8ModelOpt:
      return fp8_modelopt(in, range);
    case ScaleRule::kIntWeight:
      return int_weight(in, range);
    case ScaleRule::kIntActivation:
      return int_activation(in, range);
    case ScaleRule::kInt8Torchao:
      return int8_torchao(in, range);
    case ScaleRule::kInt4Torchao:
      return int4_torchao(in, range);
    case ScaleRule::kIntCt:
      return int_ct(in, range);
    case ScaleRule::kIntModelOpt:
      return int_modelopt(in, range);
    case ScaleRule::kMxFloor:
      return mx_floor(in, range);
    case ScaleRule::kMxEven:
      return mx_even(in, range, in.man_bits);
    case ScaleRule::kMxEvenFp4:
      return mx_even(in, range, 1);
    case ScaleRule::kMxRceil:
      return mx_rceil(in, range);
    case ScaleRule::kMxModelOpt:
      return mx_modelopt(in, range);
    case ScaleRule::kNvfp4Torchao:
      return nvfp4_torchao(in, range);
    case ScaleRule::kNvfp4ModelOpt:
      return nvfp4_modelopt(in, range);
    case ScaleRule::kNvfp4Ct:
      return nvfp4_ct(in, range);
  }
  return {};
}

// The second level from in.global_amax; 1 where the recipe has one level.
constexpr float global_scale(GlobalRule rule, const RecipeInput& in) {
  if (rule == GlobalRule::kNvfp4) return formulas::nvfp4_global(in);
  return rule == GlobalRule::kNvfp4Ct ? 1.0f / formulas::nvfp4_ct_divisor(in) : 1.0f;
}

}  // namespace mantissa
