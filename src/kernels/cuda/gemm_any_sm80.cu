// GEMM of any format against any other on mma.sync: both sides are decoded to f16 or bf16 on the
// way to shared memory, nothing decoded goes to device memory. For what has no kernel of its own:
// MX, NVFP4, integers of odd widths and in groups, codebooks. docs/kernels/cuda-gemm.md.
#include "kernels/cuda/any_operand.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kTileM = 128, kTileN = 64, kTileK = 64;
constexpr int kThreads = 256;          // 8 warps: 4 x 2 of 32 rows x 32 columns
constexpr int kRowBytes = kTileK * 2;  // of decoded operands
constexpr int kHalves = 2;             // 32 of K: the least group whose scale multiplies sums

struct Stage {
  unsigned char x[kTileM * kRowBytes], w[kTileN * kRowBytes];
  float x_scale[kHalves][kTileM], w_scale[kHalves][kTileN];
};

// 16 bytes `piece` of a row; rows of 128 bytes, pieces swapped so that eight rows of one piece
// never share a bank.
__device__ int piece_at(int row, int piece) {
  return row * kRowBytes + ((piece ^ row) & 7) * 16;
}

// What a thread brings of a step of K: 32 columns of a row of x, 16 of a row of w.
constexpr int kXUnits = 4, kWUnits = 2;
struct Raw {
  uint4 x_run[kXUnits];
  RawUnit x[kXUnits], w[kWUnits];
  float x_scale, w_scale;
};

struct Place {
  int x_row, x_k, w_row, w_k;  // within the tile
};
__device__ Place place_of() {
  const int t = static_cast<int>(threadIdx.x);
  return {t / 2, t % 2 * 32, t / 4, t % 4 * 16};
}

template <class T>
__device__ void load(Raw& raw, const AnyArgs& a, int m0, int n0, int k0) {
  const Place at = place_of();
  const int m = min(m0 + at.x_row, a.m - 1), n = min(n0 + at.w_row, a.n - 1);
#pragma unroll
  for (int u = 0; u < kXUnits; ++u) {
    const int k = k0 + at.x_k + u * 8;
    if (k >= a.k) {
      raw.x_run[u] = {};
    } else if (a.x.format == AnyFormat::kRun) {
      raw.x_run[u] = *reinterpret_cast<const uint4*>(a.x.codes + m * a.x.row_bytes + k * 2);
    } else {
      raw.x[u] = load_raw_unit(a.x, m, k);
    }
  }
#pragma unroll
  for (int u = 0; u < kWUnits; ++u) {
    const int k = k0 + at.w_k + u * 8;
    if (k < a.k) raw.w[u] = load_raw_unit(a.w, n, k);
  }
  if (a.x.grouped()) raw.x_scale = any_scale(a.x, m, min(k0 + at.x_k, a.k - 1));
  if (a.w.grouped()) raw.w_scale = any_scale(a.w, n, min(k0 + at.w_k, a.k - 1));
}

// Units beyond K are zeros on both sides.
template <class T>
__device__ void decode_to(Stage& to, const Raw& raw, const AnyArgs& a, int m0, int n0, int k0) {
  const Place at = place_of();
  const int m = min(m0 + at.x_row, a.m - 1), n = min(n0 + at.w_row, a.n - 1);
#pragma unroll
  for (int u = 0; u < kXUnits; ++u) {
    const int k = k0 + at.x_k + u * 8;
    uint4 unit = raw.x_run[u];
    if (a.x.format != AnyFormat::kRun && k < a.k)
      unit = decode_any<T>(a.x, raw.x[u], unit_context(a.x, m, k));
    *reinterpret_cast<uint4*>(to.x + piece_at(at.x_row, at.x_k / 8 + u)) = unit;
  }
  const UnitContext context = unit_context(a.w, n, min(k0 + at.w_k, a.k - 1));
#pragma unroll
  for (int u = 0; u < kWUnits; ++u) {
    const int k = k0 + at.w_k + u * 8;
    const uint4 unit = k < a.k ? decode_any<T>(a.w, raw.w[u], context) : uint4{};
    *reinterpret_cast<uint4*>(to.w + piece_at(at.w_row, at.w_k / 8 + u)) = unit;
  }
  if (a.x.grouped()) to.x_scale[at.x_k / 32][at.x_row] = raw.x_scale;
  if (a.w.grouped() && at.w_k % 32 == 0) to.w_scale[at.w_k / 32][at.w_row] = raw.w_scale;
}

