// The layers' kernel for int8 weights, with int8 codes and with bf16 activations (as f16).
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_s8__sm90(const DecodeArgs& d, cudaStream_t stream) {
  if (d.input == GemvInput::kS8) return launch_format<Format<GemvWeight::kS8, int8_t>>(d, stream);
  launch_format<Format<GemvWeight::kS8, __half>>(d, stream);
}

}  // namespace mantissa::cuda
