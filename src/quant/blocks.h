// Quantizes a matrix block by block: the walk that weights and activations share.
#pragma once

#include <optional>

#include "base/view.h"
#include "quant/quantize.h"
#include "quant/recipe.h"

namespace mantissa {

struct BlockTargets {
  Matrix<uint8_t> codes;        // [rows, cols]
  Matrix<float> scales;         // [ceil(rows / block.rows), ceil(cols / block.cols)]
  Matrix<int32_t> zero_points;  // like scales; asymmetric only
  Matrix<float> codebook;       // [rows, blocks of a row * 2^bits]; codebook schemes only
};

struct BlockQuantizer {
  Spec spec;
  RecipeInput input;  // global_amax and global_scale set where the spec has them
  RecipeRow recipe;
  bool given = false;  // scales stand in the targets already (static activations)
  // One scale for everything (per tensor); its block spans the matrix.
  std::optional<BlockScale> fixed = std::nullopt;

  QuantReport run(Matrix<const float> x, const BlockTargets& out) const;
};

}  // namespace mantissa
