// Rows picked from tables: embedding (a table of any scheme) and gathering.
#include <algorithm>

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight_value.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256;

// `bytes` by the whole block, in wide pieces where both sides and the length allow it.
__device__ void copy_row(unsigned char* to, const unsigned char* from, int64_t bytes) {
  const auto unaligned = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
                         static_cast<uintptr_t>(bytes);
  if (unaligned % 16 == 0) {
    for (int64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x)
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else {
    for (int64_t i = threadIdx.x; i < bytes; i += blockDim.x) to[i] = from[i];
  }
}

template <class T>
__global__ void embed_kernel(T* out, int64_t stride, DeviceWeight table, float multiplier,
                             const int32_t* ids) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const int64_t n = ids[blockIdx.x];
  T* to = out + blockIdx.x * stride;
  if (table.scales == nullptr && multiplier == 1) {
    copy_row(reinterpret_cast<unsigned char*>(to), table.codes + n * table.row_bytes,
             int64_t{table.k} * sizeof(T));
    return;
  }
  for (int k = threadIdx.x; k < table.k; k += blockDim.x)
    to[k] = from_f32<T>(weight_value<T>(table, n, k) * multiplier);
}

constexpr int kGatherMax = 256;  // rows of one launch; indices travel as a parameter
struct RowIndices {
  int32_t row[kGatherMax];
};
__global__ void gather_kernel(unsigned char* out, int64_t out_bytes, const unsigned char* x,
                              int64_t x_bytes, int row_bytes, RowIndices indices) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  copy_row(out + blockIdx.x * out_bytes, x + indices.row[blockIdx.x] * x_bytes, row_bytes);
}

}  // namespace

void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue) {
  if (batch.tokens == 0) return;
  with_run_dtype(*out.elem, [&](auto t) {
    using T = decltype(t);
    launch("launching embed", embed_kernel<T>,
           {.grid = dim3(static_cast<unsigned>(batch.tokens)), .block = dim3(kThreads)},
           cuda_queue(queue).stream.get(), reinterpret_cast<T*>(out.data), out.stride,
           device_weight(table), multiplier, batch.token_ids);
  });
}

void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue* queue) {
  const int64_t bytes = x.elem_bytes();
  for (size_t at = 0; at < rows.size(); at += kGatherMax) {
    RowIndices indices{};
    const size_t count = std::min<size_t>(kGatherMax, rows.size() - at);
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(at), count, indices.row);
    launch("launching gather_rows", gather_kernel,
           {.grid = dim3(static_cast<unsigned>(count)), .block = dim3(kThreads)},
           cuda_queue(queue).stream.get(),
           reinterpret_cast<unsigned char*>(out.row(static_cast<int64_t>(at))), out.stride * bytes,
           reinterpret_cast<const unsigned char*>(x.data), x.stride * bytes,
           static_cast<int>(x.cols * bytes), indices);
  }
}

}  // namespace mantissa::cuda
