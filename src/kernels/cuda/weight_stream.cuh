// Weights from memory to mma operands, shared by the small-batch linear and the mixed GEMM:
// formats, decoding, a line of 16 rows in registers, activations as operands, results.
#pragma once

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

constexpr int kRows = 16;        // of weights, a warp's tile: mma's M
constexpr int kLine = 128;       // bytes of a weight row that a warp reads at once: two blocks
constexpr int kScaleRows = 128;  // of kE4M3Tiles, that share their scales
static_assert(kScaleRows % kRows == 0, "a tile's rows share them");

// kSubs: groups of K in a block of int4 codes or tiles; 0: one scale a row, applied at the end.
// kZeros: int4 codes with zero points. kLimbs (limbs.cuh): one token of bf16 as so many int8
// numbers, against int8 codes, or int4 codes in groups. kCodeLimbs: of e4m3.
template <GemvWeight kW, class T, int kSubsOf = 0, bool kZerosOf = false, int kLimbsOf = 0,
          bool kCodesOf = false>
struct Format {
  static constexpr GemvWeight kWeight = kW;
  using Value = T;  // mma operands; int8_t: both sides stay codes
  static constexpr bool kIntegers = sizeof(T) == 1;
  static constexpr int kSubs = kSubsOf;
  static constexpr bool kZeros = kZerosOf;
  static constexpr int kLimbs = kLimbsOf;
  static constexpr bool kCodeLimbs = kCodesOf;
  static constexpr bool kNibbleLimbs = kLimbs > 0 && kSubs > 0;
  static constexpr bool kFixedPitch = kNibbleLimbs;  // of rows in a stage, known to the compiler
  static constexpr bool kStageScales = false;        // of groups: with each stage, not with a tile
  static constexpr int kLimbTimes =
      kNibbleLimbs ? 16 : 1;               // codes that meet limbs are so much larger
  static constexpr bool kGlobals = false;  // a factor of each row beside scales of groups
  static constexpr bool kScales = kW != GemvWeight::kRun;
  static constexpr bool kTiles = kW == GemvWeight::kE4M3Tiles;
  static constexpr bool kE4M3 = kW == GemvWeight::kE4M3 || kTiles;
  using GroupScale = std::conditional_t<kTiles, float, uint16_t>;  // in memory
  // In registers, and of a tile.
  using Accumulator = std::conditional_t<kIntegers && kSubs == 0, int32_t, float>;
  using Sum = std::conditional_t<kIntegers && kLimbs == 0, int32_t, float>;
  static constexpr int kBlockValues = kW == GemvWeight::kRun  ? 32
                                      : kW == GemvWeight::kS4 ? 128
                                                              : 64;
  // mma that a block of 64 bytes feeds; each takes 32 bytes of operands of a token.
  static constexpr int kSteps = kBlockValues * static_cast<int>(sizeof(T)) / 32;
  static constexpr int kXBlock = kSteps * 32 * (kLimbs > 0 ? kLimbs : 1);  // bytes that it meets
  // A lane's values of a block: 32 bytes in a row (8-bit codes as 16-bit values), else 16 here and
  // there; tokens are padded so that two of them never meet in a bank.
  static constexpr bool kWide = kSteps == 4 && kLimbs == 0;
  static constexpr int kXPad = kWide ? 16 : 64;
  static constexpr bool kZeroLine = !kIntegers;  // x ends with one (weight_ring.cuh)
  // Floats beside a line of x: 8 tokens' sums of each group, or of each block of one; of kTiles
  // their scales, a line being a group.
  static constexpr int kLineSums = (kTiles ? 1 : 2 * kSubs) * kGemvRowsMax;
};

template <class F>
__device__ void decode(const uint4& w, int step, uint32_t offset, uint32_t& a, uint32_t& b) {
  using T = typename F::Value;
  if constexpr (F::kWeight == GemvWeight::kRun || F::kIntegers) {
    a = word_of(w, 2 * step);
    b = word_of(w, 2 * step + 1);
  } else if constexpr (F::kE4M3) {
    const uint32_t word = word_of(w, step);
    a = decode_e4m3<T>(word & 0xffffu);
    b = decode_e4m3_upper<T>(word);
  } else if constexpr (F::kWeight == GemvWeight::kS8) {
    a = decode_s8<T>(word_of(w, step), 0);
    b = decode_s8<T>(word_of(w, step), 2);
  } else {
    const uint32_t word = word_of(w, step / 2);
    a = decode_s4<T>(word, step % 2 * 2, offset);
    b = decode_s4<T>(word, step % 2 * 2 + 1, offset);
  }
}

