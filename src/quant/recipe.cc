#include "quant/recipe.h"

#include <array>

#include "base/error.h"

namespace mantissa {
namespace {

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
using S = ScaleRule;
// Static rows come first: their scale is given, only `apply` matters (reference 2.1, 2.6).
// clang-format off
constexpr KeyedRow kRecipes[] = {
    {F::kFp8, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kAny,        8, 8, {S::kNone, A::kMultiply}},
    {F::kInt, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kSymmetric,  1, 8, {S::kNone, A::kDivide}},
    {F::kInt, R::kVllm,  Scope::kAny,    Side::kStatic,  Zero::kAsymmetric, 1, 8, {S::kNone, A::kMultiply}},
    {F::kFp8, R::kVllm,              Scope::kRow,    Side::kAny,     Zero::kSymmetric, 8, 8, {S::kFp8VllmRow,      A::kDivide}},
    {F::kFp8, R::kVllm,              Scope::kTensor, Side::kAny,     Zero::kSymmetric, 8, 8, {S::kFp8VllmTensor,   A::kMultiply}},
    {F::kFp8, R::kVllm,              Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 8, 8, {S::kFp8VllmGroup,    A::kDivide}},
    {F::kFp8, R::kAutoFp8,           Scope::kTensor, Side::kWeight,  Zero::kSymmetric, 8, 8, {S::kFp8AutoFp8,      A::kMultiplyRounded}},
    {F::kFp8, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {S::kFp8Torchao,      A::kDivide}},
    {F::kFp8, R::kCompressedTensors, Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {S::kFp8Ct,           A::kDivideRounded}},
    {F::kFp8, R::kModelOpt,          Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 8, 8, {S::kFp8ModelOpt,     A::kDivide}},
    {F::kInt, R::kVllm,              Scope::kAny,    Side::kWeight,  Zero::kAny,       1, 8, {S::kIntWeight,       A::kDivide}},
    {F::kInt, R::kVllm,              Scope::kAny,    Side::kDynamic, Zero::kAny,       1, 8, {S::kIntActivation,   A::kMultiply}},
    {F::kInt, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 1, 4, {S::kInt4Torchao,     A::kDivide}},
    {F::kInt, R::kTorchao,           Scope::kAny,    Side::kWeight,  Zero::kAny,       8, 8, {S::kInt8Torchao,     A::kMultiply}},
    {F::kInt, R::kCompressedTensors, Scope::kAny,    Side::kWeight,  Zero::kAny,       1, 8, {S::kIntCt,           A::kDivideRounded}},
    {F::kInt, R::kModelOpt,          Scope::kAny,    Side::kWeight,  Zero::kSymmetric, 1, 8, {S::kIntModelOpt,     A::kDivide}},
    {F::kMx,  R::kFloor,             Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {S::kMxFloor,         A::kMultiply}},
    {F::kMx,  R::kRceil,             Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {S::kMxRceil,         A::kMultiply}},
    {F::kMx,  R::kEven,              Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {S::kMxEven,          A::kMultiply}},
    {F::kMx,  R::kCompressedTensors, Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 8, {S::kMxEvenFp4,       A::kMultiply}},
    {F::kMx,  R::kModelOpt,          Scope::kGroup,  Side::kAny,     Zero::kSymmetric, 4, 4, {S::kMxModelOpt,      A::kMultiply, true}},
    {F::kNvfp4, R::kTorchao,           Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {S::kNvfp4Torchao,    A::kMultiply,      false, GlobalRule::kNvfp4}},
    {F::kNvfp4, R::kModelOpt,          Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {S::kNvfp4ModelOpt,   A::kDivide,        false, GlobalRule::kNvfp4}},
    {F::kNvfp4, R::kCompressedTensors, Scope::kGroup, Side::kAny, Zero::kSymmetric, 4, 4, {S::kNvfp4Ct,         A::kDivide,        false, GlobalRule::kNvfp4Ct}},
    {F::kCodebook, R::kVllm,           Scope::kGroup, Side::kWeight, Zero::kSymmetric, 1, 8, {}},
};
// clang-format on

struct EncoderRow {
  const Elem* elem;
  Encoder encoder;
};
constexpr std::array kFloatEncoders{
    EncoderRow{&kE4M3, Encoder::kE4M3},         EncoderRow{&kE5M2, Encoder::kE5M2},
    EncoderRow{&kE4M3Fnuz, Encoder::kE4M3Fnuz}, EncoderRow{&kE5M2Fnuz, Encoder::kE5M2Fnuz},
    EncoderRow{&kE2M1, Encoder::kE2M1},         EncoderRow{&kE2M3, Encoder::kE2M3},
    EncoderRow{&kE3M2, Encoder::kE3M2}};

Encoder encoder_of(const Elem& elem) {
  if (!elem.is_float()) return Encoder::kInt;
  for (const EncoderRow& row : kFloatEncoders)
    if (*row.elem == elem) return row.encoder;
  check(false, "an element with an encoder");
  return Encoder::kInt;
}

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

RecipeInput recipe_input(const Spec& spec, const Elem& run_dtype) {
  check(spec.quantized(), "recipe_input: a quantized spec");
  const Elem& elem = *spec.elem;
  RecipeInput in;
  in.run_dtype = run_dtype_of(run_dtype);
  if (*spec.scale == kBF16) in.scale = RunDtype::kBF16;
  in.encoder = encoder_of(elem);
  in.asymmetric = spec.asymmetric;
  in.given_global = spec.when == When::kStatic;
  in.bits = elem.bits();
  in.man_bits = elem.man_bits;
  in.limit = elem == kE4M3Fnuz ? 224.0f : static_cast<float>(max_value(elem));
  const double top = max_value(elem), bottom = min_value(elem);
  const double step = elem.is_float() ? top - decode(elem, max_code(elem) - 1) : 1;
  in.saturated_above = top + step;
  in.saturated_below = bottom - step;
  if (!elem.is_float()) {
    in.lowest = static_cast<int>(bottom);
    in.highest = static_cast<int>(top);
  }
  return in;
}

BlockScale given_scale(const RecipeRow& row, float scale, int32_t zero) {
  check(scale >= formulas::kLeastNormal && scale <= formulas::kLargest,
        "a given scale is a normal number above 0");
  BlockScale out = row.apply == Apply::kMultiply ? formulas::multiply_by_reciprocal(scale)
                                                 : formulas::divide_by(scale);
  out.zero = zero;
  return out;
}

}  // namespace mantissa
