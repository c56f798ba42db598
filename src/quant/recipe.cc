#include "quant/recipe.h"

#include <algorithm>
#include <cmath>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

constexpr float kLeastNormal = std::numeric_limits<float>::min();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

// ---- helpers

// A scale that is zero or subnormal (a block of zeros, or nearly) becomes the recipe's least scale:
// its codes are then 0, and neither it nor its reciprocal is 0 or infinite.
float or_floor(float scale, float floor) {
  return scale >= kLeastNormal ? scale : floor;
}
// To a storage format, saturating: a scale is never infinite.
float round_scale(const Elem& format, float scale) {
  if (format == kF32) return std::min(scale, kLargest);
  return static_cast<float>(decode(format, encode(format, scale)));
}
BlockScale divide_by(float scale) {
  return {scale, scale, 0};
}
BlockScale multiply_by_reciprocal(float scale) {
  return {scale, 1.0f / scale, 0};
}

int lowest(const Elem& elem) {
  return static_cast<int>(min_value(elem));
}
int highest(const Elem& elem) {
  return static_cast<int>(max_value(elem));
}
int32_t to_int(float value, int lo, int hi) {
  const float clamped = std::clamp(value, static_cast<float>(lo), static_cast<float>(hi));
  return static_cast<int32_t>(std::nearbyint(clamped));
}
// (max - min) / steps, also where the difference overflows.
float range_step(const BlockRange& range, float steps) {
  const float step = (range.max - range.min) / steps;
  return step <= kLargest ? step : range.max / steps - range.min / steps;
}

// ---- FP8 (E4M3, E5M2): reference 2.1 to 2.5

// MI300's e4m3fnuz: 224, as 240 "will cause accuracy issues" (vLLM).
float fp8_limit(const Elem& elem) {
  return elem == kE4M3Fnuz ? 224.0f : static_cast<float>(max_value(elem));
}
float fp8_floor(const RecipeInput& in) {
  return 1.0f / (fp8_limit(*in.spec.elem) * 512.0f);
}
// scale = max(amax / 448, 1 / (448 * 512)); code of x / scale.
BlockScale fp8_vllm_row(const RecipeInput& in, const BlockRange& range) {
  return divide_by(std::max(range.amax / fp8_limit(*in.spec.elem), fp8_floor(in)));
}
// scale = amax / 448, where vLLM has no floor (a tensor of zeros is NaN there; ours keeps the row's
// floor); code of x * (1 / scale).
BlockScale fp8_vllm_tensor(const RecipeInput& in, const BlockRange& range) {
  return multiply_by_reciprocal(or_floor(range.amax / fp8_limit(*in.spec.elem), fp8_floor(in)));
}
// scale = max(amax, 1e-10) / 448; code of x / scale. Groups of 128 and tiles of 128 x 128.
BlockScale fp8_vllm_group(const RecipeInput& in, const BlockRange& range) {
  return divide_by(std::max(range.amax, 1e-10f) / fp8_limit(*in.spec.elem));
}
// r = dtype(448 / max(amax, 1e-12)), scale = 1 / r; code of dtype(x * r).
BlockScale fp8_autofp8(const RecipeInput& in, const BlockRange& range) {
  const Elem& dtype = *in.run_dtype;
  const float amax = std::max(range.amax, round_to(dtype, 1e-12f));
  const float r = round_scale(dtype, fp8_limit(*in.spec.elem) / amax);
  return {1.0f / r, r, 0};
}
// scale = dtype(amax / 448); code of x / scale. torchao has no floor (zeros are NaN there).
BlockScale fp8_torchao(const RecipeInput& in, const BlockRange& range) {
  const float scale = round_scale(*in.run_dtype, range.amax / fp8_limit(*in.spec.elem));
  return divide_by(or_floor(scale, fp8_floor(in)));
}
float run_dtype_epsilon(const RecipeInput& in) {
  return static_cast<float>(pow2(-in.run_dtype->man_bits));
}
// scale = dtype(amax / 448), 0 becomes the dtype's epsilon; code of dtype(x / scale).
BlockScale fp8_ct(const RecipeInput& in, const BlockRange& range) {
  const float scale = round_scale(*in.run_dtype, range.amax / fp8_limit(*in.spec.elem));
  return divide_by(or_floor(scale, run_dtype_epsilon(in)));
}
// scale = amax / 448; code of x / scale. No floor is defined.
BlockScale fp8_modelopt(const RecipeInput& in, const BlockRange& range) {
  return divide_by(or_floor(range.amax / fp8_limit(*in.spec.elem), fp8_floor(in)));
}

