// Small-batch linear on Hopper: the ring of weight_ring.cuh with up to 8 tokens. The ring fills
// before the kernel that makes x has ended: the memory does not idle between kernels.
// docs/kernels/cuda-gemv.md.
#include <algorithm>
#include <type_traits>

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
  uint32_t amax[kMultiplyWarps];  // as bits of float32; of a warp (limbs), or of a token
  float x_scale[kGemvRowsMax];
};
static_assert(kMultiplyWarps >= kGemvRowsMax);

constexpr int kScaledMax = 2;  // tokens; with more of them x takes longer than decoding saves

// ---- activations into shared memory. Every launch meets this code cold, while the ring's loads
// keep the memory busy: it is short, and asks for all of x before it looks at any of it.

// Tokens dealt out to the warps: run(token, unit, step), the lane's units are `step` apart. A warp
// has one token at most.
template <class Run>
__device__ void each_token(int tokens, const Run& run) {
  const int warp = static_cast<int>(threadIdx.x) / 32, each = kMultiplyWarps / tokens;
  if (warp / each < tokens)
    run(warp / each, warp % each * 32 + static_cast<int>(threadIdx.x) % 32, each * 32);
}

// A unit of a row of `bytes` bytes, from byte `at` on; zeros beyond the row.
__device__ inline void copy_unit(unsigned char* to, const void* row, int at, int bytes) {
  const int there = min(16, max(0, bytes - at));
  ptx::copy_async(to, static_cast<const unsigned char*>(row) + (there > 0 ? at : 0), there);
}

// x as it is, [m][token_bytes], zeros beyond K; e4m3 codes to the second half of their token.
template <class F>
__device__ void copy_input(const GemvArgs& a, int units, int token_bytes, unsigned char* x) {
  const bool codes = a.input == GemvInput::kE4M3;
  const int elem = codes || F::kIntegers ? 1 : 2;
  each_token(a.m, [&](int m, int first, int step) {
    const unsigned char* from = static_cast<const unsigned char*>(a.x) + m * a.x_stride * elem;
    unsigned char* to = x + m * token_bytes + (codes ? units * 8 : 0);
    for (int at = first * 16; at < (codes ? units * 8 : units * 16); at += step * 16)
      copy_unit(to + at, from, at, a.k * elem);
  });
  ptx::copy_commit();
  ptx::copy_wait<0>();
  ptx::named_barrier(1, kMultiplyThreads);  // all of x is there
}

// e4m3 codes in the second half of a token -> f16, in place: a unit's values only overwrite codes
// of units that are not after it.
__device__ inline void expand_codes(int tokens, int units, int token_bytes, unsigned char* x) {
  const int warp = static_cast<int>(threadIdx.x) / 32, each = kMultiplyWarps / tokens;
  unsigned char* token = x + warp / each * token_bytes;
  const bool mine = warp / each < tokens;
  for (int base = 0; base < units; base += each * 32) {
    const int u = base + warp % each * 32 + static_cast<int>(threadIdx.x) % 32;
    uint2 codes{};
    if (mine && u < units) codes = *reinterpret_cast<const uint2*>(token + units * 8 + u * 8);
    ptx::named_barrier(1, kMultiplyThreads);  // codes of these units are read
    if (mine && u < units) *reinterpret_cast<uint4*>(token + u * 16) = decode_unit(codes);
  }
}

// bf16 -> f16 in place.
__device__ inline void scale_input(int tokens, int units, int token_bytes, unsigned char* x,
                                   Staged& staged) {
  const auto unit = [&](int m, int u) {
    return reinterpret_cast<uint4*>(x + m * token_bytes + u * 16);
  };
  each_token(tokens, [&](int m, int first, int step) {
    uint32_t amax = 0;
#pragma unroll 2
    for (int u = first; u < units; u += step) amax = max(amax, amax_bits(*unit(m, u)));
    amax = __reduce_max_sync(0xffffffffu, amax);
    if (threadIdx.x % 32 == 0) atomicMax(&staged.amax[m], amax);
  });
  ptx::named_barrier(1, kMultiplyThreads);  // every token's maximum is there
  each_token(tokens, [&](int m, int first, int step) {
    const HalfScale s = half_scale(staged.amax[m]);
    if (first == 0) staged.x_scale[m] = s.result;
#pragma unroll 2
    for (int u = first; u < units; u += step) {
      float v[8];
      unpack<__nv_bfloat16>(v, *unit(m, u));
#pragma unroll
      for (float& value : v) value *= s.inverse;
      *unit(m, u) = pack<__half>(v);
    }
  });
}

