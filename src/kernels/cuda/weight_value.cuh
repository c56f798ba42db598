// One element of a resident weight of any scheme, in float32.
#pragma once

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {

template <class T>
__device__ float weight_value(const DeviceWeight& w, int64_t n, int k) {
  const unsigned char* row = w.codes + n * w.row_bytes;
  if (w.scales == nullptr) return to_f32(reinterpret_cast<const T*>(row)[k]);
  const Nibble at = nibble_of(k);
  const int code = w.code_bits == 4 ? row[at.byte] >> at.shift & 15 : row[k];
  const int64_t g = n * w.groups + k / w.group_cols;
  const float value = w.codebooks != nullptr
                          ? __bfloat162float(w.codebooks[g * w.codebook_len + code])
                          : __ldg(w.table + code);
  const float scale = w.wide_scales
                          ? static_cast<const float*>(w.scales)[g]
                          : __bfloat162float(static_cast<const __nv_bfloat16*>(w.scales)[g]);
  return (value - (w.zeros != nullptr ? static_cast<float>(w.zeros[g]) : 0.0f)) * scale *
         w.globals[n];
}

}  // namespace mantissa::cuda
