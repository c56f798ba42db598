// Quantizes weights: the device's form of quant/quantize.h, with the same formulas and encoders
// (quant/formulas.h, encode_value.h), compiled without contraction, so equal bit for bit. Bound by
// memory: raw values are read twice, the second time mostly from caches.
#include <algorithm>
#include <limits>

#include "kernels/cuda/byte_scale.cuh"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/quantize_weights.h"
#include "kernels/cuda/weight.h"
#include "quant/encode_value.h"
#include "quant/recipe.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 8;  // columns that a thread encodes at once: 4 or 8 bytes of codes
constexpr int kInfinity = 0x7f800000;

// ---- values

// Values of a part [rows, cols], rounded to the run dtype.
struct Source {
  const void* data;  // nullptr: dummy values
  RunDtype stored, run;
  uint64_t stream;
  int cols;

  // Not inlined: the kernels that unroll over it would be large.
  __device__ __noinline__ float at(int64_t row, int col) const {
    const int64_t i = row * cols + col;
    float v;
    if (data == nullptr) {
      v = dummy_value(stream, static_cast<uint64_t>(i));
    } else if (stored == RunDtype::kF32) {
      v = static_cast<const float*>(data)[i];
    } else {
      v = wide(static_cast<const uint16_t*>(data)[i]);
    }
    return round_to(run, v);
  }
  // The n values from col on; 0 beyond.
  __device__ void chunk(int64_t row, int col, int n, float (&out)[kChunk]) const {
    const auto* from = static_cast<const uint16_t*>(data) + row * cols + col;
    const bool whole = data != nullptr && stored != RunDtype::kF32 && n == kChunk &&
                       reinterpret_cast<uintptr_t>(from) % sizeof(uint4) == 0;
    if (!whole) {
#pragma unroll
      for (int e = 0; e < kChunk; ++e) out[e] = e < n ? at(row, col + e) : 0.0f;
      return;
    }
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      out[e] = round_to(run, wide(static_cast<uint16_t>(word[e / 2] >> (e % 2 * 16))));
    }
  }

 private:
  __device__ float wide(uint16_t bits) const {
    return stored == RunDtype::kBF16 ? f32_from_bf16(bits) : f32_from_f16(bits);
  }
};

__device__ int magnitude_bits(float v) {
  return __float_as_int(v) & 0x7fffffff;
}

// One thread's share of a weight's counters.
struct Tally {
  unsigned nan = 0, inf = 0, saturated = 0;
  __device__ void add_to(WeightCounters* counters) const {
    if (nan > 0) atomicAdd(&counters->nan, static_cast<unsigned long long>(nan));
    if (inf > 0) atomicAdd(&counters->inf, static_cast<unsigned long long>(inf));
    if (saturated > 0) {
      atomicAdd(&counters->saturated, static_cast<unsigned long long>(saturated));
    }
  }
};

// ---- the range of a whole tensor

__global__ void observe_kernel(Source x, int64_t rows, WeightCounters* counters) {
  int most = 0;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    for (int c = threadIdx.x * kChunk; c < x.cols; c += blockDim.x * kChunk) {
      float v[kChunk];
      x.chunk(r, c, min(kChunk, x.cols - c), v);
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        const int bits = magnitude_bits(v[e]);
        if (bits < kInfinity) most = max(most, bits);
      }
    }
  }
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0 && most > 0) atomicMax(&counters->amax_bits, most);
}

// ---- codes

struct QuantizeArgs {
  Source x;
  int64_t rows;    // of the part
  RecipeInput in;  // numbers of the spec
  RecipeRow recipe;
  bool one_scale, two_levels, saturates, first;  // first: the part starts the weight
  int block_rows, block_cols, groups;  // of a scale; 1 row where one scale spans the tensor
  // The part's rows in the weight (weight.h).
  unsigned char* codes;
  int64_t row_bytes;
  int code_bits, widened_bits;
  void* scales;
  ScaleForm scale_form;
  int64_t scale_row0;  // bytes: of the part, in the weight; else `scales` begins with the part
  int scale_blocks, scale_rows;
  int64_t scale_pitch;
  int8_t* zeros;
  float* globals;
  WeightCounters* counters;
};

// The values that share a scale.
struct Unit {
  int64_t row0;
  int rows, group, col0, col_end;
};
__device__ Unit unit_of(const QuantizeArgs& a, int64_t index) {
  Unit u;
  u.row0 = index / a.groups * a.block_rows;
  u.rows = static_cast<int>(max(int64_t{0}, min(int64_t{a.block_rows}, a.rows - u.row0)));
  u.group = static_cast<int>(index % a.groups);
  u.col0 = u.group * a.block_cols;
  u.col_end = min(a.x.cols, u.col0 + a.block_cols);
  return u;
}

