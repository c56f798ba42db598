// An activation X[M, K] in every format its readers want (architecture.md, idea 2): the
// high-precision value, and/or codes with scales. Values are rounded to the run dtype first, then
// quantized, so fused and unfused producers are equal bit for bit.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "quant/scheme.h"

namespace mantissa {

// X[M, K] ~ (codes - zero) * scale: one byte a code, block.rows is 1 or kAll. Producers write all
// of it, but read the scales and zero points (NVFP4: the global scale) of a static spec.
struct QuantizedActivation {
  Spec spec{};
  Matrix<uint8_t> codes;          // [M, K]
  Matrix<float> scales;           // [M, ceil(K / block.cols)]; per tensor [1, 1]
  Matrix<int32_t> zero_points;    // like scales; asymmetric only
  float* global_scale = nullptr;  // [1]; NVFP4 only
};

struct Activation {
  // Quantized forms at once (shards of one layer that differ).
  static constexpr int kFormatsMax = 2;

  View high{};  // [M, K] in the run dtype; empty where no reader wants it
  QuantizedActivation quantized[kFormatsMax] = {};
  int quantized_count = 0;

  // The form that a weight with this activation spec reads; nullptr where the producer did not make
  // it.
  const QuantizedActivation* find(const Spec& spec) const {
    for (int i = 0; i < quantized_count; ++i)
      if (quantized[i].spec == spec) return &quantized[i];
    return nullptr;
  }
};

}  // namespace mantissa
