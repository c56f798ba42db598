// The layers' kernel for int8 weights, with int8 codes and with bf16 activations (as limbs).
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_s8__sm90(const DecodeArgs& d, cudaStream_t stream) {
  if (d.input == GemvInput::kS8) return launch_format<Format<GemvWeight::kS8, int8_t>>(d, stream);
  launch_format<Format<GemvWeight::kS8, int8_t, 0, false, kLimbCount>>(d, stream);
}

}  // namespace mantissa::cuda
