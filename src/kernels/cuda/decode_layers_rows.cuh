// Rows of the layers' kernel (decode_layers.cuh), by the warps that multiply: waits for what other
// blocks made, norm, codes or limbs, operands in shared memory.
#pragma once

#include "kernels/cuda/decode_layers_block.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/row_exchange.cuh"

namespace mantissa::cuda {
namespace {

// A thread's units of a row; 0 beyond it.
template <int kUnitsOf>
struct HeldRow {
  static constexpr int kUnits = kUnitsOf;
  uint4 v[kUnits];
  int cols;

  __device__ explicit HeldRow(int cols) : cols(cols) {}
  // The first column of a unit.
  __device__ static int col(int u) {
    return (u * kMultiplyThreads + static_cast<int>(threadIdx.x)) * kUnitCols;
  }
  // visit(unit, u) may change a thread's unit; for units of `up_to` columns.
  template <class Visit>
  __device__ void for_each(int up_to, const Visit& visit) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (kUnits > kUnitsFew && u * kMultiplyThreads * kUnitCols >= up_to) break;
      visit(v[u], u);
    }
  }
};
// `awaited`: other blocks make it now (row_exchange.cuh). far: they begin only after a while; so
// often a lane of each warp looks for it alone, and leaves the memory to others. between(): what a
// warp does while words come.
template <class Row, class Between>
__device__ void load_row_units(Row& row, const void* x, bool awaited, int far,
                               const Between& between) {
  const auto* units = static_cast<const uint4*>(x);
  const bool first = threadIdx.x % 32 == 0;
#pragma unroll
  for (int u = 0; u < Row::kUnits; ++u) {
    const uint32_t word = row.col(u) < row.cols ? kNotThere : 0;
    row.v[u] = make_uint4(word, word, word, word);
  }
  bool missing;
  do {
    if (far == 0 || first) {
#pragma unroll
      for (int u = 0; u < Row::kUnits; ++u)
        if (!is_there(row.v[u])) row.v[u] = ptx::load_relaxed(units + row.col(u) / kUnitCols);
    }
    between();
    if (far > 0) far = __any_sync(0xffffffffu, first && is_there(row.v[0])) ? 0 : far - 1;
    missing = false;
#pragma unroll
    for (int u = 0; u < Row::kUnits; ++u) missing = missing || !is_there(row.v[u]);
  } while (__any_sync(0xffffffffu, missing && awaited));
}

// Gains of a thread's first units, asked for before the row is there.
constexpr int kGainUnits = 3;
struct HeldGains {
  float v[kGainUnits][kUnitCols];

  template <class Row>
  __device__ void load(const Row& row, const float* gain) {
#pragma unroll
    for (int u = 0; u < (Row::kUnits < kGainUnits ? Row::kUnits : kGainUnits); ++u)
      if (row.col(u) < row.cols) load_unit(v[u], gain + row.col(u));
  }
};

// Partial results of the warps, [kUnitsMax][8]; used by turns, so that one barrier is enough.
constexpr int kFoldParts = kUnitsMax * kMultiplyWarps;
struct Fold {
  float* partial;
  int turn;

  __device__ float* begin() {
    turn ^= 1;
    return partial + turn * kFoldParts;
  }
};

// x / sqrt(mean(x^2) + eps) * gain, rounded; sums in the order of rows.cu for up to 8192 columns.
template <class Row>
__device__ void norm_units(Row& row, const HeldGains& gains, const float* gain, float eps,
                           Fold& fold) {
  const int cols = row.cols;
  float* partial = fold.begin();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  row.for_each(cols, [&](uint4& unit, int u) {
    float v[kUnitCols], squares = 0;
    unpack<__nv_bfloat16>(v, unit);
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i) squares = fmaf(v[i], v[i], squares);
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) partial[u * kMultiplyWarps + warp] = squares;
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's sum is there
  const int parts = (cols + 32 * kUnitCols - 1) / (32 * kUnitCols);
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < parts; i += 16) {
    float of[16];
#pragma unroll
    for (int j = 0; j < 16; j += 4)
      *reinterpret_cast<float4*>(of + j) = *reinterpret_cast<const float4*>(partial + i + j);
#pragma unroll
    for (int j = 0; j < 16; ++j) sum += i + j < parts ? of[j] : 0.0f;
  }
  const float by = 1.0f / sqrtf(sum / static_cast<float>(cols) + eps);
  row.for_each(cols, [&](uint4& unit, int u) {
    if (row.col(u) >= cols) return;
    float v[kUnitCols], later[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    if (u >= kGainUnits) load_unit(later, gain + row.col(u));
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i)
      v[i] = v[i] * by * (u < kGainUnits ? gains.v[min(u, kGainUnits - 1)][i] : later[i]);
    unit = pack<__nv_bfloat16>(v);
  });
}

