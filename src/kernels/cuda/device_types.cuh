// Run dtypes on the device: float32, float16 and bfloat16 as template arguments, chosen once per
// call from the view's element.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "base/elem.h"
#include "base/error.h"

namespace mantissa::cuda {

__device__ inline float to_f32(float x) {
  return x;
}
__device__ inline float to_f32(__half x) {
  return __half2float(x);
}
__device__ inline float to_f32(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <class T>
__device__ inline T from_f32(float x);
template <>
__device__ inline float from_f32<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_f32<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_f32<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
// x as the run dtype holds it.
template <class T>
__device__ inline float rounded(float x) {
  return to_f32(from_f32<T>(x));
}

// body(T{}) with the type of this run dtype.
template <class Body>
void with_run_dtype(const Elem& elem, const Body& body) {
  if (elem == kBF16) return body(__nv_bfloat16{});
  if (elem == kF16) return body(__half{});
  check(elem == kF32, "a run dtype");
  body(float{});
}

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
// The sum of x up to this lane's own.
__device__ inline int warp_sum_up_to(int x) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int step = 1; step < 32; step *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, x, step);
    if (lane >= step) x += below;
  }
  return x;
}
// A line of items of which each lane holds `count`: the lane that holds the index-th, and how many
// lie before its own. Lane -1 where there are fewer; then `before` is their number.
struct Holder {
  int lane, before;
};
__device__ inline Holder holder_of(int index, int count) {
  const int up_to = warp_sum_up_to(count);
  const uint32_t holders = __ballot_sync(0xffffffffu, index < up_to);
  if (holders == 0) return {-1, __shfl_sync(0xffffffffu, up_to, 31)};
  const int lane = __ffs(static_cast<int>(holders)) - 1;
  return {lane, __shfl_sync(0xffffffffu, up_to - count, lane)};
}
// Over the block (at most 1024 threads, a multiple of 32); every thread gets the result.
template <class Fold>
__device__ inline float block_fold(float x, const Fold& fold) {
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int step = 16; step > 0; step /= 2) x = fold(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();  // the last use of `partial` is over
  if (lane == 0) partial[warp] = x;
  __syncthreads();  // every warp's value is there
  x = partial[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / 32; ++w) x = fold(x, partial[w]);
  return x;
}
__device__ inline float block_sum(float x) {
  return block_fold(x, [](float a, float b) { return a + b; });
}
__device__ inline float block_max(float x) {
  return block_fold(x, [](float a, float b) { return fmaxf(a, b); });
}

}  // namespace mantissa::cuda