// ---- integers: reference 2.6 and 2.9

BlockScale with_zero_point(const RecipeInput& in, const BlockRange& range, float scale) {
  const int lo = lowest(*in.spec.elem), hi = highest(*in.spec.elem);
  BlockScale out = divide_by(scale);
  out.zero = to_int(static_cast<float>(lo) - std::nearbyint(range.min / scale), lo, hi);
  return out;
}
// Symmetric: scale = format(amax / 127) at 8 bits, format(amax / (2^(b-1) - 1/2)) below.
// Asymmetric: scale = format((max - min) / (2^b - 1)), zero = lowest - rni(min / scale).
// code = rni(x / scale) + zero with the rounded scale, clamped.
BlockScale int_weight(const RecipeInput& in, const BlockRange& range) {
  const Elem& elem = *in.spec.elem;
  const auto steps = static_cast<float>(highest(elem) - lowest(elem));
  const float half = elem.bits() == 8 ? 127.0f : steps / 2;
  const float exact = in.spec.asymmetric ? range_step(range, steps) : range.amax / half;
  const float scale = or_floor(round_scale(*in.spec.scale, exact), kEpsilon);
  return in.spec.asymmetric ? with_zero_point(in, range, scale) : divide_by(scale);
}
// vLLM, dynamic activations. Symmetric: scale = amax / 127, code = rni(x * (127 / amax)).
// Asymmetric: scale = (max - min) / 255, zero = rni(-128 - min / scale), code =
// rni(x * (1 / scale)) + zero; the range includes 0 (vLLM's does not: its constant rows are NaN).
BlockScale int_activation(const RecipeInput& in, const BlockRange& range) {
  const Elem& elem = *in.spec.elem;
  const auto high = static_cast<float>(highest(elem));
  if (!in.spec.asymmetric) {
    const float scale = range.amax / high;
    if (scale < kLeastNormal) return multiply_by_reciprocal(kEpsilon);
    return {scale, high / range.amax, 0};
  }
  const int lo = lowest(elem), hi = highest(elem);
  const float scale = or_floor(range_step(range, static_cast<float>(hi - lo)), kEpsilon);
  BlockScale out = multiply_by_reciprocal(scale);
  out.zero = to_int(static_cast<float>(lo) - range.min / scale, lo, hi);
  return out;
}
// int8: scale = max(amax / 127.5 or (max - min) / 255, epsilon), code of x * (1 / scale).
BlockScale int8_torchao(const RecipeInput& in, const BlockRange& range) {
  const float exact = in.spec.asymmetric ? range_step(range, 255.0f) : range.amax / 127.5f;
  const float scale = std::max(exact, kEpsilon);
  BlockScale out = multiply_by_reciprocal(scale);
  if (in.spec.asymmetric) out.zero = with_zero_point(in, range, scale).zero;
  return out;
}
// int4 beside FP8 activations: scale = format(amax / 8); code of x / scale.
BlockScale int4_torchao(const RecipeInput& in, const BlockRange& range) {
  return divide_by(or_floor(round_scale(*in.spec.scale, range.amax / 8.0f), kEpsilon));
}
// In the run dtype throughout: scale = amax / ((2^b - 1) / 2) or (max - min) / (2^b - 1), 0 becomes
// the dtype's epsilon; zero = rni(clamp(lowest - min / scale)); code = rni(clamp(x / scale +
// zero)).
BlockScale int_ct(const RecipeInput& in, const BlockRange& range) {
  const Elem& elem = *in.spec.elem;
  const Elem& dtype = *in.run_dtype;
  const int lo = lowest(elem), hi = highest(elem);
  const auto steps = static_cast<float>(hi - lo);
  const float exact = in.spec.asymmetric ? round_scale(dtype, range.max - range.min) / steps
                                         : range.amax / (steps / 2);
  const float rounded = round_scale(*in.spec.scale, round_scale(dtype, exact));
  BlockScale out = divide_by(or_floor(rounded, run_dtype_epsilon(in)));
  if (!in.spec.asymmetric) return out;
  const float zeros = round_to(dtype, range.min / out.scale);
  out.zero = to_int(round_to(dtype, static_cast<float>(lo) - zeros), lo, hi);
  return out;
}
// scale = format(amax / (2^(b-1) - 1)); code of x / scale.
BlockScale int_modelopt(const RecipeInput& in, const BlockRange& range) {
  const auto high = static_cast<float>(highest(*in.spec.elem));
  return divide_by(or_floor(round_scale(*in.spec.scale, range.amax / high), kEpsilon));
}

