// Small-batch linear on Hopper: up to 8 tokens, which become operands in shared memory.
// docs/kernels/cuda-gemv.md.
#include <type_traits>

#include "kernels/cuda/gemv_ring.cuh"
#include "kernels/cuda/quantize_row.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kLineOfXMax = 512 + 4 * kGemvRowsMax * 8;  // bytes that x's line of zeros takes
constexpr int kScaledMax = 2;  // tokens; with more of them x takes longer than decoding saves

// x as the call has it.
template <class F>
__device__ void copy_input(const GemvArgs& a, const Plan& p, unsigned char* x) {
  if constexpr (F::kCodeLimbs || (F::kIntegers && F::kLimbs == 0)) {
    copy_elements<F, 1>(a, p, x);
  } else {
    if constexpr (F::kWeight != GemvWeight::kRun && F::kLimbs == 0)
      if (a.input == GemvInput::kE4M3) return copy_elements<F, 1>(a, p, x);
    copy_elements<F, 2>(a, p, x);
  }
}

// e4m3 codes in the second half of a line's place -> f16, in place: a line's values only overwrite
// codes of lines that are not after it.
template <class F>
__device__ void expand_codes(int tokens, const Plan& p, unsigned char* x) {
  constexpr int kValues = 2 * F::kBlockValues;
  for (int m = 0; m < tokens; ++m) {
    each_unit<kValues / 8, 4>(lines_of<F>(p), [&](const OwnUnit(&of)[4]) {
      const auto place = [&](int j) {
        return x + m * p.token_bytes + of[j].line * kValues * 2 + of[j].unit * 8;
      };
      uint2 codes[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        codes[j] = of[j].is ? *reinterpret_cast<const uint2*>(place(j) + kValues) : uint2{};
      __syncwarp();  // codes of these units are read
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (of[j].is) *reinterpret_cast<uint4*>(place(j) + of[j].unit * 8) = decode_unit(codes[j]);
      }
    });
  }
}

// bf16 -> f16 in place; what it was divided by.
template <class F>
__device__ float scale_token(const Plan& p, unsigned char* token) {
  const HalfScale s = half_scale(warp_amax_bits<F>(p, token));
  each_unit<4 * F::kBlockValues / 16, 4>(lines_of<F>(p), [&](const OwnUnit(&of)[4]) {
    const auto at = [&](int j) {
      return reinterpret_cast<uint4*>(token + of[j].line * 2 * F::kXBlock + of[j].unit * 16);
    };
    uint4 units[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) units[j] = of[j].is ? *at(j) : uint4{};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float v[8];
      unpack<__nv_bfloat16>(v, units[j]);
#pragma unroll
      for (float& value : v) value *= s.inverse;
      if (of[j].is) *at(j) = pack<__half>(v);
    }
  });
  return s.result;
}

// Sums of x over the groups of int4 codes, as stage_input leaves them.
template <class F>
__device__ void sum_groups(int tokens, const Plan& p, const unsigned char* x, float* x_sums) {
  constexpr int kLanes = 16 / F::kSubs;  // of 8 values each: a group
  for (int m = 0; m < tokens; ++m) {
    each_unit<32, 1>(lines_of<F>(p), [&](const OwnUnit(&of)[1]) {
      const int u = of[0].line * 32 + of[0].unit;
      float sum = sum_of_unit<typename F::Value>(
          *reinterpret_cast<const uint4*>(x + m * p.token_bytes + u * 16));
#pragma unroll
      for (int apart = kLanes / 2; apart > 0; apart /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, apart);
      if (u % kLanes == 0) x_sums[u / kLanes * kGemvRowsMax + m] = sum;
    });
  }
}