// ---- activations

// Elements [k, k + 16 / sizeof(T)) of token m as operands, zeros beyond K: any alignment.
template <class T>
__device__ uint4 gather_unit(const GemvArgs& a, int m, int k) {
  constexpr int kUnit = 16 / sizeof(T);
  alignas(16) T unit[kUnit];
  const int zero = a.x_zero != nullptr ? a.x_zero[m * a.x_scale_stride] : 0;
  for (int i = 0; i < kUnit; ++i) {
    const int64_t at = m * a.x_stride + k + i;
    const bool in = k + i < a.k;
    if constexpr (sizeof(T) == 1) {
      unit[i] = in ? static_cast<const int8_t*>(a.x)[at] : int8_t{0};
    } else if (a.input == GemvInput::kRun) {
      unit[i] = in ? static_cast<const T*>(a.x)[at] : from_f32<T>(0);
    } else if (a.input == GemvInput::kE4M3) {
      const uint8_t code = in ? static_cast<const uint8_t*>(a.x)[at] : uint8_t{0};
      unit[i] = from_f32<T>(__half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3))));
    } else {
      const int code = in ? static_cast<const int8_t*>(a.x)[at] - zero : 0;
      unit[i] = from_f32<T>(static_cast<float>(code));
    }
  }
  return *reinterpret_cast<const uint4*>(unit);
}

// Of 8 e4m3 codes.
__device__ inline uint4 decode_unit(uint2 c) {
  return {decode_e4m3<__half>(c.x & 0xffffu), decode_e4m3<__half>(c.x >> 16),
          decode_e4m3<__half>(c.y & 0xffffu), decode_e4m3<__half>(c.y >> 16)};
}

// ---- weights into registers

// What a launch works out once.
struct Plan {
  int lines, blocks;  // of a weight row: 128 and 64 bytes
  int token_bytes;    // of x in shared memory
  bool aligned;       // x, for whole loads
  int groups;         // of a weight row
  int group_inverse;  // 2^kInverseBits / (blocks in a group), rounded up
};
constexpr int kInverseBits = 20;

// Scales and zero points of one row's block, kSubs of each.
struct Groups {
  uint2 scales;  // bf16
  uint32_t zeros;
};
// What a lane holds of a line: rows l / 4 (0) and l / 4 + 8 (1), blocks 0 and 1.
template <class F>
struct Line {
  uint4 codes[2][2];
  Groups groups[F::kSubs > 0 && F::kLimbs == 0 ? 2 : 1][2];
  float tile_scale;  // of kTiles: the line is a group
};

// Of `block` of a row whose groups begin at `scales` and `zeros`.
template <class F>
__device__ Groups load_groups(const typename F::GroupScale* scales, const int8_t* zeros,
                              const Plan& p, int block) {
  Groups g{};
  const int at = F::kSubs > 1 ? block * F::kSubs : (block * p.group_inverse) >> kInverseBits;
  if constexpr (F::kSubs == 4) g.scales = *reinterpret_cast<const uint2*>(scales + at);
  if constexpr (F::kSubs == 2) g.scales.x = *reinterpret_cast<const uint32_t*>(scales + at);
  if constexpr (F::kSubs == 1) g.scales.x = scales[at];
  if constexpr (F::kZeros) {
    if constexpr (F::kSubs == 4) g.zeros = *reinterpret_cast<const uint32_t*>(zeros + at);
    if constexpr (F::kSubs == 2) g.zeros = *reinterpret_cast<const uint16_t*>(zeros + at);
    if constexpr (F::kSubs == 1) g.zeros = static_cast<uint8_t>(zeros[at]);
  }
  return g;
}

template <class F>
__device__ void load_line(Line<F>& to, const GemvArgs& a, const Plan& p, int tile, int line,
                          int lane) {
  const int row_bytes = static_cast<int>(a.row_bytes);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(tile * kRows + lane / 4 + r * 8, a.n - 1);
    const unsigned char* from = a.w + row * a.row_bytes;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int at = line * kLine + b * 64 + lane % 4 * 16;
      to.codes[b][r] = at < row_bytes ? ptx::load_streamed(from + at) : uint4{0, 0, 0, 0};
      if constexpr (F::kSubs > 0) {
        const int64_t first = int64_t{row} * p.groups;
        to.groups[b][r] = load_groups<F>(
            static_cast<const typename F::GroupScale*>(a.w_scale) + first,
            F::kZeros ? a.w_zero + first : nullptr, p, min(line * 2 + b, p.blocks - 1));
      }
    }
  }
}

// ---- results

