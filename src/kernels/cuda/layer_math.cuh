// Formulas of a layer that separate operations (rows.cu, rope_write.cu) and decode_layers_sm90.cu
// share, so that both give the same bits.
#pragma once

#include "kernels/ops.h"

namespace mantissa::cuda {

__device__ inline float gate_value(GateFn fn, float x) {
  // ex2 and rcp in hardware: within 2^-21, of which a 16-bit result shows nothing.
  if (fn == GateFn::kSilu) return __fdividef(x, 1.0f + __expf(-x));
  const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanhf(inner));
}
// Cosine and sine of a pair of a rotated head, times the attention factor.
__device__ inline float2 turn_of(float position, float inv_freq, float factor) {
  float sine, cosine;
  sincosf(position * inv_freq, &sine, &cosine);
  return make_float2(cosine * factor, sine * factor);
}
__device__ inline float2 turned(float u, float v, float2 turn) {
  return make_float2(u * turn.x - v * turn.y, v * turn.x + u * turn.y);
}

}  // namespace mantissa::cuda
