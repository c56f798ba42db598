// Operations on rows: norm, gate, quantization of activations. One block a row. Rows whose shape
// allows it stay in registers from the first load to the last code; others go through memory. A
// scale over the whole tensor needs all rows first: their ranges are left beside them.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layer_math.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/rows_blocks.h"

namespace mantissa::cuda {
namespace {

constexpr int kRowThreads = 256;    // where rows go through memory
constexpr int kHeldThreads = 1024;  // at most, where they stay in registers
constexpr int kHeldUnits = 4;       // at most, of a thread

// ---- what is made of a row

template <class T>
struct RowOut {
  T* high;  // [M, stride]; nullptr: nobody reads it
  int64_t stride;
  Forms forms;
  float* row_amax;  // [M]; nullptr: no scale covers the tensor
  int blocks;       // of a row
};

// The row has been written to out.high by this block.
template <class T>
__device__ void finish_written(const RowOut<T>& out, int64_t row, int cols) {
  __syncthreads();  // the row is written
  const T* x = out.high + row * out.stride;
#pragma unroll 1
  for (int i = 0; i < out.forms.count; ++i) quantize_row(x, row, cols, out.forms.form[i]);
  if (out.row_amax == nullptr) return;
  Range r{0, 0, 0};
  for (int c = threadIdx.x; c < cols; c += blockDim.x) r = include(r, to_f32(x[c]));
  const float amax = block_max(r.amax);
  if (threadIdx.x == 0) out.row_amax[row] = amax;
}

template <class T, int kUnits>
__device__ void finish_held(const RowOut<T>& out, int64_t row, int cols, const Held<kUnits>& held,
                            const Team& team) {
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int col = team.col(u);
    if (out.high != nullptr && col < cols)
      *reinterpret_cast<uint4*>(out.high + row * out.stride + col) = held.v[u];
  }
#pragma unroll 1
  for (int i = 0; i < out.forms.count; ++i)
    quantize_held<T>(held, row, cols, out.forms.form[i], team);
  if (out.row_amax == nullptr) return;
  const float amax = range_of_row<T>(held, CodeKind::kE4M3, team).range.amax;
  if (threadIdx.x == 0) out.row_amax[row] = amax;
}

// ---- where the values come from: each has the row as columns (memory) and as units (registers)

template <class T>
struct AsIs {
  static constexpr bool shared() { return true; }  // several blocks may have a row
  const T* x;                                      // [M, stride]
  int64_t stride;

  template <int kUnits>
  __device__ void hold(Held<kUnits>& held, int64_t row, int cols, const Team& team) const {
    ptx::grid_dependency_wait();
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int col = team.col(u);
      if (col < cols) held.v[u] = *reinterpret_cast<const uint4*>(x + row * stride + col);
    }
  }
  __device__ void write(T*, int64_t, int) const {
    ptx::grid_dependency_wait();
  }
};

template <class T>
struct Norm {
  static constexpr bool shared() { return false; }
  const T* x;  // [M, stride]
  int64_t stride;
  const float* gain;  // [cols]
  float eps;

  __device__ float scale(float squares, int cols) const {
    return 1.0f / sqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
  }
  template <int kUnits>
  __device__ void hold(Held<kUnits>& held, int64_t row, int cols, const Team& team) const {
    const auto col_of = [&](int u) { return team.col(u); };
    float gains[kUnitCols];
    if (kUnits == 1 && col_of(0) < cols) load_unit(gains, gain + col_of(0));
    ptx::grid_dependency_wait();
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (col_of(u) < cols)
        held.v[u] = *reinterpret_cast<const uint4*>(x + row * stride + col_of(u));
    }
    float squares = 0, v[kUnitCols];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      unpack<T>(v, held.v[u]);
#pragma unroll
      for (int i = 0; i < kUnitCols; ++i) squares = fmaf(v[i], v[i], squares);
    }
    const float by = scale(squares, cols);
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (col_of(u) >= cols) continue;
      if (kUnits > 1) load_unit(gains, gain + col_of(u));
      unpack<T>(v, held.v[u]);