// ---- MX: reference 2.7. scale = 2^e, e in [-127, 127]; code of x * 2^-e, saturating.

// floor(log2(value)) from its exponent bits: -127 for zero and subnormals, 128 for infinity.
int floor_log2(float value) {
  return static_cast<int>(__builtin_bit_cast(uint32_t, value) >> 23) - 127;
}
int exponent_max(const Elem& elem) {
  return floor_log2(static_cast<float>(max_value(elem)));
}
BlockScale power_scale(int exponent) {
  const int e = std::clamp(exponent, -127, 127);
  return {static_cast<float>(pow2(e)), static_cast<float>(pow2(-e)), 0};
}
// e = floor(log2(amax)) - emax.
BlockScale mx_floor(const RecipeInput& in, const BlockRange& range) {
  return power_scale(floor_log2(range.amax) - exponent_max(*in.spec.elem));
}
// As floor, after rounding amax up at half a step of a mantissa of man_bits.
BlockScale mx_even(const RecipeInput& in, const BlockRange& range, int man_bits) {
  const uint32_t half = 1u << (23 - man_bits - 1);
  const float rounded = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, range.amax) + half);
  return power_scale(floor_log2(rounded) - exponent_max(*in.spec.elem));
}
BlockScale mx_even_elem(const RecipeInput& in, const BlockRange& range) {
  return mx_even(in, range, in.spec.elem->man_bits);
}
// compressed-tensors: the mantissa of FP4, whatever the element.
BlockScale mx_even_fp4(const RecipeInput& in, const BlockRange& range) {
  return mx_even(in, range, kE2M1.man_bits);
}
// e = ceil(log2(value)), of subnormals: -126 above 2^-127, else -127.
int ceil_log2(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t field = bits >> 23, mantissa = bits & 0x7fffffu;
  const bool up = field == 0 ? mantissa > 0x400000u : mantissa > 0;
  return static_cast<int>(field + (up ? 1 : 0)) - 127;
}
// 2^e is amax * (1 / max) rounded up.
BlockScale mx_rceil(const RecipeInput& in, const BlockRange& range) {
  const float reciprocal = 1.0f / static_cast<float>(max_value(*in.spec.elem));
  return power_scale(ceil_log2(range.amax * reciprocal));
}
// e = ceil(log2(amax / 6)).
BlockScale mx_modelopt(const RecipeInput& in, const BlockRange& range) {
  return power_scale(ceil_log2(range.amax / static_cast<float>(max_value(*in.spec.elem))));
}

// ---- NVFP4: reference 2.8. value = code * block scale (E4M3) * global scale (float32).

constexpr float kNvfp4Range = 448.0f * 6.0f;
// Below, 1 / global / block scale would overflow; such tensors are zeros.
constexpr float kNvfp4Least = 0x1p-120f;

