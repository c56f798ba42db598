// One linear of few tokens through the ring of weight_ring.cuh: a block's parties, how its shared
// memory is laid out, the launch. gemv_sm90.cu and gemv_fp4_sm90.cu say how x is staged.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_ring.cuh"

namespace mantissa::cuda {

// The block's share. The ring fills before the kernel that makes x has ended: the memory does not
// idle between kernels. stage(reader), by the warps that multiply: their x, and what their results
// are multiplied with.
template <class F, class Stage>
__device__ void stream_linear(const FirstStage& first, const GemvArgs& a, const Plan& p,
                              const Ring& ring, unsigned char* shared, const Stage& stage) {
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
  clear_line<F>(a.m, p, ring, shared);
  if (warp == kFinishWarp) {
    barriers.init_empty(ring.stages, F::kSubs > 0, 32);
    ptx::named_barrier_arrive(kEmptyBarrier, 64);
  }
  ptx::named_barrier(kReadyBarrier, kRingThreads);  // barriers exist, and the line of zeros
  RingCursor at;
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  if (warp == kFinishWarp) return finish<F>(a, ring, shared, barriers, share, at);
  const int stages = share.count * ring.pieces;
  Consumer<F> reader{a, p, ring, shared, barriers, at, stages};
  stage(reader);
  Ahead<F> ahead;
  ahead.held = false;
  if (stages > 0) consume(reader, ahead, {}, stages);
}

// ---- activations into shared memory, by each warp what its own lines of weights meet: nobody
// waits for another warp, and a warp's largest magnitude is scale enough. Every launch meets this
// code cold, while the ring's loads keep the memory busy: it is short, and asks for all of x before
// it looks at any of it.

// The warp's units of x, kUnits (8, 16 or 32) in a line, a lane's kAtOnce at a time: visit(units),
// by all lanes.
struct OwnUnit {
  int line, unit;
  bool is;  // there is one
};
template <int kUnits, int kAtOnce, class Visit>
__device__ void each_unit(int lines, const Visit& visit) {
  constexpr int kApart = 32 / kUnits * kMultiplyWarps;  // lines, of a lane's units
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int first = warp; first < lines; first += kAtOnce * kApart) {
    OwnUnit of[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int line = first + lane / kUnits * kMultiplyWarps + j * kApart;
      of[j] = {line, lane % kUnits, line < lines};
    }
    visit(of);
  }
}

// A unit of a row of `bytes` bytes, from byte `at` on; zeros beyond the row.
__device__ inline void copy_unit(unsigned char* to, const void* row, int at, int bytes) {
  const int there = min(16, max(0, bytes - at));
  ptx::copy_async(to, static_cast<const unsigned char*>(row) + (there > 0 ? at : 0), there);
}

// x as it is, elements of kElem bytes, each line to the end of its place among the operands; zeros
// beyond K. Copies are in flight until ptx::copy_wait.
template <class F, int kElem>
__device__ void copy_elements(const GemvArgs& a, const Plan& p, unsigned char* x) {
  constexpr int kBytes = 2 * F::kBlockValues * kElem, kPlace = 2 * F::kXBlock;  // of a line
  for (int m = 0; m < a.m; ++m) {
    const unsigned char* from = static_cast<const unsigned char*>(a.x) + m * a.x_stride * kElem;
    unsigned char* to = x + m * p.token_bytes + kPlace - kBytes;
    each_unit<kBytes / 16, 1>(lines_of<F>(p), [&](const OwnUnit(&of)[1]) {
      const auto [line, unit, is] = of[0];
      if (is)
        copy_unit(to + line * kPlace + unit * 16, from, line * kBytes + unit * 16, a.k * kElem);
    });
  }
  ptx::copy_commit();
}
// The largest magnitude of the bf16 units that copy_elements left, 16 bytes each, as bits of
// float32.
template <class F>
__device__ uint32_t warp_amax_bits(const Plan& p, const unsigned char* token) {
  constexpr int kBytes = 4 * F::kBlockValues, kPlace = 2 * F::kXBlock;
  uint4 amax{};
  each_unit<kBytes / 16, 4>(lines_of<F>(p), [&](const OwnUnit(&of)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const unsigned char* at = token + (of[j].line + 1) * kPlace - kBytes + of[j].unit * 16;
      if (!of[j].is) continue;
      const uint4 unit = *reinterpret_cast<const uint4*>(at);
      amax = {ptx::max_magnitudes(amax.x, unit.x), ptx::max_magnitudes(amax.y, unit.y),
              ptx::max_magnitudes(amax.z, unit.z), ptx::max_magnitudes(amax.w, unit.w)};
    }
  });
  return __reduce_max_sync(0xffffffffu, amax_bits(amax));
}

// ---- host

// A block has a multiprocessor to itself. Where two fit, the hardware deals a grid out by groups of
// multiprocessors: some get two blocks, others none (int8_weight_only 31 -> 47 us).
constexpr int kSharedLeast = 116 << 10;

// Rows in pieces of 2 KiB, or smaller ones where x leaves no room for two stages (perhaps not even
// those do). Benchmarks ask for other sizes.
template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p) {
  Ring r{};
  const int limit = a.shared_kib > 0 ? a.shared_kib << 10 : kRingSharedMax;
  const int most = a.piece > 0 && !F::kFixedPitch ? a.piece : kPieceMax;
  const int least = F::kFixedPitch ? kPieceMax : kLine;
  const RingNeeds needs{a.m * p.token_bytes, x_sum_count<F>(p.lines) * 4, p.groups, a.m};
  for (int piece = most; r.stages < 2 && piece >= least; piece /= 2) {
    cut_rows(r, static_cast<int>(a.row_bytes), piece);
    lay_out<F>(r, needs, r.piece, limit);
  }
  if (a.stages > 0) r.stages = std::min(r.stages, a.stages);
  r.in_flight = std::min(r.stages, a.in_flight > 0 ? a.in_flight : kInFlight);
  r.bytes = std::max(r.bytes, kSharedLeast);
  return r;
}

// kKernel: of F, what calls stream_linear.
template <class F, auto kKernel>
void launch_linear(const GemvArgs& a, cudaStream_t stream) {
  allow_shared<kKernel>(kRingSharedMax, "giving the small-batch linear its shared memory");
  const Plan p = ring_plan_of<F>(a);
  const Ring ring = ring_of<F>(a, p);
  const int tiles = (a.n + kRows - 1) / kRows, blocks = std::min(tiles, multiprocessors());
  launch("launching the small-batch linear", kKernel,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(kRingThreads),
          .shared_bytes = static_cast<size_t>(ring.bytes)},
         stream, first_stage_of(a, p, ring, deal_of(tiles, blocks)), a, p, ring);
}

}  // namespace mantissa::cuda
