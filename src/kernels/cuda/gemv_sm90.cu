// Small-batch linear on Hopper: the ring of weight_ring.cuh with up to 8 tokens. The ring fills
// before the kernel that makes x has ended: the memory does not idle between kernels.
// docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/weight_ring.cuh"

namespace mantissa::cuda {
namespace {

// A block has a multiprocessor to itself. Where two fit, the hardware deals a grid out by groups of
// multiprocessors: some get two blocks, others none (int8_weight_only 31 -> 47 us).
constexpr int kSharedLeast = 116 << 10;

constexpr int kLimbColsMax = 32768;  // longer rows take too much shared memory as limbs

// Where a kernel keeps what it makes of x but x itself.
struct Staged {
  uint32_t amax[kMultiplyWarps];
  float x_scale;
};

// The only token, of bf16, as limbs: read twice, for its largest magnitude first.
template <class F>
__device__ void stage_limbs(const GemvArgs& a, const Plan& p, unsigned char* x, Staged& staged) {
  const int cols = p.lines * 2 * F::kBlockValues;
  const auto unit = [&](int col) {
    if (p.aligned && col + 8 <= a.k)
      return *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(a.x) + col);
    return gather_unit<__nv_bfloat16>(a, 0, col);
  };
  constexpr int kStep = kMultiplyThreads * 8;
  uint32_t amax = 0;
  for (int col = threadIdx.x * 8; col < cols; col += kStep) amax = max(amax, amax_bits(unit(col)));
  amax = __reduce_max_sync(0xffffffffu, amax);
  if (threadIdx.x % 32 == 0) staged.amax[threadIdx.x / 32] = amax;
  ptx::named_barrier(1, kMultiplyThreads);  // every warp's maximum is there
  const LimbScale s =
      limb_scale(__reduce_max_sync(0xffffffffu, staged.amax[threadIdx.x % kMultiplyWarps]));
  if (threadIdx.x == 0) staged.x_scale = limb_result_scale(s);
  for (int col = threadIdx.x * 8; col < cols; col += kStep) {  // int4: whole warps
    float v[8];
    unpack<__nv_bfloat16>(v, unit(col));
    put_limbs<F>(v, s.inverse, col, x);
  }
}

template <class F>
__global__ void __launch_bounds__(kRingThreads, 1)
    gemv_kernel__sm90(const __grid_constant__ GemvArgs a, const __grid_constant__ Plan p,
                      const __grid_constant__ Ring ring) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ Staged staged;
  const RingBarriers barriers(shared + ring.barriers);
  const Share share = share_of((a.n + kRows - 1) / kRows);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  ptx::grid_dependency_launch();  // the next grid waits for room
  if (threadIdx.x == kLoadWarp * 32) barriers.init(ring.stages, F::kSubs > 0);
  __syncthreads();  // the barriers exist
  if (warp == kLoadWarp) {
    LoadCursor at;
    return produce<F>(a, p, ring, shared, barriers, share, at);
  }
  RingCursor at;
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  if (warp == kFinishWarp) {
    GemvArgs with_scale = a;
    if (F::kLimbs > 0) with_scale.x_scale = &staged.x_scale;
    return finish<F>(with_scale, ring, shared, barriers, share, at);
  }
  if constexpr (F::kLimbs > 0) {
    stage_limbs<F>(a, p, shared + ring.x, staged);
  } else {
    auto* x_sums = reinterpret_cast<float*>(shared + ring.x_sums);
    stage_input<F>(a, shared + ring.x, x_sums, p.token_bytes, p.aligned, kMultiplyThreads);
    ptx::copy_wait<0>();
  }
  ptx::named_barrier(1, kMultiplyThreads);  // x is there
  consume<F>(a, p, ring, shared, barriers, share, at);
}

// ---- launch

// Rows in pieces of 2 KiB, or smaller ones where x leaves no room for two stages.
template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p) {
  Ring r{};
  const int limit = a.shared_kib > 0 ? a.shared_kib << 10 : kRingSharedMax;
  for (int piece = a.piece > 0 ? a.piece : kPieceMax; r.stages < 2 && piece >= kLine; piece /= 2) {
    cut_rows(r, static_cast<int>(a.row_bytes), piece);
    lay_out<F>(r, {a.m * p.token_bytes, x_sum_count<F>(p.lines) * 4, p.groups, a.m}, r.piece,
               limit);
  }
  if (a.stages > 0) r.stages = r.in_flight = std::min(r.stages, a.stages);
  r.bytes = std::max(r.bytes, kSharedLeast);
  return r;
}

template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(GemvArgs, Plan, Ring) = gemv_kernel__sm90<F>;
  static const bool configured = [&] {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingSharedMax),
        "giving the small-batch linear its shared memory");
    return true;
  }();
  (void)configured;
  const Plan p = ring_plan_of<F>(a);
  const Ring ring = ring_of<F>(a, p);
  const int tiles = (a.n + kRows - 1) / kRows;
  launch("launching gemv_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(std::min(tiles, multiprocessors()))),
          .block = dim3(kRingThreads),
          .shared_bytes = static_cast<size_t>(ring.bytes)},
         stream, a, p, ring);
}

template <class T, int kSubs>
void launch_zeros(const GemvArgs& a, cudaStream_t stream) {
  if (a.w_zero != nullptr) return launch_format<Format<GemvWeight::kS4, T, kSubs, true>>(a, stream);
  launch_format<Format<GemvWeight::kS4, T, kSubs, false>>(a, stream);
}
template <class T>
void launch_groups(const GemvArgs& a, cudaStream_t stream) {
  if (a.group_cols == 32) return launch_zeros<T, 4>(a, stream);
  if (a.group_cols == 64) return launch_zeros<T, 2>(a, stream);
  launch_zeros<T, 1>(a, stream);
}
// Codes against codes are multiplied as f16.
template <class T>
void launch_values(const GemvArgs& a, cudaStream_t stream) {
  if (a.weight == GemvWeight::kRun) launch_format<Format<GemvWeight::kRun, T>>(a, stream);
  if (a.weight == GemvWeight::kE4M3) launch_format<Format<GemvWeight::kE4M3, T>>(a, stream);
  if (a.weight == GemvWeight::kS8) launch_format<Format<GemvWeight::kS8, T>>(a, stream);
  if (a.weight == GemvWeight::kS4) launch_groups<T>(a, stream);
}

}  // namespace

std::string gemv_sm90_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  const int64_t groups = a.weight == GemvWeight::kS4 ? a.k / std::max(1, a.group_cols) : 0;
  // Two stages of 256 bytes a row, parameters and parts of the tiles ahead, K in whole units.
  if (gemv_input_bytes(a) + kTilesAhead * kRows * groups * 3 + 2 * kRows * (256 + kRowPad) +
          kTilesAhead * kMultiplyWarps * a.m * kRows * 4 + 2048 >
      kRingSharedMax)
    return "the activations do not fit in shared memory";
  if (a.k == 0) return "K is 0";
  return weights_why_not(a);
}

void gemv__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  if (a.m == 1 && a.k <= kLimbColsMax && a.input == GemvInput::kRun && !a.run_is_f16 &&
      a.weight == GemvWeight::kS4 && a.group_cols % 128 == 0 && a.w_zero == nullptr)
    return launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount>>(a, stream);
  if (a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8) {
    launch_format<Format<GemvWeight::kS8, int8_t>>(a, stream);
  } else if (a.input != GemvInput::kRun || a.run_is_f16) {
    launch_values<__half>(a, stream);
  } else {
    launch_values<__nv_bfloat16>(a, stream);
  }
}

}  // namespace mantissa::cuda