#pragma unroll
      for (int i = 0; i < kUnitCols; ++i) v[i] = v[i] * by * gains[i];
      held.v[u] = pack<T>(v);
    }
  }
  __device__ void write(T* to, int64_t row, int cols) const {
    ptx::grid_dependency_wait();
    const T* from = x + row * stride;
    float squares = 0;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
      const float v = to_f32(from[c]);
      squares = fmaf(v, v, squares);
    }
    const float by = scale(squares, cols);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
      to[c] = from_f32<T>(to_f32(from[c]) * by * gain[c]);
  }
};

template <class T>
struct Gate {
  static constexpr bool shared() { return true; }
  const T* x;  // [M, stride]: gate, then up
  int64_t stride;
  GateFn fn;

  template <int kUnits>
  __device__ void hold(Held<kUnits>& held, int64_t row, int cols, const Team& team) const {
    ptx::grid_dependency_wait();
    uint4 ups[kUnits] = {};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const T* from = x + row * stride + team.col(u);
      if (team.col(u) >= cols) continue;
      held.v[u] = *reinterpret_cast<const uint4*>(from);
      ups[u] = *reinterpret_cast<const uint4*>(from + cols);
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      float v[kUnitCols], up[kUnitCols];
      unpack<T>(v, held.v[u]);
      unpack<T>(up, ups[u]);
#pragma unroll
      for (int i = 0; i < kUnitCols; ++i) v[i] = gate_value(fn, v[i]) * up[i];
      held.v[u] = pack<T>(v);
    }
  }
  __device__ void write(T* to, int64_t row, int cols) const {
    ptx::grid_dependency_wait();
    const T* from = x + row * stride;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
      to[c] = from_f32<T>(gate_value(fn, to_f32(from[c])) * to_f32(from[cols + c]));
  }
};

template <class T, template <class> class Source>
__global__ void written_rows(const Source<T> source, const __grid_constant__ RowOut<T> out,
                             int cols) {
  ptx::grid_dependency_launch();
  source.write(out.high + blockIdx.x * out.stride, blockIdx.x, cols);
  finish_written(out, blockIdx.x, cols);
}
// Registers: so that three blocks of 448 threads (rows of 14336) share a multiprocessor.
template <class T, template <class> class Source, int kUnits>
__global__ void __maxnreg__(48)
    held_rows(const Source<T> source, const __grid_constant__ RowOut<T> out, int cols) {
  ptx::grid_dependency_launch();
  const Team team{out.blocks, static_cast<int>(blockIdx.x) % out.blocks};
  const int64_t row = blockIdx.x / out.blocks;
  Held<kUnits> held{};
  source.hold(held, row, cols, team);
  finish_held(out, row, cols, held, team);
}

// ---- a scale over the tensor: fp8_vllm_tensor

constexpr int kFoldAlone = 256;  // rows whose ranges every block may fold again

__device__ float fold_rows(const float* row_amax, int rows) {
  float amax = 0;
  for (int i = threadIdx.x; i < rows; i += blockDim.x) amax = fmaxf(amax, row_amax[i]);
  return block_amax(amax);
}
__global__ void fold_rows_kernel(float* row_amax, int rows) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const float amax = fold_rows(row_amax, rows);
  if (threadIdx.x == 0) row_amax[0] = amax;
}
template <class T>
__global__ void quantize_tensor_kernel(const T* x, int64_t stride, int cols, const float* row_amax,
                                       int rows, Form form) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const int64_t row = blockIdx.x;
  const Scale s = scale_of(form.kind, Extent::kTensor, {fold_rows(row_amax, rows), 0, 0});
  if (row == 0 && threadIdx.x == 0) form.scales[0] = s.scale;
  const T* from = x + row * stride;
  uint8_t* to = form.codes + row * form.stride;
  const auto unaligned = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to);
  const int held = unaligned % 16 == 0 ? cols / kUnitCols * kUnitCols : 0;
  for (int c = threadIdx.x * kUnitCols; c < held; c += blockDim.x * kUnitCols) {
    float v[kUnitCols];
    load_unit(v, from + c);
    put_codes(form, row, c, v, s);
  }
  for (int c = held + threadIdx.x; c < cols; c += blockDim.x)
    to[c] = code_of(form.kind, to_f32(from[c]), s);
}

// ---- host

