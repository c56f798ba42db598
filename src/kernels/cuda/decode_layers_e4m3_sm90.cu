// The layers' kernel for e4m3 weights, with codes and with bf16 activations, both as f16.
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_e4m3__sm90(const DecodeArgs& d, cudaStream_t stream) {
  launch_format<Format<GemvWeight::kE4M3, __half>>(d, stream);
}

}  // namespace mantissa::cuda
