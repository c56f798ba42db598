// The portable linear: every format on any GPU from Ampere on, in float32 arithmetic.
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_call.h"
#include "kernels/cuda/weight_value.cuh"

namespace mantissa::cuda {
namespace {

struct Output {
  void* data;  // T or float [M, stride]
  int64_t stride;
  bool is_f32;
  const float* bias;
  const void* residual;  // T
  int64_t residual_stride;
};

template <class T>
__device__ float input_value(const LinearInput& x, int64_t m, int k) {
  if (x.scales == nullptr) return to_f32(static_cast<const T*>(x.data)[m * x.stride + k]);
  const uint8_t code = static_cast<const uint8_t*>(x.data)[m * x.stride + k];
  const int64_t g = m * x.scale_stride + k / x.group_cols;
  float value;
  if (x.code == InputCode::kInt8) {
    value = static_cast<float>(static_cast<int8_t>(code));
  } else if (x.code == InputCode::kE4M3) {
    value = __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
  } else {  // as float32's fields: subnormals come out right
    const uint32_t sign = 1u << (x.bits - 1);
    const float magnitude = __uint_as_float((code & (sign - 1)) << (23 - x.man_bits)) *
                            __uint_as_float(static_cast<uint32_t>(254 - x.bias) << 23);
    value = (code & sign) != 0 ? -magnitude : magnitude;
  }
  if (x.zero_points != nullptr) value -= static_cast<float>(x.zero_points[g]);
  value *= x.scales[g];
  return x.global != nullptr ? value * *x.global : value;
}
constexpr int kTile = 64, kTileK = 16, kPerThread = 4;

// Tiles of 64 x 64, 16 x 16 threads of 4 x 4 sums each; both operands decoded into shared memory.
template <class T>
__global__ void linear_any_kernel__sm80(LinearInput x, DeviceWeight w, Output out, int rows) {
  __shared__ float xs[kTileK][kTile + 1], ws[kTileK][kTile + 1];
  const int m0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sums[kPerThread][kPerThread] = {};
  for (int k0 = 0; k0 < w.k; k0 += kTileK) {
    for (int i = threadIdx.x; i < kTile * kTileK; i += blockDim.x) {
      const int k = k0 + i % kTileK, r = i / kTileK;
      xs[i % kTileK][r] = m0 + r < rows && k < w.k ? input_value<T>(x, m0 + r, k) : 0.0f;
      ws[i % kTileK][r] = n0 + r < w.n && k < w.k ? weight_value<T>(w, n0 + r, k) : 0.0f;
    }
    __syncthreads();  // both tiles are there
    for (int k = 0; k < kTileK; ++k) {
      for (int i = 0; i < kPerThread; ++i) {
        for (int j = 0; j < kPerThread; ++j) {
          sums[i][j] = fmaf(xs[k][ty + 16 * i], ws[k][tx + 16 * j], sums[i][j]);
        }
      }
    }
    __syncthreads();  // and read
  }
  for (int i = 0; i < kPerThread; ++i) {
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t m = m0 + ty + 16 * i;
      const int n = n0 + tx + 16 * j;
      if (m >= rows || n >= w.n) continue;
      float value = sums[i][j] + (out.bias != nullptr ? out.bias[n] : 0.0f);
      if (out.residual != nullptr)
        value += to_f32(static_cast<const T*>(out.residual)[m * out.residual_stride + n]);
      if (out.is_f32) {
        static_cast<float*>(out.data)[m * out.stride + n] = value;
      } else {
        static_cast<T*>(out.data)[m * out.stride + n] = from_f32<T>(value);
      }
    }
  }
}

}  // namespace

void linear_any__sm80(const LinearCall& call) {
  const Output output{.data = call.out.data,
                      .stride = call.out.stride,
                      .is_f32 = *call.out.elem == kF32,
                      .bias = call.epilogue.bias,
                      .residual = call.epilogue.residual.data,
                      .residual_stride = call.epilogue.residual.stride};
  const DeviceWeight weight = device_weight(call.w);
  with_run_dtype(*call.w.request.run_dtype, [&](auto t) {
    using T = decltype(t);
    const dim3 grid(static_cast<unsigned>((weight.n + kTile - 1) / kTile),
                    static_cast<unsigned>((call.rows + kTile - 1) / kTile));
    linear_any_kernel__sm80<T><<<grid, 256, 0, call.stream>>>(call.x, weight, output, call.rows);
  });
  cuda_check(cudaGetLastError(), "launching linear_any");
}

}  // namespace mantissa::cuda