// Over kLanes neighbouring threads: a power of two, or the block.
template <int kLanes>
__device__ float fold_max(float v) {
  if constexpr (kLanes > 32) {
    return block_max(v);
  } else {
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    }
    return v;
  }
}

// Every lane gets it.
template <int kLanes>
__device__ BlockRange range_of(const QuantizeArgs& a, const Unit& u, int lane) {
  const int chunks = (u.col_end - u.col0 + kChunk - 1) / kChunk;
  BlockRange range;
  for (int i = lane; i < u.rows * chunks; i += kLanes) {
    const int col = u.col0 + i % chunks * kChunk;
    float x[kChunk];
    a.x.chunk(u.row0 + i / chunks, col, min(kChunk, u.col_end - col), x);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      const int bits = magnitude_bits(x[e]);
      const float v = bits < kInfinity ? x[e] : 0.0f;
      range.amax = fmaxf(range.amax, fabsf(v));
      range.min = v < range.min ? v : range.min;
      range.max = v > range.max ? v : range.max;
    }
  }
  range.amax = fold_max<kLanes>(range.amax);
  if (a.in.asymmetric) {
    range.min = -fold_max<kLanes>(-range.min);
    range.max = fold_max<kLanes>(range.max);
  }
  return range;
}

__device__ void store_scale(const QuantizeArgs& a, const Unit& u, const BlockScale& s, int row) {
  const int64_t r = u.row0 + row, at = scale_at(r, u.group, a.scale_rows, a.scale_pitch);
  if (is_byte(a.scale_form)) {
    const int64_t to = byte_scale_at(a.scale_row0 + r, u.group, a.scale_blocks, a.block_cols);
    static_cast<uint8_t*>(a.scales)[to] = byte_of_scale(s.scale, a.scale_form);
  } else if (a.scale_form == ScaleForm::kBf16) {
    static_cast<uint16_t*>(a.scales)[at] = bf16_from_f32(s.scale);
  } else if (row % a.scale_rows == 0) {
    static_cast<float*>(a.scales)[at] = s.scale;
  }
  if (a.zeros != nullptr) a.zeros[r * a.groups + u.group] = static_cast<int8_t>(s.zero);
  if (u.group == 0) a.globals[r] = a.in.global_scale;
}

// Codes of the n values x[0..n) into one word of kChunk codes; the others are 0.
__device__ uint64_t encode_chunk(const QuantizeArgs& a, const BlockScale& s, const float* x,
                                 int n) {
  const bool divide = divides(a.recipe.apply), rounded = rounds_units(a.recipe.apply);
  float units[kChunk];
#pragma unroll
  for (int e = 0; e < kChunk; ++e) units[e] = to_units(divide, x[e], s.factor);
  if (rounded) {
#pragma unroll
    for (int e = 0; e < kChunk; ++e) units[e] = rounded_units(a.in, divide, s, x[e]);
  }
  uint64_t codes = 0;
  const auto encode = [&](const auto encoder) {
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      if (e < n) codes |= static_cast<uint64_t>(encoder(units[e])) << (8 * e);
    }
  };
  if (a.recipe.ties_down) {
    encode([](float v) { return encode_ties_down(v); });
  } else {
    with_encoder(a.in, rounded ? 0 : s.zero, encode);
  }
  return codes;
}

// Columns [col, col + kChunk) of a row of codes, a byte each in `codes`.
__device__ void store_chunk(const QuantizeArgs& a, int64_t row, int col, uint64_t codes) {
  unsigned char* to = a.codes + row * a.row_bytes;
  if (a.code_bits == 8) {
    *reinterpret_cast<uint64_t*>(to + col) = codes;
    return;
  }
  // Eight aligned columns are one word of four bytes.
  const int first = nibble_of(col).byte;
  uint32_t word = 0;
#pragma unroll
  for (int e = 0; e < kChunk; ++e) {
    const Nibble at = nibble_of(col + e);
    const auto code = static_cast<uint32_t>(codes >> (8 * e)) & 15u;
    word |= code << ((at.byte - first) * 8 + at.shift);
  }
  *reinterpret_cast<uint32_t*>(to + first) = widen_nibbles(word, a.widened_bits);
}