Form form_of(const QuantizedActivation& q, int cols) {
  return {.kind = *q.spec.elem == kE4M3 ? CodeKind::kE4M3
                  : q.spec.asymmetric   ? CodeKind::kInt8Asymmetric
                                        : CodeKind::kInt8,
          .extent = q.spec.block.rows == kAll                               ? Extent::kTensor
                    : q.spec.block.cols != kAll && q.spec.block.cols < cols ? Extent::kGroup
                                                                            : Extent::kRow,
          .given = q.spec.when == When::kStatic,
          .group = q.spec.block.cols == kAll ? cols : q.spec.block.cols,
          .codes = q.codes.data,
          .stride = q.codes.stride,
          .scales = q.scales.data,
          .scale_stride = q.scales.stride,
          .zero_points = q.zero_points.data};
}
// Whether a row can be quantized without the others.
bool stands_alone(const QuantizedActivation& q, int64_t rows) {
  return rows == 1 || q.spec.block.rows != kAll || q.spec.when == When::kStatic;
}

bool aligned(const void* p, int64_t stride_bytes, int to) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<size_t>(to) == 0 && stride_bytes % to == 0;
}
// Whether rows of `cols` may stay in registers: of 16-bit values.
template <class T>
bool may_hold(const T* x, int64_t x_stride, const RowOut<T>& out, int cols) {
  constexpr int64_t kSize = sizeof(T);
  bool may = kSize == 2 && cols % kUnitCols == 0 && cols <= kHeldThreads * kHeldUnits * kUnitCols &&
             aligned(x, x_stride * kSize, 16) && aligned(out.high, out.stride * kSize, 16);
  for (int i = 0; i < out.forms.count; ++i) {
    const Form& f = out.forms.form[i];
    may = may && aligned(f.codes, f.stride, kUnitCols);
    if (f.extent == Extent::kGroup)
      may = may && f.group % kUnitCols == 0 && f.group <= kHeldGroupMax &&
            (f.group & (f.group - 1)) == 0;
  }
  return may;
}

// How threads share a row: few rows get many threads, wide ones a cluster of blocks if `shared`;
// many rows get few threads with more loads each.
struct HeldShape {
  int units, threads, blocks;
};
constexpr int kRowsFew = 64, kRowsSome = 264, kUnitsWide = 1024;
HeldShape held_shape(int rows, int cols, bool shared) {
  const int units = cols / kUnitCols;
  HeldShape s{.units = 1, .threads = 0, .blocks = 1};
  if (shared && rows <= kRowsFew && units >= kUnitsWide && compute_capability() >= 90) {
    s.blocks = ptx::kClusterMax;
  } else if (rows > kRowsSome || units > kHeldThreads) {
    s.units = kHeldUnits;
  }
  const int each = s.units * s.blocks;
  s.threads = ((units + each - 1) / each + 31) / 32 * 32;
  return s;
}

// What a call asks for, by who makes it.
struct Wanted {
  Forms alone;       // here, row by row
  bool over_tensor;  // here, once all rows are there
  bool in_groups;    // rows_blocks.cu, from the high-precision rows
};
Wanted wanted_of(const Activation& out, int rows, int cols) {
  Wanted w{};
  for (int i = 0; i < out.quantized_count; ++i) {
    const QuantizedActivation& q = out.quantized[i];
    if (has_groups(q.spec)) {
      w.in_groups = true;
    } else if (stands_alone(q, rows)) {
      w.alone.form[w.alone.count++] = form_of(q, cols);
    } else {
      w.over_tensor = true;
    }
  }
  return w;
}

// The forms that need all rows: from `high`, and the rows' ranges.
template <class T>
void finish_tensors(const Activation& out, View high, float* row_amax, Queue* queue) {
  CudaQueue& q = cuda_queue(queue);
  const auto rows = static_cast<int>(high.rows), cols = static_cast<int>(high.cols);
  if (row_amax != nullptr && rows > kFoldAlone) {
    launch("launching fold_rows", fold_rows_kernel, {.grid = dim3(1), .block = dim3(1024)},
           q.stream.get(), row_amax, rows);
  }
  for (int i = 0; i < out.quantized_count; ++i) {
    const QuantizedActivation& form = out.quantized[i];
    if (has_groups(form.spec)) {
      quantize_groups(high, form, q);
    } else if (!stands_alone(form, rows)) {
      launch("launching quantize_tensor", quantize_tensor_kernel<T>,
             {.grid = dim3(static_cast<unsigned>(rows)), .block = dim3(kRowThreads)},
             q.stream.get(), reinterpret_cast<const T*>(high.data), high.stride, cols, row_amax,
             rows > kFoldAlone ? 1 : rows, form_of(form, cols));
    }
  }
}

