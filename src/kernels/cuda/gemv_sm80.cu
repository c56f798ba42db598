// Small-batch linear on mma.sync: a warp multiplies 16 rows of weights, as they stream by, with up
// to 8 rows of activations held in shared memory. Weights go from memory to registers to the tensor
// core; the order of K within a block of 64 bytes is whatever makes a lane's 16 bytes one load.
// docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/gemv_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarpsMax = 12;

// Warps of a block share out the lines of 16 rows, line by line; blocks take every gridDim-th tile.
// The next lines are on their way while one is multiplied, also across tiles, and the first ones
// before the kernel that makes x has ended. Columns of mma beyond M repeat the last token.
template <class F>
__global__ void __launch_bounds__(kWarpsMax * 32, 2) gemv_kernel__sm80(GemvArgs a, Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* x_sums = reinterpret_cast<float*>(shared + a.m * p.token_bytes);
  auto* parts = reinterpret_cast<typename F::Sum*>(x_sums + x_sum_count<F>(p.lines));
  const int part_size = a.m * kRows;
  const int tiles = (a.n + kRows - 1) / kRows;
  const bool wants_row_codes = F::kIntegers && a.x_zero != nullptr;
  const unsigned char* x =
      shared + min(lane / 4, a.m - 1) * p.token_bytes + lane % 4 * (F::kWide ? 32 : 16);

  constexpr int kAhead = F::kWeight == GemvWeight::kS4 ? 1 : 2;
  Line<F> ahead[kAhead];
  int load_tile = warp < p.lines ? blockIdx.x : tiles, load_at = warp;
  const auto load = [&](Line<F>& to) {
    if (load_tile >= tiles) return;
    load_line(to, a, p, load_tile, load_at, lane);
    load_at += warps;
    if (load_at >= p.lines) {
      load_at = warp;
      load_tile += gridDim.x;
    }
  };
  ptx::grid_dependency_launch();
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load(ahead[i]);
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  stage_input<F>(a, shared, x_sums, p.lines, p.token_bytes, p.aligned, blockDim.x);
  ptx::copy_wait<0>();
  __syncthreads();  // x is there
  int turn = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
    Sums<F, 1> sums;
    for (int line = warp; line < p.lines; line += warps) {
      const Line<F> now[1] = {ahead[0]};
#pragma unroll
      for (int i = 1; i < kAhead; ++i) ahead[i - 1] = ahead[i];
      load(ahead[kAhead - 1]);
      multiply(sums, now, x + line * 2 * F::kXBlock, x_sums + x_sum_count<F>(line) + lane % 4 * 2,
               1, wants_row_codes, [] {});
    }
    auto* mine = parts + turn * warps * part_size;  // two in turn: one barrier a tile
    put_part(a, sums, {1, 1}, mine + warp * part_size, lane / 4);
    __syncthreads();  // every warp's part is there
    for (int i = threadIdx.x; i < part_size; i += blockDim.x) {
      typename F::Sum sum = 0;
      for (int w = 0; w < warps; ++w) sum += mine[w * part_size + i];
      const int row = tile * kRows + i % kRows;
      if (row < a.n) store<F>(a, i / kRows, row, sum);
    }
  }
}

// ---- launch

// Of the current device, for one block.
int shared_max() {
  int device = 0, bytes = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "asking for the shared memory of a block");
  return bytes;
}

