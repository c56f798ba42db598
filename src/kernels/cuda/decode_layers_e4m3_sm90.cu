// The layers' kernel for e4m3 weights, with codes and with bf16 activations.
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_e4m3__sm90(const DecodeArgs& d, cudaStream_t stream) {
  if (d.input == GemvInput::kE4M3)
    return launch_format<Format<GemvWeight::kE4M3, __half>>(d, stream);
  launch_format<Format<GemvWeight::kE4M3, __nv_bfloat16>>(d, stream);
}

}  // namespace mantissa::cuda
