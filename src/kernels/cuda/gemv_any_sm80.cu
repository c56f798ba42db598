// Linear for up to 32 tokens in any format: weights go from memory to registers, are decoded there
// to mma's A operand and met by the tokens, decoded as B. A lane takes units of 8 elements in K's
// own order on both sides. Warps of a block share out K, 128 at a time.
#include "kernels/cuda/any_operand.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarps = 8, kRows = 16;
constexpr int kSpan = 128, kGranules = 4;  // of K: a warp's turn, and its groups of 32

// The four units of a lane in a span: unit lane % 4 of each granule.
struct Span {
  RawUnit unit[kGranules];
};
__device__ Span load_span(const AnyOperand& o, int row, int k0, int k_end, int quad) {
  Span s{};
#pragma unroll
  for (int g = 0; g < kGranules; ++g) {
    const int k = k0 + g * 32 + quad * 8;
    if (k < k_end) s.unit[g] = load_raw_unit(o, row, k);
  }
  return s;
}

// The unit of x at k, zeros beyond K.
template <class T>
__device__ uint4 token_unit(const AnyArgs& a, int m, int k) {
  if (k >= a.k) return {};
  if (a.x.format == AnyFormat::kRun)
    return __ldg(reinterpret_cast<const uint4*>(a.x.codes + m * a.x.row_bytes + k * 2));
  return decode_any<T>(a.x, load_raw_unit(a.x, m, k), unit_context(a.x, m, k));
}

// [n8 tile of tokens][mma's four: rows lane / 4 and + 8, tokens 2 (lane % 4) and the next]
template <int kTiles>
using Sums = float[kTiles][4];

template <int kTiles>
__device__ void promote(Sums<kTiles>& sums, Sums<kTiles>& part, const AnyArgs& a,
                        const int (&row)[2], int k, int lane) {
  if (k >= a.k) return;
  float w[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) w[r] = a.w.grouped() ? any_scale(a.w, row[r], k) : 1.0f;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int m = min(t * 8 + lane % 4 * 2 + c, a.m - 1);
      const float x = a.x.grouped() ? any_scale(a.x, m, k) : 1.0f;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sums[t][2 * r + c] = fmaf(part[t][2 * r + c], w[r] * x, sums[t][2 * r + c]);
        part[t][2 * r + c] = 0;
      }
    }
  }
}

template <class T, int kTiles>
__device__ void multiply_span(Sums<kTiles>& sums, const Span (&span)[2], const AnyArgs& a,
                              const int (&row)[2], int k0, int lane) {
  const bool grouped = a.promotes_32 || a.promotes_64;
  Sums<kTiles> part = {};
#pragma unroll
  for (int g = 0; g < kGranules; ++g) {
    const int k = k0 + g * 32 + lane % 4 * 8;
    const int inside = min(k, a.k - 8);
    const uint4 low = decode_any<T>(a.w, span[0].unit[g], unit_context(a.w, row[0], inside));
    const uint4 high = decode_any<T>(a.w, span[1].unit[g], unit_context(a.w, row[1], inside));
    const uint32_t first[4] = {low.x, high.x, low.y, high.y};
    const uint32_t second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4 x = token_unit<T>(a, min(t * 8 + lane / 4, a.m - 1), k);
      ptx::mma_16(part[t], first, x.x, x.y, T{});
      ptx::mma_16(part[t], second, x.z, x.w, T{});
    }
    if (grouped && (a.promotes_32 || g % 2 == 1))
      promote<kTiles>(sums, part, a, row, k0 + (a.promotes_32 ? g : g - 1) * 32, lane);
  }
  if (grouped) return;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[t][e] += part[t][e];
  }
}

template <class T, int kTiles>
__global__ void __launch_bounds__(kWarps * 32) gemv_any_kernel__sm80(AnyArgs a) {
  __shared__ float parts[kWarps][kTiles * 8][kRows];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int row0 = static_cast<int>(blockIdx.x) * kRows;
  const int row[2] = {min(row0 + lane / 4, a.n - 1), min(row0 + lane / 4 + 8, a.n - 1)};
  Sums<kTiles> sums = {};
  Span now[2], next[2];
  const auto load = [&](Span(&to)[2], int k0) {
#pragma unroll
    for (int r = 0; r < 2; ++r) to[r] = load_span(a.w, row[r], k0, a.k, lane % 4);
  };
  load(next, warp * kSpan);  // weights: written by copies alone
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  for (int k0 = warp * kSpan; k0 < a.k; k0 += kWarps * kSpan) {
    now[0] = next[0];
    now[1] = next[1];
    load(next, k0 + kWarps * kSpan);
    multiply_span<T, kTiles>(sums, now, a, row, k0, lane);
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      parts[warp][t * 8 + lane % 4 * 2 + e % 2][lane / 4 + e / 2 * 8] = sums[t][e];
  }
  __syncthreads();  // every warp's part is there
  for (int i = static_cast<int>(threadIdx.x); i < kTiles * 8 * kRows; i += kWarps * 32) {
    const int m = i / kRows, n = row0 + i % kRows;
    if (m >= a.m || n >= a.n) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += parts[w][m][i % kRows];
    store_any(a, m, n, sum, any_row_factor(a.x, m) * any_row_factor(a.w, n));
  }
}

template <class T>
void launch_any(const AnyArgs& a, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((a.n + kRows - 1) / kRows)),
                          .block = dim3(kWarps * 32)};
  if (a.m <= 8) {
    launch("launching gemv_any", gemv_any_kernel__sm80<T, 1>, shape, stream, a);
  } else {
    launch("launching gemv_any", gemv_any_kernel__sm80<T, 4>, shape, stream, a);
  }
}

}  // namespace

void gemv_any__sm80(const AnyArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  any_is_half(a) ? launch_any<__half>(a, stream) : launch_any<__nv_bfloat16>(a, stream);
}

}  // namespace mantissa::cuda