__device__ __noinline__ BlockScale scale_of(const QuantizeArgs& a, const BlockRange& range) {
  return block_scale(a.recipe.rule, a.in, range);
}

// kLanes threads a unit.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) quantize_kernel(const QuantizeArgs given) {
  const int lane = threadIdx.x % kLanes;
  const Unit u = unit_of(given, int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes);
  QuantizeArgs a = given;
  const float amax = __int_as_float(a.counters->amax_bits);
  if (a.two_levels) {
    a.in.global_amax = amax;
    a.in.global_scale = global_scale(a.recipe.global, a.in);
  }
  BlockRange range{amax, 0, 0};
  if (!a.one_scale) range = range_of<kLanes>(a, u, lane);
  const bool counts = a.one_scale ? a.first && u.row0 == 0 : u.rows > 0;
  if (lane == 0 && counts && range.amax == 0) atomicAdd(&a.counters->zero_blocks, 1ull);
  const BlockScale scale = scale_of(a, range);
  for (int r = lane; r < u.rows; r += kLanes) store_scale(a, u, scale, r);

  // The last group's chunks reach to the end of the stored row: its padding is 0.
  const bool last = u.group + 1 == a.groups;
  const int stored_cols = static_cast<int>(a.row_bytes * 8 / a.code_bits);
  const int chunks = ((last ? stored_cols : u.col_end) - u.col0 + kChunk - 1) / kChunk;
  Tally tally;
  for (int i = lane; i < u.rows * chunks; i += kLanes) {
    const int64_t row = u.row0 + i / chunks;
    const int col = u.col0 + i % chunks * kChunk, n = max(0, min(kChunk, u.col_end - col));
    float x[kChunk];
    a.x.chunk(row, col, n, x);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      const int bits = magnitude_bits(x[e]);
      tally.nan += bits > kInfinity;
      tally.inf += bits == kInfinity;
      if (a.saturates && bits < kInfinity) {
        tally.saturated += saturates(a.in, a.recipe.apply, scale, x[e]);
      }
      if (bits > kInfinity) x[e] = 0.0f;
    }
    store_chunk(a, row, col, encode_chunk(a, scale, x, n));
  }
  tally.add_to(a.counters);
}

// ---- weights in the run dtype; their raw values may be where they stay

template <class Stored, class Store>
__device__ void convert_rows(const Source& x, int64_t rows, unsigned char* out, int64_t row_bytes,
                             WeightCounters* counters, const Store& store) {
  Tally tally;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    auto* to = reinterpret_cast<Stored*>(out + r * row_bytes);
    for (int c = threadIdx.x; c * static_cast<int>(sizeof(Stored)) < row_bytes; c += blockDim.x) {
      const float v = c < x.cols ? x.at(r, c) : 0.0f;
      tally.nan += magnitude_bits(v) > kInfinity;
      tally.inf += magnitude_bits(v) == kInfinity;
      to[c] = store(v);
    }
  }
  tally.add_to(counters);
}
__global__ void convert_kernel(Source x, int64_t rows, unsigned char* out, int64_t row_bytes,
                               WeightCounters* counters) {
  if (x.run == RunDtype::kF32) {
    convert_rows<float>(x, rows, out, row_bytes, counters, [](float v) { return v; });
  } else if (x.run == RunDtype::kF16) {
    convert_rows<uint16_t>(x, rows, out, row_bytes, counters, f16_from_f32);
  } else {
    convert_rows<uint16_t>(x, rows, out, row_bytes, counters, bf16_from_f32);
  }
}

// A parameter: copied when the kernel is launched.
__global__ void store_table_kernel(CodeTable table, float* out) {
  out[threadIdx.x] = table.value[threadIdx.x];
}

// ---- host side

constexpr int kRowBlocksMax = 16384;

Source source_of(const Weight& w, const RawPart& part) {
  return {.data = part.device,
          .stored = part.elem != nullptr ? run_dtype_of(*part.elem) : RunDtype::kF32,
          .run = run_dtype_of(*w.request.run_dtype),
          .stream = part.stream,
          .cols = static_cast<int>(w.request.cols)};
}
int row_blocks(int64_t rows) {
  return static_cast<int>(std::min<int64_t>(rows, kRowBlocksMax));
}