struct Blocks {
  int warps, shared_bytes, count;
};
// Of blocks of 8 and of 12 warps, those that leave fewer multiprocessors idle in the last wave.
// Shared memory beyond kSharedShare takes from L1 what loads in flight need: bf16, 8 rows: 55 % of
// the bandwidth instead of 75 %.
// (4-bit codes have fewer bytes in flight.)
template <class F>
constexpr int kSharedShare = (F::kSubs > 0 ? 224 : 160) << 10;
template <class F>
Blocks blocks_of(const GemvArgs& a, const Plan& p, void (*kernel)(GemvArgs, Plan)) {
  const int tiles = (a.n + kRows - 1) / kRows;
  Blocks best{};
  double most = 0;
  for (const int warps : {8, kWarpsMax}) {
    if (a.warps > 0 && warps != kWarpsMax) continue;
    Blocks b{.warps = a.warps > 0 ? a.warps : warps, .shared_bytes = 0, .count = 0};
    b.shared_bytes =
        a.m * p.token_bytes + x_sum_count<F>(p.lines) * 4 + 2 * b.warps * a.m * kRows * 4;
    int per_sm = 0;
    cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, b.warps * 32,
                                                             static_cast<size_t>(b.shared_bytes)),
               "asking how many blocks fit");
    per_sm = std::max(1, std::min(per_sm, kSharedShare<F> / b.shared_bytes));
    const int slots = per_sm * multiprocessors(), waves = (tiles + slots - 1) / slots;
    b.count = std::min(tiles, slots);
    double share =
        static_cast<double>(tiles) / waves / slots * std::min(1.0, per_sm * b.warps / 24.0);
    if (F::kSubs > 0) {  // bound by arithmetic: idle warps count too
      const int turns = (p.lines + b.warps - 1) / b.warps;
      share *= static_cast<double>(p.lines) / (turns * b.warps);
    }
    if (share <= most) continue;
    most = share;
    best = b;
  }
  return best;
}

template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(GemvArgs, Plan) = gemv_kernel__sm80<F>;
  allow_shared<gemv_kernel__sm80<F>>(shared_max(),
                                     "giving the small-batch linear its shared memory");
  const Plan p = plan_of<F>(a);
  const Blocks blocks = blocks_of<F>(a, p, kernel);
  launch("launching gemv_kernel__sm80", kernel,
         {.grid = dim3(static_cast<unsigned>(blocks.count)),
          .block = dim3(static_cast<unsigned>(blocks.warps) * 32),
          .shared_bytes = static_cast<size_t>(blocks.shared_bytes)},
         stream, a, p);
}

}  // namespace

std::string weights_why_not(const GemvArgs& a) {
  if (a.row_bytes % 16 != 0) return "rows of weights are no multiple of 16 bytes";
  if (a.weight != GemvWeight::kS4) return "";
  if (a.k > 1 << 16) return "K is beyond 65536";
  if (a.k % 128 != 0 || a.k % a.group_cols != 0) return "K is no multiple of 128 and of the group";
  if (a.group_cols % 128 != 0 && a.group_cols != 32 && a.group_cols != 64)
    return "groups of other than 32, 64 or multiples of 128";
  return "";
}
int64_t gemv_input_bytes(const GemvArgs& a) {
  const int64_t lines = (a.row_bytes + kLine - 1) / kLine;
  const bool integers = a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8;
  const int64_t line_bytes = a.weight == GemvWeight::kS4                ? 512
                             : a.weight == GemvWeight::kRun || integers ? 128
                                                                        : 256;
  const int64_t sums = a.weight == GemvWeight::kS4          ? 2 * std::max(1, 128 / a.group_cols)
                       : a.weight == GemvWeight::kE4M3Tiles ? 1
                                                            : 0;
  return a.m * (lines * line_bytes + 64) + lines * sums * kGemvRowsMax * 4;
}
std::string gemv_sm80_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  if (a.weight == GemvWeight::kE4M3Tiles) return "scales of groups on both sides";
  if (a.weight >= GemvWeight::kS8Groups) return "weights that gemm_rows decodes";
  if (gemv_input_bytes(a) + 2 * kWarpsMax * a.m * kRows * 4 > shared_max())
    return "the activations do not fit in shared memory";
  return weights_why_not(a);
}

void gemv__sm80(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  with_format(a, [&](auto format) { launch_format<decltype(format)>(a, stream); });
}

}  // namespace mantissa::cuda
