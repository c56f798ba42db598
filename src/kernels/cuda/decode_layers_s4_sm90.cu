// The layers' kernel for int4 weights, with e4m3 codes and with bf16 activations, both as limbs.
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_s4__sm90(const DecodeArgs& d, cudaStream_t stream) {
  if (d.input == GemvInput::kE4M3)
    return launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount, true>>(d, stream);
  launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount>>(d, stream);
}

}  // namespace mantissa::cuda