// Scales of x in tiles, [line of K][8 tokens].
template <class F>
__device__ void copy_scales(const GemvArgs& a, const Plan& p, float* scales) {
  each_unit<kGemvRowsMax, 4>(lines_of<F>(p), [&](const OwnUnit(&of)[4]) {
    const int m = of[0].unit;
    if (m >= a.m) return;
    float got[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (of[j].is)
        got[j] = a.x_scale[m * int64_t{a.x_scale_stride} + min(of[j].line, p.groups - 1)];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (of[j].is) scales[of[j].line * F::kLineSums + m] = got[j];
  });
}

// The only token, of bf16 and aligned, as limbs in place; what results are multiplied with. Limbs
// of a line only overwrite what is not after it. The scale is the warp's own for int4, the row's
// for int8, as in the layers' kernel.
template <class F>
__device__ float stage_limbs(const Plan& p, unsigned char* x, uint32_t* of_warps) {
  constexpr int kValues = 2 * F::kBlockValues, kPlace = 2 * F::kXBlock;
  uint32_t amax = warp_amax_bits<F>(p, x);
  if constexpr (!F::kNibbleLimbs) {
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = amax;
    ptx::named_barrier(1, kMultiplyThreads);  // every warp's is there
    amax = __reduce_max_sync(0xffffffffu, of_warps[threadIdx.x % kMultiplyWarps]);
  }
  const LimbScale s = limb_scale(amax);
  each_unit<kValues / 8, 4>(p.lines, [&](const OwnUnit(&of)[4]) {
    uint4 units[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const unsigned char* from = x + (of[j].line + 1) * kPlace - kValues * 2 + of[j].unit * 16;
      units[j] = of[j].is ? *reinterpret_cast<const uint4*>(from) : uint4{};
    }
    __syncwarp();  // the lines are read
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float v[8];
      unpack<__nv_bfloat16>(v, units[j]);
      if (of[j].is) put_limbs(F{}, v, s.inverse, of[j].line * kValues + of[j].unit * 8, x);
    }
  });
  return limb_result_scale<F>(s);
}

// The only token, of e4m3 codes, likewise.
template <class F>
__device__ float stage_code_limbs(const Plan& p, unsigned char* x) {
  constexpr int kValues = 2 * F::kBlockValues, kPlace = 2 * F::kXBlock;
  bool nan = false;
  each_unit<32, 4>(p.lines, [&](const OwnUnit(&of)[4]) {
    uint2 codes[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const unsigned char* from = x + (of[j].line + 1) * kPlace - kValues + of[j].unit * 8;
      codes[j] = of[j].is ? *reinterpret_cast<const uint2*>(from) : uint2{};
    }
    __syncwarp();  // the lines are read
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (of[j].is)
        nan = put_code_limbs(F{}, codes[j], of[j].line * kValues + of[j].unit * 8, x) || nan;
    }
  });
  return code_limb_result_scale<F>(nan);
}

// What the warp's x was divided by, where it was: of one token or two.
template <class F>
__device__ float2 stage(const GemvArgs& a, const Plan& p, unsigned char* x, float* x_sums) {
  const bool codes = a.input == GemvInput::kE4M3;
  const bool unaligned =
      codes ? (reinterpret_cast<uintptr_t>(a.x) | static_cast<uintptr_t>(a.x_stride)) % 16 != 0
            : !p.aligned;
  // Codes of several tokens take longer in place than in one step.
  const bool several = codes && a.m > 1 && F::kWeight != GemvWeight::kS4;
  // The warp's lines of x are its own work.
  const bool own =
      F::kLimbs > 0 || (!unaligned && !several && (a.input != GemvInput::kS8 || F::kIntegers));
  if (own) {
    copy_input<F>(a, p, x);
  } else if constexpr (F::kLimbs == 0) {
    stage_input<F>(a, x, x_sums, lines_of<F>(p), p.token_bytes, p.aligned, kMultiplyThreads);
  }
  if constexpr (F::kTiles) copy_scales<F>(a, p, x_sums);
  ptx::copy_wait<0>();
  if (!own) ptx::named_barrier(1, kMultiplyThreads);  // x is there
  __syncwarp();                                       // all of the warp's lines are there
  if constexpr (!F::kIntegers) {
    if (own && codes) expand_codes<F>(a.m, p, x);
    if constexpr (F::kWeight == GemvWeight::kS4) {
      if (own) {
        __syncwarp();  // in the run dtype or f16
        sum_groups<F>(a.m, p, x, x_sums);
      }
    }
  }
  float2 divided{1, 1};
  if constexpr (F::kCodeLimbs) {
    divided.x = stage_code_limbs<F>(p, x);
  } else if constexpr (F::kLimbs > 0) {
    divided.x = stage_limbs<F>(p, x, reinterpret_cast<uint32_t*>(x_sums));
  }
  if constexpr (kTakesScaled<F>) {
    if (a.input == GemvInput::kRun && !a.run_is_f16) {
      divided.x = scale_token<F>(p, x);
      if (a.m > 1) divided.y = scale_token<F>(p, x + p.token_bytes);
    }
  }
  __syncwarp();  // x is there
  return divided;
}

