// GEMM whose weights are decoded on the way to mma.sync, for more rows of activations than the
// small-batch linear takes. A warp multiplies 16 rows of weights, each element decoded once, with
// 64 tokens; a line of x (the K of 128 bytes of weights) waits in shared memory, two in turn.
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarps = 4, kTokens = 64, kTiles = kTokens / 8;  // tiles: mma's N

// Line `line` of the block's tokens as operands; zeros beyond M and K.
template <class F>
__device__ void stage_line(const GemvArgs& a, const Plan& p, unsigned char* to, int m0, int line) {
  using T = typename F::Value;
  constexpr int kUnits = 2 * F::kXBlock / 16;  // of 8 values, of a token
  const auto* x = static_cast<const unsigned char*>(a.x);
#pragma unroll 4
  for (int i = threadIdx.x; i < kTokens * kUnits; i += kWarps * 32) {
    const int m = m0 + i / kUnits, u = i % kUnits, k = line * 2 * F::kBlockValues + u * 8;
    unsigned char* at = to + i / kUnits * p.token_bytes + u * 16;
    const bool in = m < a.m && k < a.k, whole = p.aligned && k + 8 <= a.k;
    if (a.input == GemvInput::kRun && (whole || !in)) {
      ptx::copy_async(at, x + (in ? (m * a.x_stride + k) * 2 : 0), in ? 16 : 0);
    } else if (a.input == GemvInput::kE4M3 && whole && in) {
      *reinterpret_cast<uint4*>(at) =
          decode_unit(*reinterpret_cast<const uint2*>(x + m * a.x_stride + k));
    } else {
      *reinterpret_cast<uint4*>(at) = in ? gather_unit<T>(a, m, k) : uint4{0, 0, 0, 0};
    }
  }
  ptx::copy_commit();
}

template <class F>
__device__ void multiply_tokens(float (&sums)[kTiles][4], const Line<F>& line,
                                const unsigned char* x, int token_bytes) {
  using T = typename F::Value;
  constexpr int kPerSub = F::kSubs > 0 ? F::kSteps / 2 / F::kSubs : F::kSteps;
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    float group[kTiles][4] = {};
    uint32_t offset[2] = {};
#pragma unroll
    for (int q = 0; q < F::kSteps / 2; ++q) {
      if constexpr (F::kSubs > 0) {
        if (q % kPerSub == 0) {
          for (int r = 0; r < 2; ++r) {
            const auto zero = static_cast<int8_t>(line.groups[b][r].zeros >> (q / kPerSub * 8));
            offset[r] = offset_s4<T>(zero);
          }
        }
      }
      uint32_t w[2][4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        decode<F>(line.codes[b][0], 2 * q + h, offset[0], w[h][0], w[h][2]);
        decode<F>(line.codes[b][1], 2 * q + h, offset[1], w[h][1], w[h][3]);
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const uint4 operand = *reinterpret_cast<const uint4*>(
            x + n * 8 * token_bytes + b * F::kXBlock + q * (F::kWide ? 16 : 64));
        auto& to = F::kSubs > 0 ? group[n] : sums[n];
        ptx::mma_16(to, w[0], operand.x, operand.y, T{});
        ptx::mma_16(to, w[1], operand.z, operand.w, T{});
      }
      if constexpr (F::kSubs > 0) {
        if (q % kPerSub != kPerSub - 1) continue;
        const int sub = q / kPerSub;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint2 s = line.groups[b][i / 2].scales;
          const uint32_t pair = sub < 2 ? s.x : s.y;
          const float scale = __uint_as_float(sub % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            sums[n][i] = fmaf(group[n][i], scale, sums[n][i]);
            group[n][i] = 0;
          }
        }
      }
    }
  }
}

// Grid: 64 rows of weights x 64 tokens.
template <class F>
__global__ void __launch_bounds__(kWarps * 32) gemm_mixed_kernel__sm80(GemvArgs a, Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int tile = blockIdx.x * kWarps + warp, m0 = blockIdx.y * kTokens;
  const int stage_bytes = kTokens * p.token_bytes;
  const unsigned char* x = shared + lane / 4 * p.token_bytes + lane % 4 * (F::kWide ? 32 : 16);
  Line<F> now, next;
  float sums[kTiles][4] = {};
  load_line(next, a, p, tile, 0, lane);
  stage_line<F>(a, p, shared, m0, 0);
  for (int line = 0; line < p.lines; ++line) {
    const int turn = line % 2;
    now = next;
    ptx::copy_wait<0>();
    __syncthreads();  // this line is there, and the last one read
    if (line + 1 < p.lines) {
      load_line(next, a, p, tile, line + 1, lane);
      stage_line<F>(a, p, shared + (turn ^ 1) * stage_bytes, m0, line + 1);
    }
    multiply_tokens(sums, now, x + turn * stage_bytes, p.token_bytes);
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int m = m0 + n * 8 + lane % 4 * 2 + i % 2;
      const int row = tile * kRows + lane / 4 + i / 2 * 8;
      if (m < a.m && row < a.n) store<F>(a, m, row, sums[n][i]);
    }
  }
}

template <class F>
void launch(const GemvArgs& a, cudaStream_t stream) {
  Plan p = plan_of<F>(a);
  p.token_bytes = 2 * F::kXBlock + F::kXPad;
  const int shared = 2 * kTokens * p.token_bytes;
  allow_shared<gemm_mixed_kernel__sm80<F>>(shared, "giving the mixed GEMM its shared memory");
  const dim3 grid(static_cast<unsigned>((a.n + kWarps * kRows - 1) / (kWarps * kRows)),
                  static_cast<unsigned>((a.m + kTokens - 1) / kTokens));
  gemm_mixed_kernel__sm80<F><<<grid, kWarps * 32, static_cast<size_t>(shared), stream>>>(a, p);
  cuda_check(cudaGetLastError(), "launching gemm_mixed_kernel__sm80");
}

}  // namespace

std::string gemm_mixed_sm80_why_not(const GemvArgs& a) {
  if (a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8) return "int8 codes on both sides";
  if (a.weight == GemvWeight::kE4M3Tiles) return "scales of groups on both sides";
  return weights_why_not(a);
}

void gemm_mixed__sm80(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  with_floats(a, [&](auto format) { launch<decltype(format)>(a, stream); });
}

}  // namespace mantissa::cuda
