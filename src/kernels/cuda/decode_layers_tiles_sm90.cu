// The layers' kernel for e4m3 weights in tiles, with codes whose scales are of 128 columns.
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

void decode_layers_tiles__sm90(const DecodeArgs& d, cudaStream_t stream) {
  launch_format<Format<GemvWeight::kE4M3Tiles, __half, 1>>(d, stream);
}

}  // namespace mantissa::cuda