// From L2: another block of a persistent kernel may have written it.
__device__ inline float run_value(const GemvArgs& a, const void* p, int64_t i) {
  return a.run_is_f16 ? to_f32(__ldcg(static_cast<const __half*>(p) + i))
                      : to_f32(__ldcg(static_cast<const __nv_bfloat16*>(p) + i));
}
// What a sum is finished with.
struct Finish {
  float w_scale, x_scale, bias, residual;
};
template <class F>
__device__ Finish load_finish(const GemvArgs& a, int m, int row) {
  Finish f{1, 1, 0, 0};
  if (F::kSubs == 0 && a.w_scale != nullptr) f.w_scale = static_cast<const float*>(a.w_scale)[row];
  if (a.x_scale != nullptr) f.x_scale = a.x_scale[m * a.x_scale_stride];
  if (a.bias != nullptr) f.bias = a.bias[row];
  if (a.residual != nullptr) f.residual = run_value(a, a.residual, m * a.residual_stride + row);
  return f;
}
template <class Sum>
__device__ float finished(Sum sum, const Finish& f) {
  return static_cast<float>(sum) * f.w_scale * f.x_scale + f.bias + f.residual;
}
template <class F>
__device__ void store(const GemvArgs& a, int m, int row, typename F::Sum sum, const Finish& f) {
  const float value = finished(sum, f);
  const int64_t at = m * a.out_stride + row;
  if (a.out_f32) {
    static_cast<float*>(a.out)[at] = value;
  } else if (a.run_is_f16) {
    static_cast<__half*>(a.out)[at] = from_f32<__half>(value);
  } else {
    static_cast<__nv_bfloat16*>(a.out)[at] = from_f32<__nv_bfloat16>(value);
  }
}
template <class F>
__device__ void store(const GemvArgs& a, int m, int row, typename F::Sum sum) {
  store<F>(a, m, row, sum, load_finish<F>(a, m, row));
}

// ---- host

template <class F>
Plan plan_of(const GemvArgs& a) {
  const int unit = a.input == GemvInput::kRun || F::kIntegers ? 16 : 8;
  const int lines = static_cast<int>((a.row_bytes + kLine - 1) / kLine);
  const int group_blocks = std::max(1, a.group_cols / F::kBlockValues);
  return {.lines = lines,
          .blocks = static_cast<int>((a.row_bytes + 63) / 64),
          .token_bytes = lines * 2 * F::kXBlock + F::kXPad,
          .aligned = reinterpret_cast<uintptr_t>(a.x) % static_cast<size_t>(unit) == 0 &&
                     a.x_stride * (a.input == GemvInput::kRun ? 2 : 1) % unit == 0,
          .groups = a.group_cols > 0 ? (a.k + a.group_cols - 1) / a.group_cols : 0,
          .group_inverse = ((1 << kInverseBits) + group_blocks - 1) / group_blocks};
}

// ---- host: run(Format) for operands; codes against codes are multiplied as f16

template <class T, int kSubs, class Run>
void with_zeros(const GemvArgs& a, const Run& run) {
  if (a.w_zero != nullptr) return run(Format<GemvWeight::kS4, T, kSubs, true>{});
  run(Format<GemvWeight::kS4, T, kSubs, false>{});
}
template <class T, class Run>
void with_groups(const GemvArgs& a, const Run& run) {
  if (a.group_cols == 32) return with_zeros<T, 4>(a, run);
  if (a.group_cols == 64) return with_zeros<T, 2>(a, run);
  with_zeros<T, 1>(a, run);
}
template <class T, class Run>
void with_values(const GemvArgs& a, const Run& run) {
  if (a.weight == GemvWeight::kRun) return run(Format<GemvWeight::kRun, T>{});
  if (a.weight == GemvWeight::kE4M3) return run(Format<GemvWeight::kE4M3, T>{});
  if (a.weight == GemvWeight::kS8) return run(Format<GemvWeight::kS8, T>{});
  if (a.weight == GemvWeight::kS4) return with_groups<T>(a, run);
  check(false, "a small-batch linear of weights that its format table holds");
}
// All but int8 codes on both sides.
template <class Run>
void with_floats(const GemvArgs& a, const Run& run) {
  if (a.input != GemvInput::kRun || a.run_is_f16) return with_values<__half>(a, run);
  with_values<__nv_bfloat16>(a, run);
}
template <class Run>
void with_format(const GemvArgs& a, const Run& run) {
  if (a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8)
    return run(Format<GemvWeight::kS8, int8_t>{});
  with_floats(a, run);
}

}  // namespace mantissa::cuda
