// Activations with scales of groups along K, as launches of their own.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows_blocks.cuh"
#include "kernels/cuda/rows_blocks.h"
#include "quant/recipe.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void quantize_groups_kernel(const T* x, int64_t stride, int cols, GroupForm form) {
  ptx::grid_dependency_wait();
  quantize_groups(x + blockIdx.x * stride, blockIdx.x, cols, form);
}

// Float bits from 0 up order as integers.
template <class T>
__global__ void groups_amax_kernel(const T* x, int64_t stride, int cols, float* amax) {
  ptx::grid_dependency_wait();
  float most = 0;
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += kThreads) {
    const float v = fabsf(to_f32(x[blockIdx.x * stride + c]));
    if (v <= formulas::kLargest) most = fmaxf(most, v);
  }
  most = block_max(most);
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<int*>(amax), __float_as_int(most));
}
__global__ void global_scale_kernel(const float* amax, GlobalRule rule, RecipeInput in,
                                    float* out) {
  ptx::grid_dependency_wait();
  in.global_amax = *amax;
  *out = global_scale(rule, in);
}

GroupForm form_of(const QuantizedActivation& q) {
  return {.in = recipe_input(q.spec, kF32),
          .recipe = find_recipe(q.spec),
          .group = q.spec.block.cols,
          .codes = q.codes.data,
          .stride = q.codes.stride,
          .scales = q.scales.data,
          .scale_stride = q.scales.stride,
          .global = q.spec.global_scale ? q.global_scale : nullptr,
          .amax = nullptr};
}

}  // namespace

void quantize_groups(ConstView x, const QuantizedActivation& q, CudaQueue& queue) {
  const cudaStream_t stream = queue.stream.get();
  GroupForm form = form_of(q);
  const LaunchShape rows{.grid = dim3(static_cast<unsigned>(x.rows)), .block = dim3(kThreads)};
  const int cols = static_cast<int>(x.cols);
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    const T* data = reinterpret_cast<const T*>(x.data);
    if (q.spec.global_scale && q.spec.when == When::kPerCall) {
      float* amax = reinterpret_cast<float*>(queue.amax.get());
      form.amax = amax;
      cuda_check(cudaMemsetAsync(amax, 0, sizeof(float), stream), "clearing a range");
      launch("quantize_rows: range", groups_amax_kernel<T>, rows, stream, data, x.stride, cols,
             amax);
      launch("quantize_rows: global scale", global_scale_kernel,
             {.grid = dim3(1), .block = dim3(1)}, stream, static_cast<const float*>(amax),
             form.recipe.global, form.in, q.global_scale);
    }
    launch("quantize_rows", quantize_groups_kernel<T>, rows, stream, data, x.stride, cols, form);
  });
}

}  // namespace mantissa::cuda