float e4m3(float value) {
  return static_cast<float>(decode(kE4M3, encode_fast<kE4M3>(value)));
}
// global = amax / (448 * 6).
float nvfp4_global(const RecipeInput& in) {
  const float global = in.global_amax / kNvfp4Range;
  return global >= kNvfp4Least ? global : 1.0f;
}
// block = e4m3(clamp(amax / 6 / global, 2^-6, 448)); code of x * (1 / global / block).
BlockScale nvfp4_torchao(const RecipeInput& in, const BlockRange& range) {
  const float block = e4m3(std::clamp(range.amax / 6.0f / in.global_scale, 0x1p-6f, 448.0f));
  return {block, 1.0f / in.global_scale / block, 0};
}
// block = e4m3(amax / (6 global)), 0 becomes 1; code of x / (block global).
BlockScale nvfp4_modelopt(const RecipeInput& in, const BlockRange& range) {
  const float exact = e4m3(range.amax / (6.0f * in.global_scale));
  const float block = exact > 0 ? exact : 1.0f;
  return {block, block * in.global_scale, 0};
}
// Divisor G = 448 * 6 / amax, not finite becomes 1; global = 1 / G. (A given global scale: G is its
// reciprocal.)
float nvfp4_ct_divisor(const RecipeInput& in) {
  if (in.spec.when == When::kStatic) return 1.0f / in.global_scale;
  const float divisor = kNvfp4Range / in.global_amax;
  return divisor <= 1.0f / kNvfp4Least ? divisor : 1.0f;
}
float nvfp4_ct_global(const RecipeInput& in) {
  return 1.0f / nvfp4_ct_divisor(in);
}
// block = e4m3(G dtype(amax / 6)), 0 becomes 1/8; code of x / (block / G), in float32 as G is
// (compressed-tensors 0.20; older notes round the quotient to the dtype).
BlockScale nvfp4_ct(const RecipeInput& in, const BlockRange& range) {
  const float divisor = nvfp4_ct_divisor(in);
  const float exact = e4m3(divisor * round_to(*in.run_dtype, range.amax / 6.0f));
  const float block = exact > 0 ? exact : 0.125f;
  return {block, block / divisor, 0};
}

// ---- the table

enum class Family : uint8_t { kFp8, kInt, kMx, kNvfp4, kCodebook };
enum class Scope : uint8_t { kAny, kTensor, kRow, kGroup };  // kGroup: groups and tiles
enum class Side : uint8_t { kAny, kWeight, kDynamic, kStatic };
enum class Zero : uint8_t { kAny, kSymmetric, kAsymmetric };

Family family_of(const Spec& spec) {
  if (spec.codebook) return Family::kCodebook;
  if (spec.global_scale) return Family::kNvfp4;
  if (*spec.scale == kE8M0) return Family::kMx;
  return spec.elem->is_float() ? Family::kFp8 : Family::kInt;
}
Scope scope_of(const Spec& spec) {
  if (spec.block == per_tensor()) return Scope::kTensor;
  return spec.block == per_row() ? Scope::kRow : Scope::kGroup;
}
Side side_of(const Spec& spec) {
  if (spec.when == When::kAtLoad) return Side::kWeight;
  return spec.when == When::kStatic ? Side::kStatic : Side::kDynamic;
}

struct KeyedRow {
  Family family;
  Recipe recipe;
  Scope scope;
  Side side;
  Zero zero;
  int bits_least, bits_most;  // of the element
  RecipeRow row;
};

