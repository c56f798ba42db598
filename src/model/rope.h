// Rotary position embedding frequencies from the config, in float32 as transformers computes them
// (modeling_rope_utils.py).
#pragma once

#include <string_view>
#include <vector>

#include "io/config.h"

namespace mantissa {

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [rotary_dim / 2]
  float attention_factor = 1;   // multiplies cosines and sines
};

// `context`: the tokens a sequence may have. Kinds that transformers makes anew for each length
// (dynamic, longrope) are those of a sequence of this length, for all sequences: keys in a cache
// stay rotated as they were written. Throws Error for a type not in `known` (a row's
// Architecture::rope_types).
RopeFrequencies rope_frequencies(const ModelConfig& config, const RopeConfig& rope, int64_t context,
                                 std::string_view known);

// The longest context that the config's RoPE is made for: max_position_embeddings, or beyond where
// the scaling stretches it.
int64_t context_limit(const ModelConfig& config);

// One line for the user where the frequencies depend on `context`; else empty.
std::string describe_rope(const ModelConfig& config, int64_t context);

}  // namespace mantissa
