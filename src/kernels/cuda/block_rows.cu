// Row operations that some families' blocks need beside rows.cu: results joined to the residual
// stream with a norm or a multiplier, norms of queries and keys, capped logits.
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int kRowThreads = 256;

// x [M, K] += multiplier * norm(delta). A block a row.
template <class T>
__global__ void add_rows_kernel(T* x, int64_t x_stride, const T* delta, int64_t delta_stride,
                                int cols, AddParams p) {
  T* to = x + blockIdx.x * x_stride;
  const T* from = delta + blockIdx.x * delta_stride;
  ptx::grid_dependency_wait();
  float scale = 1;
  if (p.gain != nullptr) {
    float squares = 0;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
      const float v = to_f32(from[c]);
      squares = fmaf(v, v, squares);
    }
    scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(cols) + p.eps);
  }
  ptx::grid_dependency_launch();
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    float d = to_f32(from[c]);
    if (p.gain != nullptr) d = d * scale * p.gain[c];
    to[c] = from_f32<T>(fmaf(d, p.multiplier, to_f32(to[c])));
  }
}

// A warp a head.
template <class T>
__global__ void norm_each_head_kernel(T* qkv, int64_t stride, HeadNormParams p) {
  T* row = qkv + blockIdx.x * stride;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  for (int head = warp; head < p.heads + p.kv_heads; head += warps) {
    T* x = row + head * p.head_dim;
    const float* gain = head < p.heads ? p.q_gain : p.k_gain;
    float squares = 0;
    for (int d = lane; d < p.head_dim; d += 32) {
      const float v = to_f32(x[d]);
      squares = fmaf(v, v, squares);
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(p.head_dim) + p.eps);
    for (int d = lane; d < p.head_dim; d += 32) x[d] = from_f32<T>(to_f32(x[d]) * scale * gain[d]);
  }
}

// A block for the queries (y = 0) and one for the keys (y = 1) of a token.
template <class T>
__global__ void norm_all_heads_kernel(T* qkv, int64_t stride, HeadNormParams p) {
  const bool keys = blockIdx.y == 1;
  const int cols = (keys ? p.kv_heads : p.heads) * p.head_dim;
  T* x = qkv + blockIdx.x * stride + (keys ? p.heads * p.head_dim : 0);
  const float* gain = keys ? p.k_gain : p.q_gain;
  ptx::grid_dependency_wait();
  float squares = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    const float v = to_f32(x[c]);
    squares = fmaf(v, v, squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(cols) + p.eps);
  ptx::grid_dependency_launch();
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    x[c] = from_f32<T>(to_f32(x[c]) * scale * gain[c]);
  }
}

__global__ void cap_logits_kernel(float* logits, int64_t stride, int64_t cols, float multiplier,
                                  float cap) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  if (c >= cols) return;
  float& z = logits[blockIdx.y * stride + c];
  z *= multiplier;
  if (cap > 0) z = cap * tanhf(z / cap);
}

dim3 block_a_row(int64_t rows, int each = 1) {
  return {static_cast<unsigned>(rows), static_cast<unsigned>(each), 1};
}

}  // namespace

void add_rows(View x, ConstView delta, const AddParams& params, Queue* queue) {
  check(x.rows == delta.rows && x.cols == delta.cols && *x.elem == *delta.elem,
        "add_rows: both are [M, K] in one dtype");
  if (x.rows == 0) return;
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    launch("launching add_rows", add_rows_kernel<T>,
           {.grid = block_a_row(x.rows), .block = dim3(kRowThreads)},
           cuda_queue(queue).stream.get(), reinterpret_cast<T*>(x.data), x.stride,
           reinterpret_cast<const T*>(delta.data), delta.stride, static_cast<int>(x.cols), params);
  });
}

void norm_heads(View qkv, const HeadNormParams& params, Queue* queue) {
  check(qkv.cols == int64_t{params.heads + 2 * params.kv_heads} * params.head_dim,
        "norm_heads: qkv is [T, (H + 2 KV) * D]");
  if (qkv.rows == 0) return;
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    launch("launching norm_heads",
           params.each_head ? norm_each_head_kernel<T> : norm_all_heads_kernel<T>,
           {.grid = block_a_row(qkv.rows, params.each_head ? 1 : 2), .block = dim3(kRowThreads)},
           cuda_queue(queue).stream.get(), reinterpret_cast<T*>(qkv.data), qkv.stride, params);
  });
}

void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue* queue) {
  if (logits.rows == 0) return;
  const auto blocks = static_cast<unsigned>((logits.cols + kRowThreads - 1) / kRowThreads);
  launch("launching cap_logits", cap_logits_kernel,
         {.grid = dim3(blocks, static_cast<unsigned>(logits.rows)), .block = dim3(kRowThreads)},
         cuda_queue(queue).stream.get(), logits.data, logits.stride, logits.cols, multiplier, cap);
}

}  // namespace mantissa::cuda