using F = Family;
using R = Recipe;
using A = Apply;
// Static rows come first: their scale is given, only `apply` matters (reference 2.1, 2.6).
// clang-format off
constexpr KeyedRow kRecipes[] = {
    {F::kFp8, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kAny,        8, 8, {nullptr, A::kMultiply}},
    {F::kInt, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kSymmetric,  1, 8, {nullptr, A::kDivide}},
    {F::kInt, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kAsymmetric, 1, 8, {nullptr, A::kMultiply}},
    {F::kFp8, R::kVllm,              Scope::kRow,    Side::kAny,     Zero::kSymmetric, 8, 8, {fp8_vllm_row,    A::kDivide}},
    {F::kFp8, R::kVllm,              Scope::kTensor, Side::kAny,     Zero::kSymmetric, 8, 8, {fp8_vllm_tensor, A::kMultiply}},
    {F::kFp8, R::kVllm,              Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 8, 8, {fp8_vllm_group,  A::kDivide}},
    {F::kFp8, R::kAutoFp8,           Scope::kTensor, Side::kWeight,  Zero::kSymmetric, 8, 8, {fp8_autofp8,     A::kMultiplyRounded}},
    {F::kFp8, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {fp8_torchao,     A::kDivide}},
    {F::kFp8, R::kCompressedTensors, Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {fp8_ct,          A::kDivideRounded}},
    {F::kFp8, R::kModelOpt,          Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {fp8_modelopt,    A::kDivide}},
    {F::kInt, R::kVllm,              Scope::kAny,    Side::kWeight,  Zero::kAny,       1, 8, {int_weight,      A::kDivide}},
    {F::kInt, R::kVllm,              Scope::kAny,    Side::kDynamic, Zero::kAny,       1, 8, {int_activation,  A::kMultiply}},
    {F::kInt, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 1, 4, {int4_torchao,    A::kDivide}},
    {F::kInt, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kAny,       8, 8, {int8_torchao,    A::kMultiply}},
    {F::kInt, R::kCompressedTensors, Scope::kAny,    Side::kWeight,  Zero::kAny,       1, 8, {int_ct,          A::kDivideRounded}},
    {F::kInt, R::kModelOpt,          Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 1, 8, {int_modelopt,    A::kDivide}},
    {F::kMx,  R::kFloor,             Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {mx_floor,        A::kMultiply}},
    {F::kMx,  R::kRceil,             Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {mx_rceil,        A::kMultiply}},
    {F::kMx,  R::kEven,              Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {mx_even_elem,    A::kMultiply}},
    {F::kMx,  R::kCompressedTensors, Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {mx_even_fp4,     A::kMultiply}},
    {F::kMx,  R::kModelOpt,          Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 4, {mx_modelopt,     A::kMultiply, true}},
    {F::kNvfp4, R::kTorchao,           Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {nvfp4_torchao,  A::kMultiply,      false, nvfp4_global}},
    {F::kNvfp4, R::kModelOpt,          Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {nvfp4_modelopt, A::kDivide,        false, nvfp4_global}},
    {F::kNvfp4, R::kCompressedTensors, Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {nvfp4_ct,       A::kDivide,        false, nvfp4_ct_global}},
    {F::kCodebook, R::kVllm,           Scope::kGroup, Side::kWeight, Zero::kSymmetric, 1, 8, {}},
};
// clang-format on

bool matches(const KeyedRow& row, const Spec& spec) {
  const Zero zero = spec.asymmetric ? Zero::kAsymmetric : Zero::kSymmetric;
  return row.family == family_of(spec) && row.recipe == spec.recipe &&
         (row.scope == Scope::kAny || row.scope == scope_of(spec)) &&
         (row.side == Side::kAny || row.side == side_of(spec)) &&
         (row.zero == Zero::kAny || row.zero == zero) && row.bits_least <= spec.elem->bits() &&
         spec.elem->bits() <= row.bits_most;
}

}  // namespace

RecipeRow find_recipe(const Spec& spec) {
  check(spec.quantized(), "find_recipe: a quantized spec");
  for (const KeyedRow& row : kRecipes)
    if (matches(row, spec)) return row.row;
  std::string known;
  for (const KeyedRow& row : kRecipes) {
    Spec other = spec;
    other.recipe = row.recipe;
    if (matches(row, other)) known += text(known.empty() ? "" : ", ", recipe_name(row.recipe));
  }
  throw Error(text("recipe ", recipe_name(spec.recipe), " does not define ", describe(spec, kBF16)),
              known.empty() ? "choose another scheme" : text("recipes that do: ", known));
}

BlockScale given_scale(const RecipeRow& row, float scale, int32_t zero) {
  check(scale >= kLeastNormal && scale <= kLargest, "a given scale is a normal number above 0");
  BlockScale out = row.apply == Apply::kMultiply ? multiply_by_reciprocal(scale) : divide_by(scale);
  out.zero = zero;
  return out;
}

}  // namespace mantissa