QuantizeArgs quantize_args(const Weight& w, const RawPart& part, WeightCounters* counters) {
  const WeightLayout l(w.request);
  const Spec& spec = w.request.scheme.weight;
  const auto at = [&](int64_t section, int64_t row_bytes) {
    return reinterpret_cast<unsigned char*>(w.data) + section + part.row0 * row_bytes;
  };
  const int scale_bytes = l.scale_form == ScaleForm::kF32 ? 4 : 2;
  const int64_t scale0 =
      is_byte(l.scale_form) ? 0 : scale_at(part.row0, 0, l.scale_rows, l.scale_pitch);
  check(part.row0 % l.scale_rows == 0, "a part of rows that begins at a tile");
  return {.x = source_of(w, part),
          .rows = part.rows,
          .in = recipe_input(spec, *w.request.run_dtype),
          .recipe = find_recipe(spec),
          .one_scale = spec.block == per_tensor(),
          .two_levels = spec.global_scale,
          .saturates = *spec.scale == kE8M0,
          .first = part.row0 == 0,
          .block_rows = spec.block.rows == kAll ? 1 : spec.block.rows,
          .block_cols = l.group_cols,
          .groups = static_cast<int>(l.groups),
          .codes = at(l.codes, l.row_bytes),
          .row_bytes = l.row_bytes,
          .code_bits = l.code_bits,
          .widened_bits = l.widened_bits,
          .scales = w.data + l.scales + scale0 * scale_bytes,
          .scale_form = l.scale_form,
          .scale_row0 = part.row0,
          .scale_blocks = l.scale_blocks,
          .scale_rows = l.scale_rows,
          .scale_pitch = l.scale_pitch,
          .zeros = l.asymmetric ? reinterpret_cast<int8_t*>(at(l.zeros, l.groups)) : nullptr,
          .globals = reinterpret_cast<float*>(at(l.globals, 4)),
          .counters = counters};
}

// How many threads work on the values of one scale: a chunk each, for small blocks.
struct KernelRow {
  int64_t values_most;
  int lanes;
  void (*run)(QuantizeArgs);
};
constexpr KernelRow kQuantizeKernels[] = {
    {4 * kChunk, 4, quantize_kernel<4>},
    {16 * kChunk, 16, quantize_kernel<16>},
    {128 * kChunk, 32, quantize_kernel<32>},
    {std::numeric_limits<int64_t>::max(), kThreads, quantize_kernel<kThreads>},
};

}  // namespace

bool spans_tensor(const Spec& spec) {
  return spec.quantized() && (spec.block.rows == kAll || spec.global_scale);
}

void observe_part(const Weight& w, const RawPart& part, WeightCounters* counters,
                  cudaStream_t stream) {
  if (part.rows == 0) return;
  observe_kernel<<<row_blocks(part.rows), kThreads, 0, stream>>>(source_of(w, part), part.rows,
                                                                 counters);
  cuda_check(cudaGetLastError(), "launching observe");
}

void store_table(const Weight& w, cudaStream_t stream) {
  const WeightLayout l(w.request);
  if (l.groups == 0) return;
  store_table_kernel<<<1, kCodes, 0, stream>>>(code_table(*w.request.scheme.weight.elem),
                                               reinterpret_cast<float*>(w.data + l.table));
  cuda_check(cudaGetLastError(), "launching store_table");
}

void quantize_part(const Weight& w, const RawPart& part, WeightCounters* counters,
                   cudaStream_t stream) {
  if (part.rows == 0 || w.request.cols == 0) return;
  if (!w.request.scheme.weight.quantized()) {
    const WeightLayout l(w.request);
    convert_kernel<<<row_blocks(part.rows), kThreads, 0, stream>>>(
        source_of(w, part), part.rows,
        reinterpret_cast<unsigned char*>(w.data) + l.codes + part.row0 * l.row_bytes, l.row_bytes,
        counters);
    cuda_check(cudaGetLastError(), "launching convert");
    return;
  }
  const QuantizeArgs args = quantize_args(w, part, counters);
  check(args.block_cols % kChunk == 0 || args.groups == 1, "groups of whole chunks");
  const int64_t units = (part.rows + args.block_rows - 1) / args.block_rows * args.groups;
  const int64_t values = args.block_rows * std::min<int64_t>(args.block_cols, args.x.cols);
  for (const KernelRow& row : kQuantizeKernels) {
    if (values > row.values_most) continue;
    const int64_t units_a_block = kThreads / row.lanes;
    const auto grid = static_cast<unsigned>((units + units_a_block - 1) / units_a_block);
    row.run<<<grid, kThreads, 0, stream>>>(args);
    break;
  }
  cuda_check(cudaGetLastError(), "launching quantize");
}

}  // namespace mantissa::cuda
