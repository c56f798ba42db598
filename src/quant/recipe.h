// Which recipe a spec has: a row of a table for each family of formats, recipe and shape of blocks.
// Not here: the formulas (formulas.h), walking over blocks (blocks.cc), loops over values
// (encode_rows.cc).
#pragma once

#include <cstdint>

#include "quant/formulas.h"
#include "quant/scheme.h"

namespace mantissa {

// The row of a quantized spec (of a codebook: one without a rule). Throws Error where the
// recipe does not define it.
RecipeRow find_recipe(const Spec& spec);
// A quantized spec in numbers.
RecipeInput recipe_input(const Spec& spec, const Elem& run_dtype);

// The factor of a given scale (static activations).
BlockScale given_scale(const RecipeRow& row, float scale, int32_t zero);

}  // namespace mantissa
