// Loops over the values of one row piece: ranges, counts, codes. They vectorize without intrinsics
// and give the same bits on every host. Not here: which scale (recipe.cc), which piece (blocks.cc).
#pragma once

#include <cstdint>
#include <span>

#include "quant/quantize.h"
#include "quant/recipe.h"

namespace mantissa {

// The largest |value| as the bits of a float32: an order that puts infinity and NaN above every
// finite value.
int32_t amax_bits(std::span<const float> x);
inline constexpr int32_t kInfinityBits = 0x7f800000;

// Range of the finite values.
float finite_amax(std::span<const float> x);
BlockRange finite_range(std::span<const float> x);

// Adds x's NaN and infinities to the report and writes x with NaN replaced by 0.
void replace_nan(std::span<const float> x, std::span<float> out, QuantReport& report);

// Codes of x, which has no NaN; one byte each, upper bits zero.
void encode_row(const RecipeInput& in, const RecipeRow& recipe, const BlockScale& scale,
                std::span<const float> x, std::span<uint8_t> codes);

// Finite values that clamping moves by a step or more. (Less happens by design: the largest value
// of a symmetric int4 group lies half a step beyond the largest code.)
int64_t count_saturated(const RecipeInput& in, const RecipeRow& recipe, const BlockScale& scale,
                        std::span<const float> x);

}  // namespace mantissa
