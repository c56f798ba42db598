// Operations on rows: norm, gate, quantization of activations, embedding, gathering. One block a
// row. Quantizing equals quant/quantize.h bit for bit: the same float32 divisions and roundings, in
// code that is compiled without contraction.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/rows_blocks.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

constexpr int kRowThreads = 256;

// ---- quantization

enum class CodeKind : uint8_t { kE4M3, kInt8, kInt8Asymmetric };

struct Range {
  float amax, min, max;
};
// NaN and infinities do not enter a range.
__device__ Range include(Range r, float x) {
  if (!(fabsf(x) <= FLT_MAX)) return r;
  return {fmaxf(r.amax, fabsf(x)), fminf(r.min, x), fmaxf(r.max, x)};
}

struct Scale {
  float scale, factor;  // codes are of x / factor, or x * factor
  int zero;
  bool divide;
};
constexpr float kFp8Floor = 1.0f / (448.0f * 512.0f);

// quant/recipe.cc: fp8_vllm_row, fp8_vllm_group, int_activation.
__device__ Scale scale_of(CodeKind kind, bool grouped, const Range& r) {
  if (kind == CodeKind::kE4M3) {
    const float s = grouped ? fmaxf(r.amax, 1e-10f) / 448.0f : fmaxf(r.amax / 448.0f, kFp8Floor);
    return {s, s, 0, true};
  }
  if (kind == CodeKind::kInt8) {
    const float s = r.amax / 127.0f;
    if (s < FLT_MIN) return {FLT_EPSILON, 1.0f / FLT_EPSILON, 0, false};
    return {s, 127.0f / r.amax, 0, false};
  }
  float s = (r.max - r.min) / 255.0f;
  if (!(s <= FLT_MAX)) s = r.max / 255.0f - r.min / 255.0f;
  if (!(s >= FLT_MIN)) s = FLT_EPSILON;
  const float zero = fminf(fmaxf(-128.0f - r.min / s, -128.0f), 127.0f);
  return {s, 1.0f / s, __float2int_rn(zero), false};
}
// given_scale() of quant/recipe.cc, with the row of static activations.
__device__ Scale static_scale_of(CodeKind kind, float scale, int zero) {
  const bool divide = kind == CodeKind::kInt8;
  return {scale, divide ? scale : 1.0f / scale, zero, divide};
}

__device__ uint8_t encode_e4m3(float x) {
  if (x != x) return 0;
  return static_cast<uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
}
__device__ uint8_t code_of(CodeKind kind, float x, const Scale& s) {
  const float exact = s.divide ? x / s.factor : x * s.factor;
  if (kind == CodeKind::kE4M3) return encode_e4m3(exact);
  if (x != x) return static_cast<uint8_t>(static_cast<int8_t>(s.zero));
  const float units = rintf(exact) + static_cast<float>(s.zero);
  return static_cast<uint8_t>(
      static_cast<int8_t>(__float2int_rn(fminf(fmaxf(units, -128.0f), 127.0f))));
}

// One quantized form as kernels see it.
struct Form {
  CodeKind kind;
  bool given;      // a static scale stands in scales[0] (and zero_points[0])
  int group;       // columns of one scale; the row's length where per token
  uint8_t* codes;  // [M, stride]
  int64_t stride;
  float* scales;  // [M, scale_stride]
  int64_t scale_stride;
  int32_t* zero_points;
};

// Forms of one row each; a tensor's scale needs all rows first.
struct Forms {
  Form form[Activation::kFormatsMax];
  int count;
};

