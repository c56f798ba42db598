// Small-batch linear of FP4 weights (MXFP4, NVFP4) on Hopper: weight_fp4.cuh in a kernel of its
// own. docs/kernels/cuda-gemv.md.
#include "kernels/cuda/gemv_ring.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/weight_fp4.cuh"

namespace mantissa::cuda {
namespace {

// The calling warp's lines of bf16 tokens, each made into operands where it lies. x_scale: what the
// warp's results are multiplied with, [tokens].
template <class F>
__device__ void stage(const GemvArgs& a, const Plan& p, unsigned char* x, float* x_scale) {
  constexpr bool kLimbed = F::kLimbs > 0;
  constexpr int kPlace = 2 * F::kXBlock, kCols = 2 * F::kBlockValues;  // of a line
  copy_elements<F, 2>(a, p, x);
  ptx::copy_wait<0>();  // the lane's own units
  for (int m = 0; m < a.m; ++m) {
    unsigned char* token = x + m * p.token_bytes;
    const uint32_t amax = warp_amax_bits<F>(p, token);
    float scale, inverse;
    if constexpr (kLimbed) {
      const LimbScale s = limb_scale(amax);
      scale = limb_result_scale<F>(s), inverse = s.inverse;
    } else {
      const HalfScale s = half_scale(amax);
      scale = s.result * 0x1p14f, inverse = s.inverse;  // codes are 2^-14 as large
    }
    if (threadIdx.x % 32 == 0) x_scale[m] = a.x_global != nullptr ? scale * *a.x_global : scale;
    each_unit<32, 1>(lines_of<F>(p), [&](const OwnUnit(&of)[1]) {
      const auto [line, unit, is] = of[0];  // all lanes have one
      auto* at = reinterpret_cast<uint4*>(token + (line + 1) * kPlace - kCols * 2) + unit;
      float v[8];
      unpack<__nv_bfloat16>(v, *at);
      if constexpr (kLimbed) {
        __syncwarp();  // the line is read
        put_limbs(F{}, v, inverse, line * kCols + unit * 8, token);
      } else {
#pragma unroll
        for (float& value : v) value *= inverse;
        *at = pack<__half>(v);
      }
    });
  }
  __syncwarp();  // the warp's x is there
}

template <class F>
__global__ void __launch_bounds__(kRingThreads, 1)
    gemv_fp4_kernel__sm90(const __grid_constant__ FirstStage first,
                          const __grid_constant__ GemvArgs a, const __grid_constant__ Plan p,
                          const __grid_constant__ Ring ring) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float x_scale[kMultiplyWarps][kGemvRowsMax];
  stream_linear<F>(first, a, p, ring, shared, [&](Consumer<F>& reader) {
    float* mine = x_scale[threadIdx.x / 32];
    stage<F>(a, p, shared + ring.x, mine);
    reader.take_scales(mine);
  });
}
template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  launch_linear<F, gemv_fp4_kernel__sm90<F>>(a, stream);
}

// run(Format) for these rows: limbs where one tile of mma's columns holds them.
template <int kGroup, class Run>
auto with_tokens(const GemvArgs& a, const Run& run) {
  using Halves = Fp4<kGroup, false>;
  if (a.k <= kLimbColsMax) {
    if (a.m == 1) return run(Fp4<kGroup, true, 2>{});
    if (a.m <= Fp4<kGroup, true>::kTokens) return run(Fp4<kGroup, true>{});
  }
  if (a.m <= Halves::kTokens) return run(Halves{});
  return run(Fp4<kGroup, false, Halves::kParties, kGemvRowsMax / Halves::kTokens>{});
}
template <class Run>
auto with_fp4(const GemvArgs& a, const Run& run) {
  return a.group_cols == 16 ? with_tokens<16>(a, run) : with_tokens<32>(a, run);
}

}  // namespace

std::string gemv_fp4_sm90_why_not(const GemvArgs& a) {
  if (a.weight != GemvWeight::kMini4) return "weights other than FP4";
  if (a.group_cols != 32 && a.group_cols != 16) return "groups of other than 32 and 16";
  if (a.input != GemvInput::kRun || a.run_is_f16) return "activations other than bf16";
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  if (a.k == 0 || a.k % 128 != 0) return "K is no multiple of 128";
  if (reinterpret_cast<uintptr_t>(a.x) % 16 != 0 || a.x_stride % 8 != 0)
    return "rows of the activation are no multiple of 16 bytes apart";
  const bool fits = with_fp4(a, [&](auto format) {
    return ring_of<decltype(format)>(a, ring_plan_of<decltype(format)>(a)).stages >= 2;
  });
  return fits ? "" : "activations and scales do not fit in shared memory";
}

void gemv_fp4__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  with_fp4(a, [&](auto format) { launch_format<decltype(format)>(a, stream); });
}

}  // namespace mantissa::cuda
