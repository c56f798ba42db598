// Small-batch linear of FP4 weights (MXFP4, NVFP4) on Hopper: weight_fp4.cuh in a kernel of its
// own. docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/weight_fp4.cuh"

namespace mantissa::cuda {
namespace {

template <class F>
__global__ void __launch_bounds__(kRingThreads, 1)
    gemv_fp4_kernel__sm90(const __grid_constant__ FirstStage first,
                          const __grid_constant__ GemvArgs a, const __grid_constant__ Plan p,
                          const __grid_constant__ Ring ring) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float x_scale[kMultiplyWarps][kGemvRowsMax];
  const RingBarriers barriers(shared + first.barriers);
  const Share share = share_of(first.deal);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp == kLoadWarp) {
    produce_first<F>(first, shared);
    ptx::grid_dependency_launch();  // the next grid waits for room
    barriers.init_full(1, ring.stages);
    ptx::named_barrier_arrive(kReadyBarrier, kRingThreads);
    LoadCursor at;
    at.first_is_asked = true;
    at.met = false;
    produce<F>(a, p, ring, shared, barriers, share, at);
    return at.meet();
  }
  ptx::grid_dependency_launch();
  if (warp == kFinishWarp) {
    barriers.init_empty(ring.stages, true, 32);
    ptx::named_barrier_arrive(kEmptyBarrier, 64);
  }
  ptx::named_barrier(kReadyBarrier, kRingThreads);  // barriers exist
  RingCursor at;
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  if (warp == kFinishWarp) return finish<F>(a, ring, shared, barriers, share, at);
  stage_fp4<F>(a, p, shared + ring.x, x_scale[warp]);
  const int stages = share.count * ring.pieces;
  Consumer<F> reader{a, p, ring, shared, barriers, at, stages};
  reader.take_scales(x_scale[warp]);
  Ahead<F> ahead;
  ahead.held = false;
  if (stages > 0) consume(reader, ahead, {}, stages);
}

template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p) {
  Ring r{};
  const int limit = a.shared_kib > 0 ? a.shared_kib << 10 : kRingSharedMax;
  const RingNeeds needs{a.m * p.token_bytes, 0, p.groups, a.m};
  // Where x leaves room for few stages: smaller pieces.
  for (int piece = a.piece > 0 ? a.piece : kPieceMax; r.stages < 2 && piece >= kLine; piece /= 2) {
    cut_rows(r, static_cast<int>(a.row_bytes), piece);
    lay_out<F>(r, needs, r.piece, limit);
  }
  limit_ring(r, a);
  return r;
}

template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(FirstStage, GemvArgs, Plan, Ring) = gemv_fp4_kernel__sm90<F>;
  allow_shared<gemv_fp4_kernel__sm90<F>>(kRingSharedMax,
                                         "giving the small-batch FP4 linear its shared memory");
  const Plan p = ring_plan_of<F>(a);
  const Ring ring = ring_of<F>(a, p);
  const int tiles = (a.n + kRows - 1) / kRows, blocks = std::min(tiles, multiprocessors());
  launch("launching gemv_fp4_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(kRingThreads),
          .shared_bytes = static_cast<size_t>(ring.bytes)},
         stream, first_stage_of(a, p, ring, deal_of(tiles, blocks)), a, p, ring);
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