// Sums of x over the groups of int4 codes, as stage_input leaves them.
template <class F>
__device__ void sum_groups(int tokens, int units, int token_bytes, const unsigned char* x,
                           float* x_sums) {
  constexpr int kLanes = 16 / F::kSubs;  // of 8 values each: a group
  each_token(tokens, [&](int m, int first, int step) {
#pragma unroll 2
    for (int u = first; u < units; u += step) {
      float sum = sum_of_unit<typename F::Value>(
          *reinterpret_cast<const uint4*>(x + m * token_bytes + u * 16));
#pragma unroll
      for (int apart = kLanes / 2; apart > 0; apart /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, apart);
      if (u % kLanes == 0) x_sums[u / kLanes * kGemvRowsMax + m] = sum;
    }
  });
}

// Scales of x in tiles, [block of K][8 tokens].
__device__ inline void copy_scales(const GemvArgs& a, const Plan& p, float* scales) {
  each_token(a.m, [&](int m, int first, int step) {
    for (int b = first; b < p.lines * 2; b += step) {
      const int group = (min(b, p.blocks - 1) * p.group_inverse) >> kInverseBits;
      scales[b * kGemvRowsMax + m] = a.x_scale[m * int64_t{a.x_scale_stride} + group];
    }
  });
}

// The only token, of bf16 and aligned, as limbs: copied to the last two thirds of their place, then
// turned into limbs there. Limbs of a unit only overwrite what is not after it.
template <class F>
__device__ void stage_limbs(const GemvArgs& a, const Plan& p, unsigned char* x, Staged& staged) {
  const int units = p.lines * 2 * F::kBlockValues / 8, thread = static_cast<int>(threadIdx.x);
  const auto* copied = reinterpret_cast<const uint4*>(x + units * 8);
  for (int u = thread; u < units; u += kMultiplyThreads)
    copy_unit(x + units * 8 + u * 16, a.x, u * 16, a.k * 2);
  ptx::copy_commit();
  ptx::copy_wait<0>();  // a thread's own units
  uint32_t amax = 0;
#pragma unroll 2
  for (int u = thread; u < units; u += kMultiplyThreads) amax = max(amax, amax_bits(copied[u]));
  amax = __reduce_max_sync(0xffffffffu, amax);
  if (thread % 32 == 0) staged.amax[thread / 32] = amax;
  ptx::named_barrier(1, kMultiplyThreads);  // every warp's maximum is there
  const LimbScale s =
      limb_scale(__reduce_max_sync(0xffffffffu, staged.amax[thread % kMultiplyWarps]));
  if (thread == 0) staged.x_scale[0] = limb_result_scale(s);
#pragma unroll 1
  for (int base = 0; base < units; base += kMultiplyThreads) {
    const int u = base + thread;
    uint4 unit{};
    if (u < units) unit = copied[u];
    ptx::named_barrier(1, kMultiplyThreads);  // these units are read
    float v[8];
    unpack<__nv_bfloat16>(v, unit);
    if (u < units) put_limbs<F>(v, s.inverse, u * 8, x);
  }
}