// The largest magnitude as bits of float32; of the finite values alone where `finite`.
__device__ uint32_t unit_amax_bits(const uint4& unit, bool finite) {
  if (!finite) return amax_bits(unit);
  constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t amax = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = word_of(unit, i) << 16 & 0x7fff0000u;
    const uint32_t high = word_of(unit, i) & 0x7fff0000u;
    amax = max(amax, max(low < kInfinity ? low : 0, high < kInfinity ? high : 0));
  }
  return amax;
}
template <class Row>
__device__ uint32_t row_amax_bits(const Row& row, Fold& fold, bool finite) {
  uint32_t amax = 0;
#pragma unroll
  for (int u = 0; u < Row::kUnits; ++u) amax = max(amax, unit_amax_bits(row.v[u], finite));
  amax = __reduce_max_sync(0xffffffffu, amax);
  auto* partial = reinterpret_cast<uint32_t*>(fold.begin());
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = amax;
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's maximum is there
  return __reduce_max_sync(0xffffffffu, partial[threadIdx.x % kMultiplyWarps]);
}

// Of the codes that activations become where they do.
template <class F>
constexpr CodeKind kRowKind = F::kIntegers&& F::kLimbs == 0 ? CodeKind::kInt8 : CodeKind::kE4M3;

// How a row becomes codes. fast: all values are finite and the scale is none of the rare ones.
struct RowCodes {
  Scale scale;
  FastCodes codes;
  bool fast;
};
template <class F, class Row>
__device__ RowCodes row_codes(const Block<F>& b, const Row& row, const float* given, Fold& fold) {
  constexpr CodeKind kKind = kRowKind<F>;
  float amax = __uint_as_float(row_amax_bits(row, fold, false));
  const bool finite = amax <= FLT_MAX;
  if (!finite) amax = __uint_as_float(row_amax_bits(row, fold, true));
  const Scale s = b.d.x_static ? static_scale_of(kKind, *given, 0)
                               : scale_of(kKind, b.d.x_over_tensor ? Extent::kTensor : Extent::kRow,
                                          {amax, 0, 0});
  if (threadIdx.x == 0) *reinterpret_cast<float*>(b.shared + b.plan.x_scale) = s.scale;
  RowCodes out{s, FastCodes(kKind, s), false};
  out.fast = FastCodes::fits(kKind, {{}, finite}, s) &&
             (s.divide ? kKind != CodeKind::kInt8 : !b.d.x_static);
  if (!s.divide) {
    out.codes.factor = s.factor;
    out.codes.rest = 0;
  }
  return out;
}
// Eight values -> eight codes.
template <class F>
__device__ uint2 codes_of_unit(const uint4& unit, const RowCodes& by) {
  constexpr CodeKind kKind = kRowKind<F>;
  if (by.fast) {
    float v[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    return make_uint2(by.codes.word(v[0], v[1], v[2], v[3]), by.codes.word(v[4], v[5], v[6], v[7]));
  }
  uint64_t codes = 0;
  for_each_value<__nv_bfloat16>(
      unit, [&](float x, int i) { codes |= uint64_t{code_of(kKind, x, by.scale)} << (8 * i); });
  return make_uint2(static_cast<uint32_t>(codes), static_cast<uint32_t>(codes >> 32));
}

// A row of e4m3 codes as limbs: a thread's units lie in its warp's lines of weights alone. What the
// warp's results are multiplied with, beside the row's scale.
template <class F, class Row>
__device__ float stage_code_limbs(const Block<F>& b, Row& row, int role, const float* given,
                                  Fold& fold) {
  const int cols = b.plan.roles[role].plan.lines * 2 * F::kBlockValues;
  const RowCodes by = row_codes(b, row, given, fold);
  bool nan = false;
  row.for_each(cols, [&](const uint4& unit, int u) {
    if (row.col(u) >= cols) return;
    const uint2 codes = codes_of_unit<F>(unit, by);
    nan = put_code_limbs(F{}, codes, row.col(u), b.shared + b.plan.ring.x) || nan;
  });
  return code_limb_result_scale<F>(nan);  // the warp's x is there
}

// What the warp's results are multiplied with. int4: a thread's units of a row lie in its warp's
// lines of weights alone, so nobody waits for another warp, and its largest magnitude is scale
// enough. int8: the row's.
template <class F, class Row>
__device__ float stage_row_limbs(const Block<F>& b, Row& row, int role, Fold& fold) {
  static_assert(!F::kNibbleLimbs || 2 * F::kBlockValues == 32 * kUnitCols,
                "a line is a unit of each lane");
  const int cols = b.plan.roles[role].plan.lines * 2 * F::kBlockValues;
  uint32_t amax = 0;
  if constexpr (F::kNibbleLimbs) {
#pragma unroll
    for (int u = 0; u < Row::kUnits; ++u) amax = max(amax, amax_bits(row.v[u]));
    amax = __reduce_max_sync(0xffffffffu, amax);
  } else {
    amax = row_amax_bits(row, fold, false);
  }
  const LimbScale s = limb_scale(amax);
  row.for_each(cols, [&](const uint4& unit, int u) {
    if (row.col(u) >= cols) return;
    float v[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    put_limbs(F{}, v, s.inverse, row.col(u), b.shared + b.plan.ring.x);
  });
  if constexpr (F::kNibbleLimbs) {
    __syncwarp();  // the warp's x is there
  } else {
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // x is there
  }
  return limb_result_scale<F>(s);
}

// Of a group of 128 columns, which 16 lanes have a unit each of: each lane gets that of its half
// warp's unit lane % 16 * kUnits / 16.
constexpr int kGroupLanes = kLine / kUnitCols;
template <class Row>
__device__ uint32_t group_amax_bits(const Row& row, bool finite) {
  constexpr int kUnits = Row::kUnits;
  static_assert(kGroupLanes % kUnits == 0, "lanes for each unit");
  uint32_t amax[kUnits];
#pragma unroll
  for (int u = 0; u < kUnits; ++u) amax[u] = unit_amax_bits(row.v[u], finite);
    // Lanes go on with half of the units each, until they have one.
#pragma unroll
  for (int left = kUnits / 2; left > 0; left /= 2) {
    const int apart = kGroupLanes / kUnits * left;
    const bool upper = (threadIdx.x & static_cast<unsigned>(apart)) != 0;
#pragma unroll
    for (int u = 0; u < left; ++u) {
      const uint32_t mine = upper ? amax[u + left] : amax[u];
      const uint32_t other = upper ? amax[u] : amax[u + left];
      amax[u] = max(mine, __shfl_xor_sync(0xffffffffu, other, apart));
    }
  }
#pragma unroll
  for (int apart = kGroupLanes / kUnits / 2; apart > 0; apart /= 2)
    amax[0] = max(amax[0], __shfl_xor_sync(0xffffffffu, amax[0], apart));
  return amax[0];
}

// The row as e4m3 codes in groups of 128 columns, as f16; scales go to their lines of x. A lane
// works out the scale of one group, and the others have it by shuffles.
constexpr uint32_t kFastGroupMax = (127 + 68) << 23;  // 2^68: scales are within kFastScaleMax
template <class F, class Row>
__device__ void stage_groups(const Block<F>& b, Row& row, int role) {
  constexpr int kUnits = Row::kUnits, kEach = kGroupLanes / kUnits;  // lanes of a unit's scale
  const int cols = lines_of<F>(b.plan.roles[role].plan) * kLine;
  const int thread = static_cast<int>(threadIdx.x), group_lane = thread % kGroupLanes;
  uint32_t amax = group_amax_bits(row, false);
  const bool rare = __any_sync(0xffffffffu, amax >= kFastGroupMax);
  if (rare) amax = group_amax_bits(row, true);
  const Scale s = scale_of(CodeKind::kE4M3, Extent::kGroup, {__uint_as_float(amax), 0, 0});
  const FastCodes fast(CodeKind::kE4M3, s);
  if (role == kDecodeOut || role == kDecodeDown)             // no norm, whose barrier would do
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // nobody reads the old x any more
  clear_line<F>(1, b.plan.roles[role].plan, b.plan.ring, b.shared);
  const int col = row.col(group_lane / kEach) - group_lane * kUnitCols;
  if (group_lane % kEach == 0 && col < cols)
    reinterpret_cast<float*>(b.shared + b.plan.ring.x_sums)[col / kLine * F::kLineSums] = s.scale;
  row.for_each(cols, [&](const uint4& unit, int u) {
    const int from = thread % 32 - group_lane + u * kEach;
    RowCodes by{{}, fast, !rare};
    by.codes.factor = __shfl_sync(0xffffffffu, fast.factor, from);
    by.codes.rest = __shfl_sync(0xffffffffu, fast.rest, from);
    if (rare) by.scale = Scale::dividing(__shfl_sync(0xffffffffu, s.scale, from));
    if (row.col(u) >= cols) return;
    *reinterpret_cast<uint4*>(b.shared + b.plan.ring.x + row.col(u) * 2) =
        decode_unit(codes_of_unit<F>(unit, by));
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // x is there
}

// The row as operands in shared memory, quantized where the scheme does so; bf16 that meets 8-bit
// codes as f16 (kTakesScaled).
template <class F, class Row>
__device__ void stage_units(const Block<F>& b, Row& row, int role, const float* given, Fold& fold) {
  using T = typename F::Value;
  constexpr bool kTakesCodes =
      F::kIntegers || (std::is_same_v<T, __half> && F::kWeight != GemvWeight::kS8);
  unsigned char* x = b.shared + b.plan.ring.x;
  const Plan& plan = b.plan.roles[role].plan;
  const int cols = lines_of<F>(plan) * 2 * F::kBlockValues;
  const bool scaled = kTakesScaled<F> && (!kTakesCodes || b.d.input == GemvInput::kRun);
  RowCodes by{{}, FastCodes(CodeKind::kInt8, {}), false};
  HalfScale half{};
  if (scaled) {
    half = half_scale(row_amax_bits(row, fold, false));
    if (threadIdx.x == 0) *reinterpret_cast<float*>(b.shared + b.plan.x_scale) = half.result;
  } else if constexpr (kTakesCodes) {
    by = row_codes(b, row, given, fold);
  } else if (role == kDecodeOut || role == kDecodeDown) {    // no norm, whose barrier would do
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // nobody reads the old x any more
  }
  clear_line<F>(1, plan, b.plan.ring, b.shared);
  row.for_each(cols, [&](const uint4& unit, int u) {
    const int col = row.col(u);
    if (col >= cols) return;
    uint4 operands = unit;
    if (scaled) {
      float v[kUnitCols];
      unpack<__nv_bfloat16>(v, unit);
#pragma unroll
      for (float& value : v) value *= half.inverse;
      operands = pack<__half>(v);
    } else if constexpr (kTakesCodes) {
      const uint2 codes = codes_of_unit<F>(unit, by);
      if constexpr (F::kIntegers) {
        *reinterpret_cast<uint2*>(x + col) = codes;
        return;
      } else {
        operands = decode_unit(codes);
      }
    }
    if constexpr (!F::kIntegers) *reinterpret_cast<uint4*>(x + col * 2) = operands;
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // x is there
}

}  // namespace
}  // namespace mantissa::cuda
