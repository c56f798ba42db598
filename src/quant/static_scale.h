// Scales of activations that are fixed before the first request: given by a checkpoint, or made
// from the range that calibration saw.
#pragma once

#include <cstdint>

#include "quant/scheme.h"

namespace mantissa {

// Per tensor: scale and zero point. Two-level scales (NVFP4): the global one, block scales follow
// each call.
struct StaticScale {
  float scale = 1;
  int32_t zero_point = 0;
  float global_scale = 1;
  bool operator==(const StaticScale&) const = default;
};

// Of values in [min, max], min <= 0 <= max: the formula of the recipe's dynamic form. spec.when is
// kStatic.
StaticScale static_scale_of(const Spec& spec, float min, float max);

// One scale for readers of the same values that were given different ones: nothing that either
// represents saturates (vLLM does the same for the shards of a fused linear). Equal scales stay as
// they are.
StaticScale widest(const Spec& spec, const StaticScale& a, const StaticScale& b);

// Whether arithmetic with it stays finite: a normal number above 0 with a normal reciprocal.
bool usable_scale(float scale);

}  // namespace mantissa