template <class F>
__global__ void __launch_bounds__(kRingThreads, 1)
    gemv_kernel__sm90(const __grid_constant__ FirstStage first, const __grid_constant__ GemvArgs a,
                      const __grid_constant__ Plan p, const __grid_constant__ Ring ring) {
  extern __shared__ __align__(128) unsigned char shared[];
  stream_linear<F>(first, a, p, ring, shared, [&](Consumer<F>& reader) {
    reader.x_scale =
        stage<F>(a, p, shared + ring.x, reinterpret_cast<float*>(shared + ring.x_sums));
  });
}
template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  launch_linear<F, gemv_kernel__sm90<F>>(a, stream);
}

}  // namespace

std::string gemv_sm90_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  if (a.weight >= GemvWeight::kS8Groups) return "weights that gemm_rows decodes";
  const int64_t groups = a.group_cols > 0 ? (a.k + a.group_cols - 1) / a.group_cols : 0;
  const int scale_rows = a.weight == GemvWeight::kE4M3Tiles ? 1 : kRows;
  // Two stages of 256 bytes a row, parameters and parts of the tiles ahead, K in whole units.
  if (gemv_input_bytes(a) + a.m * kLineOfXMax + kTilesAhead * scale_rows * groups * 4 +
          2 * kRows * (256 + kRowPad) + kTilesAhead * kMultiplyWarps * a.m * kRows * 4 + 2048 >
      kRingSharedMax)
    return "the activations do not fit in shared memory";
  if (a.k == 0) return "K is 0";
  return weights_why_not(a);
}

void gemv__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  if (a.weight == GemvWeight::kE4M3Tiles)
    return launch_format<Format<GemvWeight::kE4M3Tiles, __half, 1>>(a, stream);
  const bool bf16 = a.input == GemvInput::kRun && !a.run_is_f16;
  if (a.m == 1 && a.k <= kLimbColsMax && reinterpret_cast<uintptr_t>(a.x) % 16 == 0) {
    const bool groups =
        a.weight == GemvWeight::kS4 && a.group_cols % 128 == 0 && a.w_zero == nullptr;
    if (groups && bf16)
      return launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount>>(a, stream);
    if (groups && a.input == GemvInput::kE4M3)
      return launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount, true>>(a, stream);
    if (a.weight == GemvWeight::kS8 && bf16)
      return launch_format<Format<GemvWeight::kS8, int8_t, 0, false, kLimbCount>>(a, stream);
  }
  if (bf16) {
    if (a.m <= kScaledMax && a.weight == GemvWeight::kE4M3)
      return launch_format<Format<GemvWeight::kE4M3, __half>>(a, stream);
    if (a.m <= kScaledMax && a.weight == GemvWeight::kS8)
      return launch_format<Format<GemvWeight::kS8, __half>>(a, stream);
  }
  with_format(a, [&](auto format) { launch_format<decltype(format)>(a, stream); });
}

}  // namespace mantissa::cuda
