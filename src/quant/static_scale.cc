#include "quant/static_scale.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/error.h"
#include "quant/recipe.h"

namespace mantissa {

StaticScale static_scale_of(const Spec& spec, float min, float max) {
  check(spec.quantized() && spec.when == When::kStatic, "static_scale_of: a static activation");
  check(min <= 0 && 0 <= max, "static_scale_of: a range that holds 0");
  Spec dynamic = spec;
  dynamic.when = When::kPerCall;
  RecipeInput input = recipe_input(dynamic, kF32);
  const BlockRange range{.amax = std::max(-min, max), .min = min, .max = max};
  const RecipeRow recipe = find_recipe(dynamic);
  StaticScale out;
  if (spec.global_scale) {
    input.global_amax = range.amax;
    out.global_scale = global_scale(recipe.global, input);
    return out;
  }
  const BlockScale found = block_scale(recipe.rule, input, range);
  out.scale = found.scale;
  out.zero_point = found.zero;
  return out;
}

StaticScale widest(const Spec& spec, const StaticScale& a, const StaticScale& b) {
  if (a == b) return a;
  StaticScale out;
  out.scale = std::max(a.scale, b.scale);
  out.global_scale = std::max(a.global_scale, b.global_scale);
  if (!spec.asymmetric) return out;
  const auto least = static_cast<float>(min_value(*spec.elem));
  const auto most = static_cast<float>(max_value(*spec.elem));
  const auto end = [](const StaticScale& s, float code) {
    return s.scale * (code - static_cast<float>(s.zero_point));
  };
  const float low = std::min({end(a, least), end(b, least), 0.0f});
  const float high = std::max({end(a, most), end(b, most), 0.0f});
  return static_scale_of(spec, low, high);
}

bool usable_scale(float scale) {
  return scale >= FLT_MIN && scale <= 1.0f / FLT_MIN;
}

}  // namespace mantissa
