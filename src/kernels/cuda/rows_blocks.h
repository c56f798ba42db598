// Activations whose scales are not float32: groups of 32 with e8m0 (MX), of 16 with e4m3 and a
// global scale (NVFP4).
#pragma once

#include "kernels/activation.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {

// Whether rows_blocks.cu makes a form, from the run dtype's rows; others are made in rows.cu.
inline bool has_groups(const Spec& spec) {
  return *spec.scale != kF32;
}
// x -> q, in launches of its own; a dynamic global scale included.
void quantize_groups(ConstView x, const QuantizedActivation& q, CudaQueue& queue);

}  // namespace mantissa::cuda
