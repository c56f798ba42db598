// Rotary position embedding frequencies from the config, in float32 as transformers computes them.
#pragma once

#include <vector>

#include "io/config.h"

namespace mantissa {

// inv_freq [head_dim / 2]: base^(-2i / head_dim), then rope_scaling "llama3" where the config says
// so. Source: transformers, modeling_rope_utils.py. Throws Error for a type not in `known` (a row's
// Architecture::rope_types).
std::vector<float> rope_inv_freq(const ModelConfig& config, std::string_view known);

}  // namespace mantissa
