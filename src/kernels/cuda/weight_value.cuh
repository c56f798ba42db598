// One element of a resident weight of any scheme, in float32.
#pragma once

#include "kernels/cuda/byte_scale.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {

template <class T>
__device__ float weight_value(const DeviceWeight& w, int64_t n, int k) {
  const unsigned char* row = w.codes + n * w.row_bytes;
  if (w.scales == nullptr) return to_f32(reinterpret_cast<const T*>(row)[k]);
  const Nibble at = nibble_of(k);
  const int code = w.code_bits == 4 ? row[at.byte] >> at.shift & 15 : row[k];
  const int group = k / w.group_cols;
  const int64_t g = n * w.groups + group;
  const int64_t s = scale_at(n, group, w.scale_rows, w.scale_pitch);
  const float value = w.codebooks != nullptr
                          ? __bfloat162float(w.codebooks[g * w.codebook_len + code])
                          : __ldg(w.table + code);
  const float scale = is_byte(w.scale_form)
                          ? byte_scale(w.scales, w.scale_form,
                                       byte_scale_at(n, group, w.scale_blocks, w.group_cols))
                      : w.scale_form == ScaleForm::kF32
                          ? static_cast<const float*>(w.scales)[s]
                          : __bfloat162float(static_cast<const __nv_bfloat16*>(w.scales)[s]);
  return (value - (w.zeros != nullptr ? static_cast<float>(w.zeros[g]) : 0.0f)) * scale *
         w.globals[n];
}

}  // namespace mantissa::cuda
