// The row of kCudaOps that loads: pinned staging buffers -> one stream of copies -> kernels
// (quantize_weights.cu) in the queue's stream. Contract: kernels/load_stream.h.
#pragma once

#include "kernels/load_stream.h"

namespace mantissa::cuda {

extern const LoadOps kLoadOps;

}  // namespace mantissa::cuda