// One row, by the whole block. x was written by this block, or before it ran.
template <class T>
__device__ void quantize_row(const T* x, int64_t row, int cols, const Form& form) {
  if (form.given) {
    const int zero = form.zero_points != nullptr ? form.zero_points[0] : 0;
    const Scale s = static_scale_of(form.kind, form.scales[0], zero);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
      form.codes[row * form.stride + c] = code_of(form.kind, to_f32(x[c]), s);
    return;
  }
  const bool grouped = form.group < cols;
  // Per token: the whole block on one row. Groups: a warp a group.
  const int lanes = grouped ? 32 : blockDim.x, lane = threadIdx.x % lanes;
  const int first = grouped ? threadIdx.x / 32 : 0, step = grouped ? blockDim.x / 32 : 1;
  for (int g = first; g * form.group < cols; g += step) {
    const int begin = g * form.group, end = min(cols, begin + form.group);
    Range r{0, 0, 0};
    for (int c = begin + lane; c < end; c += lanes) r = include(r, to_f32(x[c]));
    const auto fold = [&](float v) { return grouped ? warp_max(v) : block_max(v); };
    r = {fold(r.amax), -fold(-r.min), fold(r.max)};
    const Scale s = scale_of(form.kind, grouped, r);
    if (lane == 0) {
      form.scales[row * form.scale_stride + g] = s.scale;
      if (form.zero_points != nullptr) form.zero_points[row * form.scale_stride + g] = s.zero;
    }
    for (int c = begin + lane; c < end; c += lanes) {
      form.codes[row * form.stride + c] = code_of(form.kind, to_f32(x[c]), s);
    }
  }
}
// For norm and gate, once the block has written its row.
template <class T>
__device__ void quantize_written(const T* x, int64_t row, int cols, const Forms& forms) {
  if (forms.count == 0) return;
  __syncthreads();  // the row is written
  for (int i = 0; i < forms.count; ++i) quantize_row(x, row, cols, forms.form[i]);
}
template <class T>
__global__ void quantize_rows_kernel(const T* x, int64_t stride, int cols, Form form) {
  quantize_row(x + blockIdx.x * stride, blockIdx.x, cols, form);
}

// Per tensor: fp8_vllm_tensor. Float bits of non-negative numbers order as integers.
template <class T>
__global__ void tensor_amax(const T* x, int64_t stride, int cols, float* amax) {
  Range r{0, 0, 0};
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    r = include(r, to_f32(x[blockIdx.x * stride + c]));
  const float row = block_max(r.amax);
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<int*>(amax), __float_as_int(row));
}
template <class T>
__global__ void quantize_tensor_kernel(const T* x, int64_t stride, int cols, const float* amax,
                                       Form form) {
  const float exact = *amax / 448.0f;
  const float scale = exact >= FLT_MIN ? exact : kFp8Floor;
  const float factor = 1.0f / scale;
  if (blockIdx.x == 0 && threadIdx.x == 0) form.scales[0] = scale;
  const int64_t row = blockIdx.x;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    form.codes[row * form.stride + c] = encode_e4m3(to_f32(x[row * stride + c]) * factor);
  }
}

Form form_of(const QuantizedActivation& q, int cols) {
  return {.kind = *q.spec.elem == kE4M3 ? CodeKind::kE4M3
                  : q.spec.asymmetric   ? CodeKind::kInt8Asymmetric
                                        : CodeKind::kInt8,
          .given = q.spec.when == When::kStatic,
          .group = q.spec.block.cols == kAll ? cols : q.spec.block.cols,
          .codes = q.codes.data,
          .stride = q.codes.stride,
          .scales = q.scales.data,
          .scale_stride = q.scales.stride,
          .zero_points = q.zero_points.data};
}
bool rows_stand_alone(const QuantizedActivation& q) {
  if (has_groups(q.spec)) return false;
  return q.spec.block.rows != kAll || q.spec.when == When::kStatic;
}

