// Weights from raw values on the device: rounded to the run dtype, quantized, packed. Host side of
// quantize_weights.cu.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/load_stream.h"
#include "kernels/weight.h"

namespace mantissa::cuda {

// What kernels meet, one a weight, on the device.
struct WeightCounters {
  unsigned long long nan = 0, inf = 0, zero_blocks = 0, saturated = 0;
  int amax_bits = 0;  // of the finite values, as a float32: before a tensor's scale
};

// Whether the scale of `spec` needs the range of all values first.
bool spans_tensor(const Spec& spec);
// Adds the range of part's finite values to counters->amax_bits.
void observe_part(const Weight& w, const RawPart& part, WeightCounters* counters,
                  cudaStream_t stream);
// Codes, scales, zero points and globals of part's rows. A weight that is not quantized may have
// its raw values where they stay.
void quantize_part(const Weight& w, const RawPart& part, WeightCounters* counters,
                   cudaStream_t stream);

// The value of each code, which kernels of any format read.
void store_table(const Weight& w, cudaStream_t stream);

}  // namespace mantissa::cuda