template <class F>
__device__ void stage(const GemvArgs& a, const Plan& p, unsigned char* x, float* x_sums,
                      bool scaled, Staged& staged) {
  if constexpr (F::kLimbs > 0) {
    return stage_limbs<F>(a, p, x, staged);
  } else {
    if constexpr (F::kTiles) copy_scales(a, p, x_sums);
    const bool codes = a.input == GemvInput::kE4M3;
    const bool unaligned =
        codes ? (reinterpret_cast<uintptr_t>(a.x) | static_cast<uintptr_t>(a.x_stride)) % 16 != 0
              : !p.aligned;
    // Codes of several tokens take longer in place than in one step.
    const bool several = codes && a.m > 1 && F::kWeight != GemvWeight::kS4;
    if (unaligned || several || (a.input == GemvInput::kS8 && !F::kIntegers)) {
      stage_input<F>(a, x, x_sums, p.token_bytes, p.aligned, kMultiplyThreads);
      ptx::copy_wait<0>();
      if (kTakesScaled<F> && scaled) ptx::named_barrier(1, kMultiplyThreads);  // x is there
    } else {
      const int units = (p.token_bytes - F::kXPad) / 16;
      copy_input<F>(a, units, p.token_bytes, x);
      if (codes && !F::kIntegers) {
        expand_codes(a.m, units, p.token_bytes, x);
        if (F::kWeight == GemvWeight::kS4) ptx::named_barrier(1, kMultiplyThreads);  // in f16
      }
      if constexpr (F::kWeight == GemvWeight::kS4)
        sum_groups<F>(a.m, units, p.token_bytes, x, x_sums);
    }
    if constexpr (kTakesScaled<F>) {
      if (scaled) scale_input(a.m, (p.token_bytes - F::kXPad) / 16, p.token_bytes, x, staged);
    }
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
  if (warp == kLoadWarp) barriers.init(ring.stages, F::kSubs > 0, 32);
  if (threadIdx.x < kMultiplyWarps) staged.amax[threadIdx.x] = 0;
  __syncthreads();  // the barriers exist
  if (warp == kLoadWarp) {
    LoadCursor at;
    return produce<F>(a, p, ring, shared, barriers, share, at);
  }
  RingCursor at;
  const int stages = share.count * ring.pieces;
  Consumer<F> reader{a, p, ring, shared, barriers, at, stages};
  Ahead<F> ahead;
  ahead.held = false;
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  const bool scaled = kTakesScaled<F> && a.input == GemvInput::kRun && !a.run_is_f16;
  if (warp == kFinishWarp) {
    GemvArgs with_scale = a;
    if (F::kLimbs > 0 || scaled) {
      with_scale.x_scale = staged.x_scale;
      with_scale.x_scale_stride = 1;
    }
    if (F::kTiles) with_scale.x_scale = nullptr;
    return finish<F>(with_scale, ring, shared, barriers, share, at);
  }
  stage<F>(a, p, shared + ring.x, reinterpret_cast<float*>(shared + ring.x_sums), scaled, staged);
  ptx::named_barrier(1, kMultiplyThreads);  // x is there
  if (stages > 0) consume(reader, ahead, {}, stages);
}

// ---- launch

constexpr int kInFlight = 2;  // stages: more of them only make x wait in the queues of the memory

// Rows in pieces of 2 KiB, or smaller ones where x leaves no room for two stages.
template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p) {
  Ring r{};
  const int limit = a.shared_kib > 0 ? a.shared_kib << 10 : kRingSharedMax;
  for (int piece = a.piece > 0 ? a.piece : piece_max<F>(a.row_bytes);
       r.stages < 2 && piece >= kLine; piece /= 2) {
    cut_rows(r, static_cast<int>(a.row_bytes), piece);
    lay_out<F>(r, {a.m * p.token_bytes, x_sum_count<F>(p.lines) * 4, p.groups, a.m}, r.piece,
               limit);
  }
  if (a.stages > 0) r.stages = std::min(r.stages, a.stages);
  r.in_flight = std::min(r.stages, a.in_flight > 0 ? a.in_flight : kInFlight);
  r.bytes = std::max(r.bytes, kSharedLeast);
  return r;
}

template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(GemvArgs, Plan, Ring) = gemv_kernel__sm90<F>;
  allow_shared<gemv_kernel__sm90<F>>(kRingSharedMax,
                                     "giving the small-batch linear its shared memory");
  const Plan p = ring_plan_of<F>(a);
  const Ring ring = ring_of<F>(a, p);
  const int tiles = (a.n + kRows - 1) / kRows;
  launch("launching gemv_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(std::min(tiles, multiprocessors()))),
          .block = dim3(kRingThreads),
          .shared_bytes = static_cast<size_t>(ring.bytes)},
         stream, a, p, ring);
}

}  // namespace

std::string gemv_sm90_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  if (a.weight >= GemvWeight::kS8Groups) return "weights that gemm_rows decodes";
  const int64_t groups = a.group_cols > 0 ? (a.k + a.group_cols - 1) / a.group_cols : 0;
  // Two stages of 256 bytes a row, parameters and parts of the tiles ahead, K in whole units.
  if (gemv_input_bytes(a) + kTilesAhead * kRows * groups * 4 + 2 * kRows * (256 + kRowPad) +
          kTilesAhead * kMultiplyWarps * a.m * kRows * 4 + 2048 >
      kRingSharedMax)
    return "the activations do not fit in shared memory";
  if (a.k == 0) return "K is 0";
  return weights_why_not(a);
}

void gemv__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  if (a.weight == GemvWeight::kE4M3Tiles)
    return launch_format<Format<GemvWeight::kE4M3Tiles, __half, 1>>(a, stream);
  if (a.input == GemvInput::kRun && !a.run_is_f16) {
    if (a.m == 1 && a.k <= kLimbColsMax && a.weight == GemvWeight::kS4 && a.group_cols % 128 == 0 &&
        a.w_zero == nullptr && reinterpret_cast<uintptr_t>(a.x) % 16 == 0)
      return launch_format<Format<GemvWeight::kS4, int8_t, 1, false, kLimbCount>>(a, stream);
    if (a.m <= kScaledMax && a.weight == GemvWeight::kE4M3)
      return launch_format<Format<GemvWeight::kE4M3, __half>>(a, stream);
    if (a.m <= kScaledMax && a.weight == GemvWeight::kS8)
      return launch_format<Format<GemvWeight::kS8, __half>>(a, stream);
  }
  with_format(a, [&](auto format) { launch_format<decltype(format)>(a, stream); });
}

}  // namespace mantissa::cuda