void quantize_form(ConstView x, const QuantizedActivation& q, Queue* queue) {
  if (has_groups(q.spec)) return quantize_groups(x, q, cuda_queue(queue));
  const cudaStream_t stream = cuda_queue(queue).stream.get();
  const int rows = static_cast<int>(x.rows), cols = static_cast<int>(x.cols);
  const Form form = form_of(q, cols);
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    const T* data = reinterpret_cast<const T*>(x.data);
    if (rows_stand_alone(q)) {
      quantize_rows_kernel<<<rows, kRowThreads, 0, stream>>>(data, x.stride, cols, form);
      return;
    }
    float* amax = reinterpret_cast<float*>(cuda_queue(queue).amax.get());
    cuda_check(cudaMemsetAsync(amax, 0, sizeof(float), stream), "clearing a range");
    tensor_amax<<<rows, kRowThreads, 0, stream>>>(data, x.stride, cols, amax);
    quantize_tensor_kernel<<<rows, kRowThreads, 0, stream>>>(data, x.stride, cols, amax, form);
  });
  cuda_check(cudaGetLastError(), "launching quantize_rows");
}

// ---- norm and gate: the value goes to `out`, in the run dtype

template <class T>
__global__ void rms_norm_kernel(const T* x, int64_t x_stride, T* out, int64_t out_stride, int cols,
                                const float* gain, float eps, Forms forms) {
  const T* from = x + blockIdx.x * x_stride;
  T* to = out + blockIdx.x * out_stride;
  float squares = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    const float v = to_f32(from[c]);
    squares = fmaf(v, v, squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    to[c] = from_f32<T>(to_f32(from[c]) * scale * gain[c]);
  }
  quantize_written(to, blockIdx.x, cols, forms);
}

__device__ float gate_value(GateFn fn, float x) {
  if (fn == GateFn::kSilu) return x / (1.0f + expf(-x));
  const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanhf(inner));
}
template <class T>
__global__ void gate_kernel(const T* x, int64_t x_stride, T* out, int64_t out_stride, int cols,
                            GateFn fn, Forms forms) {
  const T* from = x + blockIdx.x * x_stride;
  T* to = out + blockIdx.x * out_stride;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    const float v = gate_value(fn, to_f32(from[c])) * to_f32(from[cols + c]);
    to[c] = from_f32<T>(v);
  }
  quantize_written(to, blockIdx.x, cols, forms);
}

// ---- rows picked from tables

__device__ float weight_value(const DeviceWeight& w, int64_t n, int k) {
  const unsigned char* row = w.codes + n * w.row_bytes;
  const Nibble at = nibble_of(k);
  const int code = w.code_bits == 4 ? row[at.byte] >> at.shift & 15 : row[k];
  const int64_t g = n * w.groups + k / w.group_cols;
  const float value = w.codebooks != nullptr
                          ? __bfloat162float(w.codebooks[g * w.codebook_len + code])
                          : w.table[code];
  const float scale = w.wide_scales
                          ? static_cast<const float*>(w.scales)[g]
                          : __bfloat162float(static_cast<const __nv_bfloat16*>(w.scales)[g]);
  return (value - (w.zeros != nullptr ? static_cast<float>(w.zeros[g]) : 0.0f)) * scale *
         w.globals[n];
}
template <class T>
__global__ void embed_kernel(T* out, int64_t stride, DeviceWeight table, float multiplier,
                             const int32_t* ids) {
  const int64_t n = ids[blockIdx.x];
  for (int k = threadIdx.x; k < table.k; k += blockDim.x) {
    const float value =
        table.scales == nullptr
            ? to_f32(reinterpret_cast<const T*>(table.codes + n * table.row_bytes)[k])
            : weight_value(table, n, k);
    out[blockIdx.x * stride + k] = from_f32<T>(value * multiplier);
  }
}

constexpr int kGatherMax = 256;  // rows of one launch; indices travel as a parameter
struct RowIndices {
  int32_t row[kGatherMax];
};
__global__ void gather_kernel(unsigned char* out, int64_t out_bytes, const unsigned char* x,
                              int64_t x_bytes, int row_bytes, RowIndices indices) {
  const unsigned char* from = x + indices.row[blockIdx.x] * x_bytes;
  for (int i = threadIdx.x; i < row_bytes; i += blockDim.x)
    out[blockIdx.x * out_bytes + i] = from[i];
}

