// Scale arithmetic: from a block's range to its scale and to the arithmetic that makes its codes. A
// row of a table for each family of formats and recipe. Not here: walking over blocks (blocks.cc),
// loops over values (encode_rows.cc).
#pragma once

#include <cstdint>
#include <limits>

#include "quant/scheme.h"

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

// What a formula may look at besides the range.
struct RecipeInput {
  Spec spec;
  const Elem* run_dtype = nullptr;
  float global_amax = 0;   // over the tensor; two-level scales only
  float global_scale = 1;  // its result
};

struct RecipeRow {
  BlockScale (*block_scale)(const RecipeInput&, const BlockRange&) = nullptr;
  Apply apply = Apply::kDivide;
  bool ties_down = false;  // ModelOpt's MXFP4 cast: ties towards zero, zero as -0
  // Two-level scales: the second level from the tensor's amax.
  float (*global_scale)(const RecipeInput&) = nullptr;
};

// The row of a quantized spec (of a codebook: one without block_scale). Throws Error where the
// recipe does not define it.
RecipeRow find_recipe(const Spec& spec);

// The factor of a given scale (static activations).
BlockScale given_scale(const RecipeRow& row, float scale, int32_t zero);

}  // namespace mantissa