// [m16 tile][n8 tile][mma's four]
using Sums = float[2][4][4];

template <class T>
__device__ void multiply_16(Sums& sums, const Stage& s, int step, int row0, int col0, int lane) {
  uint32_t x[2][4], w[2][4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    ptx::load_matrix_x4(
        x[i], ptx::shared_address(s.x + piece_at(row0 + 16 * i + lane % 16, 2 * step + lane / 16)));
    ptx::load_matrix_x4(w[i],
                        ptx::shared_address(s.w + piece_at(col0 + 16 * i + lane % 8 + lane / 16 * 8,
                                                           2 * step + lane / 8 % 2)));
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      ptx::mma_16(sums[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1], T{});
    }
  }
}

// sums += part * scales; part becomes 0.
__device__ void promote(Sums& sums, Sums& part, const AnyArgs& a, const Stage& s, int half,
                        int row0, int col0, int lane) {
  float x[2][2], w[4][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
      x[i][r] = a.x.grouped() ? s.x_scale[half][row0 + 16 * i + lane / 4 + 8 * r] : 1.0f;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int c = 0; c < 2; ++c)
      w[j][c] = a.w.grouped() ? s.w_scale[half][col0 + 8 * j + lane % 4 * 2 + c] : 1.0f;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[i][j][e] = fmaf(part[i][j][e], x[i][e / 2] * w[j][e % 2], sums[i][j][e]);
        part[i][j][e] = 0;
      }
    }
  }
}

template <class T, bool kGrouped>
__global__ void __launch_bounds__(kThreads, 2) gemm_any_kernel__sm80(AnyArgs a) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto* stages = reinterpret_cast<Stage*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int m0 = static_cast<int>(blockIdx.x) * kTileM;
  const int n0 = static_cast<int>(blockIdx.y) * kTileN;
  const int row0 = warp / 2 * 32, col0 = warp % 2 * 32;
  const int steps = (a.k + kTileK - 1) / kTileK;
  Sums sums = {}, part = {};
  Raw raw;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  load<T>(raw, a, m0, n0, 0);
  decode_to<T>(stages[0], raw, a, m0, n0, 0);
  for (int step = 0; step < steps; ++step) {
    const int next = (step + 1) * kTileK;
    if (step + 1 < steps) load<T>(raw, a, m0, n0, next);
    __syncthreads();  // this step is decoded, the one before has been read
    const Stage& now = stages[step % 2];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      multiply_16<T>(kGrouped ? part : sums, now, 2 * half, row0, col0, lane);
      multiply_16<T>(kGrouped ? part : sums, now, 2 * half + 1, row0, col0, lane);
      if (kGrouped && (a.promotes_32 || half == 1))
        promote(sums, part, a, now, half, row0, col0, lane);
    }
    if (step + 1 < steps) decode_to<T>(stages[(step + 1) % 2], raw, a, m0, n0, next);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int m = m0 + row0 + 16 * i + lane / 4 + 8 * r;
      if (m >= a.m) continue;
      const float factor = any_row_factor(a.x, m);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int n = n0 + col0 + 8 * j + lane % 4 * 2 + c;
          if (n < a.n) store_any(a, m, n, sums[i][j][2 * r + c], factor * any_row_factor(a.w, n));
        }
      }
    }
  }
}

template <class T, bool kGrouped>
void launch_any(const AnyArgs& a, cudaStream_t stream) {
  constexpr int kShared = 2 * sizeof(Stage);
  allow_shared<gemm_any_kernel__sm80<T, kGrouped>>(kShared, "giving gemm_any its shared memory");
  launch("launching gemm_any", gemm_any_kernel__sm80<T, kGrouped>,
         {.grid = dim3(static_cast<unsigned>((a.m + kTileM - 1) / kTileM),
                       static_cast<unsigned>((a.n + kTileN - 1) / kTileN)),
          .block = dim3(kThreads),
          .shared_bytes = kShared},
         stream, a);
}

}  // namespace

void gemm_any__sm80(const AnyArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  const bool grouped = a.promotes_32 || a.promotes_64;
  if (any_is_half(a)) {
    grouped ? launch_any<__half, true>(a, stream) : launch_any<__half, false>(a, stream);
  } else {
    grouped ? launch_any<__nv_bfloat16, true>(a, stream)
            : launch_any<__nv_bfloat16, false>(a, stream);
  }
}

}  // namespace mantissa::cuda