// Rows of `source` in the forms that `out` asks for. `input_is_high`: out.high is what is read.
template <class T, template <class> class Source>
void run_rows(const Activation& out, const Source<T>& source, const ConstView& like, int cols,
              bool input_is_high, Queue* queue) {
  CudaQueue& q = cuda_queue(queue);
  const auto rows = static_cast<int>(like.rows);
  const Wanted wanted = wanted_of(out, rows, cols);
  RowOut<T> to{.high = reinterpret_cast<T*>(out.high.data),
               .stride = out.high.stride,
               .forms = wanted.alone,
               .row_amax = nullptr,
               .blocks = 1};
  const bool held = may_hold(source.x, source.stride, to, cols);
  // Scratch: the values where nobody else keeps them but they are read again, and ranges of rows.
  const bool keeps = out.high.empty() && (wanted.over_tensor || wanted.in_groups || !held);
  const int64_t high_bytes = keeps ? (int64_t{rows} * cols * int64_t{sizeof(T)} + 63) / 64 * 64 : 0;
  View high = out.high;
  if (keeps || wanted.over_tensor) {
    std::byte* scratch = q.scratch(high_bytes + int64_t{rows} * 4);
    if (keeps) {
      high = View(scratch, *like.elem, rows, cols);
      to.high = reinterpret_cast<T*>(scratch);
      to.stride = cols;
    }
    if (wanted.over_tensor) to.row_amax = reinterpret_cast<float*>(scratch + high_bytes);
  }
  if (input_is_high && to.forms.count == 0 && !wanted.over_tensor) {
    // Nothing of the rows is made here.
  } else if (held) {
    if (input_is_high) to.high = nullptr;
    if constexpr (sizeof(T) == 2) {
      const HeldShape shape = held_shape(rows, cols, Source<T>::shared());
      to.blocks = shape.blocks;
      const auto kernel =
          shape.units == 1 ? held_rows<T, Source, 1> : held_rows<T, Source, kHeldUnits>;
      launch("launching held_rows", kernel,
             {.grid = dim3(static_cast<unsigned>(rows * shape.blocks)),
              .block = dim3(static_cast<unsigned>(shape.threads)),
              .cluster = shape.blocks},
             q.stream.get(), source, to, cols);
    }
  } else {
    launch("launching written_rows", written_rows<T, Source>,
           {.grid = dim3(static_cast<unsigned>(rows)), .block = dim3(kRowThreads)}, q.stream.get(),
           source, to, cols);
  }
  if (wanted.over_tensor || wanted.in_groups) finish_tensors<T>(out, high, to.row_amax, queue);
}

}  // namespace

void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue* queue) {
  if (x.rows == 0) return;
  with_run_dtype(*x.elem, [&](auto t) {
    using T = decltype(t);
    const Norm<T> source{reinterpret_cast<const T*>(x.data), x.stride, gain, eps};
    run_rows(out, source, x, static_cast<int>(x.cols), false, queue);
  });
}

void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue) {
  if (gate_up.rows == 0) return;
  with_run_dtype(*gate_up.elem, [&](auto t) {
    using T = decltype(t);
    const Gate<T> source{reinterpret_cast<const T*>(gate_up.data), gate_up.stride, fn};
    run_rows(out, source, gate_up, static_cast<int>(gate_up.cols / 2), false, queue);
  });
}

void quantize_rows(const Activation& out, Queue* queue) {
  if (out.high.rows == 0 || out.quantized_count == 0) return;
  with_run_dtype(*out.high.elem, [&](auto t) {
    using T = decltype(t);
    const AsIs<T> source{reinterpret_cast<const T*>(out.high.data), out.high.stride};
    run_rows(out, source, out.high, static_cast<int>(out.high.cols), true, queue);
  });
}

}  // namespace mantissa::cuda
