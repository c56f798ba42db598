// The layers' kernel for MXFP4 and NVFP4 weights with bf16 activations (as limbs).
#include "kernels/cuda/decode_layers.cuh"
#include "kernels/cuda/weight_fp4.cuh"

namespace mantissa::cuda {

void decode_layers_fp4__sm90(const DecodeArgs& d, cudaStream_t stream) {
  if (d.roles[0].group_cols == 16) return launch_format<Fp4<16, true, 2>>(d, stream);
  launch_format<Fp4<32, true, 2>>(d, stream);
}

}  // namespace mantissa::cuda
