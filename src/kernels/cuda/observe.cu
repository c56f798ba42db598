// `observe`: the range of a matrix, folded into device memory. Both sides are kept as magnitudes:
// the bits of floats from 0 up order as integers, so one atomicMax a block is enough.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void observe_kernel(const T* x, int64_t stride, int cols, float* range) {
  ptx::grid_dependency_wait();
  float below = 0, above = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    const float v = to_f32(x[blockIdx.x * stride + c]);
    if (!(fabsf(v) <= FLT_MAX)) continue;
    below = fmaxf(below, -v);
    above = fmaxf(above, v);
  }
  below = block_max(below);
  above = block_max(above);
  if (threadIdx.x != 0) return;
  atomicMax(reinterpret_cast<int*>(range), __float_as_int(below));
  atomicMax(reinterpret_cast<int*>(range) + 1, __float_as_int(above));
}

}  // namespace

void observe(ConstView x, float* range, Queue* queue) {
  if (x.rows == 0) return;
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    launch("observe", observe_kernel<T>,
           {.grid = dim3(static_cast<unsigned>(x.rows)), .block = dim3(kThreads)},
           cuda_queue(queue).stream.get(), reinterpret_cast<const T*>(x.data), x.stride,
           static_cast<int>(x.cols), range);
  });
}

}  // namespace mantissa::cuda
