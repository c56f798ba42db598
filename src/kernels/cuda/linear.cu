// `linear`: picks between the tensor-core GEMM of the weight's kernel and the portable kernel,
// which takes every format on any GPU from Ampere on.
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

// The activation as the portable kernel reads it: run dtype, or codes with scales.
struct Input {
  const void* data;  // T [M, stride], or codes
  int64_t stride;
  const float* scales;  // nullptr: run dtype
  const int32_t* zero_points;
  int64_t scale_stride;  // 0: one scale for the tensor
  int group_cols;
  bool is_int8;
};
struct Output {
  void* data;  // T or float [M, stride]
  int64_t stride;
  bool is_f32;
  const float* bias;
  const void* residual;  // T
  int64_t residual_stride;
};

template <class T>
__device__ float input_value(const Input& x, int64_t m, int k) {
  if (x.scales == nullptr) return to_f32(static_cast<const T*>(x.data)[m * x.stride + k]);
  const uint8_t code = static_cast<const uint8_t*>(x.data)[m * x.stride + k];
  const int64_t g = m * x.scale_stride + k / x.group_cols;
  float value = x.is_int8 ? static_cast<float>(static_cast<int8_t>(code))
                          : __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
  if (x.zero_points != nullptr) value -= static_cast<float>(x.zero_points[g]);
  return value * x.scales[g];
}
template <class T>
__device__ float weight_value(const DeviceWeight& w, int64_t n, int k) {
  const unsigned char* row = w.codes + n * w.row_bytes;
  if (w.scales == nullptr) return to_f32(reinterpret_cast<const T*>(row)[k]);
  const int code = w.code_bits == 4 ? row[k / 2] >> (k % 2 * 4) & 15 : row[k];
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

constexpr int kTile = 64, kTileK = 16, kPerThread = 4;

// Tiles of 64 x 64, 16 x 16 threads of 4 x 4 sums each; both operands decoded into shared memory.
template <class T>
__global__ void linear_any__sm80(Input x, DeviceWeight w, Output out, int rows) {
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

Input input_of(const Activation& x, const Weight& w) {
  const Spec& spec = w.request.scheme.activation;
  if (!spec.quantized()) {
    return {.data = x.high.data,
            .stride = x.high.stride,
            .scales = nullptr,
            .zero_points = nullptr,
            .scale_stride = 0,
            .group_cols = 1,
            .is_int8 = false};
  }
  const QuantizedActivation* q = x.find(spec);
  check(q != nullptr, "linear: x has the form that the weight reads");
  return {
      .data = q->codes.data,
      .stride = q->codes.stride,
      .scales = q->scales.data,
      .zero_points = q->zero_points.data,
      .scale_stride = spec.block.rows == kAll ? 0 : q->scales.stride,
      .group_cols = static_cast<int>(spec.block.cols == kAll ? w.request.cols : spec.block.cols),
      .is_int8 = *spec.elem == int_elem(8)};
}

// The tensor-core GEMM where the weight's kernel is one and the shapes allow it.
bool try_gemm(View out, const Input& x, const Weight& w, const Epilogue& e, int rows,
              Queue* queue) {
  if (w.kernel->name.find("__sm90") == std::string_view::npos) return false;
  const WeightLayout l(w.request);
  const Spec& weight = w.request.scheme.weight;
  GemmArgs args{
      .elem = !weight.quantized()     ? GemmElem::kBf16
              : *weight.elem == kE4M3 ? GemmElem::kE4M3
                                      : GemmElem::kS8,
      .a = x.data,
      .b = w.data + l.codes,
      .a_stride = x.stride,
      .a_scale = x.scales,
      .b_scale = weight.quantized() ? reinterpret_cast<const float*>(w.data + l.scales) : nullptr,
      .a_scale_stride = x.scale_stride == 0 ? 0 : 1,
      .b_scale_stride = 1,
      .bias = e.bias,
      .residual = reinterpret_cast<const __nv_bfloat16*>(e.residual.data),
      .residual_stride = e.residual.stride,
      .out = out.data,
      .out_stride = out.stride,
      .out_f32 = *out.elem == kF32,
      .m = rows,
      .n = static_cast<int>(l.rows),
      .k = static_cast<int>(l.cols)};
  if (args.out_f32 && args.elem != GemmElem::kBf16) return false;
  if (!gemm_sm90_why_not(args).empty()) return false;
  gemm__sm90(args, cuda_queue(queue).stream.get());
  return true;
}

}  // namespace

void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue) {
  if (out.rows == 0 || out.cols == 0) return;
  const int rows = static_cast<int>(out.rows);
  const Input input = input_of(x, w);
  if (try_gemm(out, input, w, e, rows, queue)) return;
  const Output output{.data = out.data,
                      .stride = out.stride,
                      .is_f32 = *out.elem == kF32,
                      .bias = e.bias,
                      .residual = e.residual.data,
                      .residual_stride = e.residual.stride};
  const DeviceWeight weight = device_weight(w);
  with_run_dtype(*w.request.run_dtype, [&](auto t) {
    using T = decltype(t);
    const dim3 grid(static_cast<unsigned>((weight.n + kTile - 1) / kTile),
                    static_cast<unsigned>((rows + kTile - 1) / kTile));
    linear_any__sm80<T>
        <<<grid, 256, 0, cuda_queue(queue).stream.get()>>>(input, weight, output, rows);
  });
  cuda_check(cudaGetLastError(), "launching linear");
}

}  // namespace mantissa::cuda