// Norm and gate write the run dtype; where nobody reads that form the codes are made from scratch
// memory that the producer's own reader would not keep.
View high_of(const Activation& out, const Elem& elem, int64_t rows, int64_t cols, CudaQueue& q) {
  if (!out.high.empty()) return out.high;
  return View(q.scratch(rows * cols * elem.bits() / 8), elem, rows, cols);
}
Forms row_forms(const Activation& out, int64_t cols) {
  Forms forms{};
  for (int i = 0; i < out.quantized_count; ++i) {
    const QuantizedActivation& q = out.quantized[i];
    if (rows_stand_alone(q)) forms.form[forms.count++] = form_of(q, static_cast<int>(cols));
  }
  return forms;
}
// Those that row_forms() leaves.
void quantize_tensors(const Activation& out, ConstView high, Queue* queue) {
  for (int i = 0; i < out.quantized_count; ++i)
    if (!rows_stand_alone(out.quantized[i])) quantize_form(high, out.quantized[i], queue);
}

}  // namespace

void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue* queue) {
  if (x.rows == 0) return;
  CudaQueue& q = cuda_queue(queue);
  const View high = high_of(out, *x.elem, x.rows, x.cols, q);
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    rms_norm_kernel<<<static_cast<unsigned>(x.rows), kRowThreads, 0, q.stream.get()>>>(
        reinterpret_cast<const T*>(x.data), x.stride, reinterpret_cast<T*>(high.data), high.stride,
        static_cast<int>(x.cols), gain, eps, row_forms(out, x.cols));
  });
  cuda_check(cudaGetLastError(), "launching rms_norm");
  quantize_tensors(out, high, queue);
}

void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue) {
  if (gate_up.rows == 0) return;
  CudaQueue& q = cuda_queue(queue);
  const View high = high_of(out, *gate_up.elem, gate_up.rows, gate_up.cols / 2, q);
  with_run_dtype(*gate_up.elem, [&](auto t) {
    using T = decltype(t);
    gate_kernel<<<static_cast<unsigned>(gate_up.rows), kRowThreads, 0, q.stream.get()>>>(
        reinterpret_cast<const T*>(gate_up.data), gate_up.stride, reinterpret_cast<T*>(high.data),
        high.stride, static_cast<int>(gate_up.cols / 2), fn, row_forms(out, gate_up.cols / 2));
  });
  cuda_check(cudaGetLastError(), "launching gate");
  quantize_tensors(out, high, queue);
}

void quantize_rows(const Activation& out, Queue* queue) {
  if (out.high.rows == 0) return;
  for (int i = 0; i < out.quantized_count; ++i) quantize_form(out.high, out.quantized[i], queue);
}

void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue) {
  if (batch.tokens == 0) return;
  with_run_dtype(*out.elem, [&](auto t) {
    using T = decltype(t);
    embed_kernel<<<static_cast<unsigned>(batch.tokens), kRowThreads, 0,
                   cuda_queue(queue).stream.get()>>>(reinterpret_cast<T*>(out.data), out.stride,
                                                     device_weight(table), multiplier,
                                                     batch.token_ids);
  });
  cuda_check(cudaGetLastError(), "launching embed");
}

void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue* queue) {
  const int64_t bytes = x.elem_bytes();
  for (size_t at = 0; at < rows.size(); at += kGatherMax) {
    RowIndices indices{};
    const size_t count = std::min<size_t>(kGatherMax, rows.size() - at);
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(at), count, indices.row);
    gather_kernel<<<static_cast<unsigned>(count), kRowThreads, 0, cuda_queue(queue).stream.get()>>>(
        reinterpret_cast<unsigned char*>(out.row(static_cast<int64_t>(at))), out.stride * bytes,
        reinterpret_cast<const unsigned char*>(x.data), x.stride * bytes,
        static_cast<int>(x.cols * bytes), indices);
    cuda_check(cudaGetLastError(), "launching gather_rows");
  }
}

}  // namespace mantissa::cuda
