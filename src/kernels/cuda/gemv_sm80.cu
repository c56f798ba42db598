// Small-batch linear on mma.sync: a warp multiplies 16 rows of weights, as they stream by, with up
// to 8 rows of activations held in shared memory. Weights go from memory to registers to the tensor
// core; the order of K within a block of 64 bytes is whatever makes a lane's 16 bytes one load.
// docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarpsMax = 12;

// ---- activations into shared memory

// All of x as operands, token_bytes a token. `aligned`: units of 8 or 16 elements are 8- or 16-byte
// aligned. Copies are in flight until ptx::copy_wait.
template <class F>
__device__ void stage_input(const GemvArgs& a, unsigned char* shared, int token_bytes,
                            bool aligned) {
  using T = typename F::Value;
  constexpr int kUnit = 16 / sizeof(T);
  const int units = (token_bytes - F::kXPad) / 16;
  const bool as_is = a.input == GemvInput::kRun || sizeof(T) == 1;
  const bool e4m3 = a.input == GemvInput::kE4M3 && sizeof(T) == 2;
  const int whole = aligned && (as_is || e4m3) ? a.k / kUnit : 0;  // units that loads may take
  const auto* x = static_cast<const unsigned char*>(a.x);
  if (as_is) {
    for (int i = threadIdx.x; i < whole * a.m; i += blockDim.x) {
      const int m = i / whole, u = i % whole;
      ptx::copy_async(shared + m * token_bytes + u * 16,
                      x + m * a.x_stride * int64_t{sizeof(T)} + u * 16, 16);
    }
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < whole * a.m; i += blockDim.x) {
      const int m = i / whole, u = i % whole;
      *reinterpret_cast<uint4*>(shared + m * token_bytes + u * 16) =
          decode_unit(x + m * a.x_stride + u * 8);
    }
  }
  for (int i = threadIdx.x; i < (units - whole) * a.m; i += blockDim.x) {
    const int m = i / (units - whole), u = whole + i % (units - whole);
    *reinterpret_cast<uint4*>(shared + m * token_bytes + u * 16) = gather_unit<T>(a, m, u * kUnit);
  }
  ptx::copy_commit();
}

// ---- the product of a line

template <class F>
struct Sums {
  typename F::Sum d[4] = {};  // mma's: (row, token), (row, token + 1), (row + 8, ...)
  int32_t row_codes[2] = {};  // sum of a row's int8 codes over this lane's K
};

template <class F>
__device__ void multiply(Sums<F>& sums, const Line<F>& line, const unsigned char* x,
                         bool wants_row_codes) {
  using T = typename F::Value;
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    float group[4] = {};
    uint32_t offset[2] = {};
#pragma unroll
    for (int q = 0; q < F::kSteps / 2; ++q) {
      constexpr int kPerSub = F::kSubs > 0 ? F::kSteps / 2 / F::kSubs : F::kSteps;
      const uint4 operand =
          *reinterpret_cast<const uint4*>(x + b * F::kXBlock + q * (F::kWide ? 16 : 64));
      if constexpr (F::kSubs > 0) {
        if (q % kPerSub == 0) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const auto zero = static_cast<int8_t>(line.groups[b][r].zeros >> (q / kPerSub * 8));
            offset[r] = offset_s4<T>(zero);
          }
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        uint32_t w[4];
        decode<F>(line.codes[b][0], 2 * q + h, offset[0], w[0], w[2]);
        decode<F>(line.codes[b][1], 2 * q + h, offset[1], w[1], w[3]);
        const uint32_t x0 = word_of(operand, 2 * h), x1 = word_of(operand, 2 * h + 1);
        if constexpr (F::kIntegers) {
          ptx::mma_s8(sums.d, w, x0, x1);
          if (wants_row_codes) {
            for (int i = 0; i < 4; ++i) {
              sums.row_codes[i % 2] =
                  __dp4a(static_cast<int>(w[i]), 0x01010101, sums.row_codes[i % 2]);
            }
          }
        } else if constexpr (F::kSubs > 0) {
          ptx::mma_16(group, w, x0, x1, T{});
        } else {
          ptx::mma_16(sums.d, w, x0, x1, T{});
        }
      }
      if constexpr (F::kSubs > 0) {
        if (q % kPerSub == kPerSub - 1) {
          const int sub = q / kPerSub;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const uint2 s = line.groups[b][i / 2].scales;
            const uint32_t pair = sub < 2 ? s.x : s.y;
            const float scale = __uint_as_float(sub % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
            sums.d[i] = fmaf(group[i], scale, sums.d[i]);
            group[i] = 0;
          }
        }
      }
    }
  }
}

// A warp's sums of a tile -> part [kTokens][kRows].
template <class F>
__device__ void put_part(const GemvArgs& a, Sums<F>& sums, typename F::Sum* part, int lane) {
  if (F::kIntegers && a.x_zero != nullptr) {  // sum w (x - zero) = sum w x - zero * sum w
    for (int r = 0; r < 2; ++r) {
      int all = sums.row_codes[r];
      all += __shfl_xor_sync(0xffffffffu, all, 1);
      all += __shfl_xor_sync(0xffffffffu, all, 2);
      for (int c = 0; c < 2; ++c) {
        const int m = lane % 4 * 2 + c;
        if (m < a.m) sums.d[2 * r + c] -= a.x_zero[m * a.x_scale_stride] * all;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int m = lane % 4 * 2 + i % 2;
    if (m < a.m) part[m * kRows + lane / 4 + i / 2 * 8] = sums.d[i];
  }
}

// Warps of a block share out the lines of 16 rows, line by line; blocks take every gridDim-th tile.
// The next lines are on their way while one is multiplied, also across tiles, and the first ones
// before the kernel that makes x has ended. Columns of mma beyond M repeat the last token.
template <class F>
__global__ void __launch_bounds__(kWarpsMax * 32, 2) gemv_kernel__sm80(GemvArgs a, Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* parts = reinterpret_cast<typename F::Sum*>(shared + a.m * p.token_bytes);
  const int part_size = a.m * kRows;
  const int tiles = (a.n + kRows - 1) / kRows;
  const bool wants_row_codes = F::kIntegers && a.x_zero != nullptr;
  const unsigned char* x =
      shared + min(lane / 4, a.m - 1) * p.token_bytes + lane % 4 * (F::kWide ? 32 : 16);

  Line<F> ahead[F::kAhead];
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
  ptx::grid_launch_dependents();
#pragma unroll
  for (int i = 0; i < F::kAhead; ++i) load(ahead[i]);
  ptx::grid_wait();  // x is written, and what reads out is done
  stage_input<F>(a, shared, p.token_bytes, p.aligned);
  ptx::copy_wait<0>();
  __syncthreads();  // x is there
  int turn = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
    Sums<F> sums;
    for (int line = warp; line < p.lines; line += warps) {
      const Line<F> now = ahead[0];
#pragma unroll
      for (int i = 1; i < F::kAhead; ++i) ahead[i - 1] = ahead[i];
      load(ahead[F::kAhead - 1]);
      multiply(sums, now, x + line * 2 * F::kXBlock, wants_row_codes);
    }
    auto* mine = parts + turn * warps * part_size;  // two in turn: one barrier a tile
    put_part(a, sums, mine + warp * part_size, lane);
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
    b.shared_bytes = a.m * p.token_bytes + 2 * b.warps * a.m * kRows * 4;
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
void launch(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(GemvArgs, Plan) = gemv_kernel__sm80<F>;
  static const bool configured = [&] {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_max()),
        "giving the small-batch linear its shared memory");
    return true;
  }();
  (void)configured;
  const Plan p = plan_of<F>(a);
  const Blocks blocks = blocks_of<F>(a, p, kernel);
  cudaLaunchAttribute overlap{};  // programmatic dependent launch
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks.count));
  config.blockDim = dim3(static_cast<unsigned>(blocks.warps) * 32);
  config.dynamicSmemBytes = static_cast<size_t>(blocks.shared_bytes);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = compute_capability() >= 90 ? 1 : 0;
  cuda_check(cudaLaunchKernelEx(&config, kernel, a, p), "launching gemv_kernel__sm80");
}

template <class T>
void launch_groups(const GemvArgs& a, cudaStream_t stream) {
  if (a.group_cols == 32) return launch<Format<GemvWeight::kS4, T, 4>>(a, stream);
  if (a.group_cols == 64) return launch<Format<GemvWeight::kS4, T, 2>>(a, stream);
  launch<Format<GemvWeight::kS4, T, 1>>(a, stream);
}
// Codes against codes are multiplied as f16.
template <class T>
void launch_values(const GemvArgs& a, cudaStream_t stream) {
  if (a.weight == GemvWeight::kRun) launch<Format<GemvWeight::kRun, T>>(a, stream);
  if (a.weight == GemvWeight::kE4M3) launch<Format<GemvWeight::kE4M3, T>>(a, stream);
  if (a.weight == GemvWeight::kS8) launch<Format<GemvWeight::kS8, T>>(a, stream);
  if (a.weight == GemvWeight::kS4) launch_groups<T>(a, stream);
}

// Bytes of a token of x in shared memory, at most.
int64_t token_bytes_of(const GemvArgs& a) {
  const int64_t lines = (a.row_bytes + kLine - 1) / kLine;
  const bool integers = a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8;
  const int64_t line_bytes = a.weight == GemvWeight::kS4                ? 512
                             : a.weight == GemvWeight::kRun || integers ? 128
                                                                        : 256;
  return lines * line_bytes + 64 + 2 * kWarpsMax * kRows * 4;
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
std::string gemv_sm80_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  if (a.m * token_bytes_of(a) > shared_max()) return "the activations do not fit in shared memory";
  return weights_why_not(a);
}

void gemv__sm80(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  if (a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8) {
    launch<Format<GemvWeight::kS8, int8_t>>(a, stream);
  } else if (a.input != GemvInput::kRun || a.run_is_f16) {
    launch_values<__half>(a, stream);
  } else {
    launch_values<__nv_bfloat16>(a, stream);
  }
}

}  // namespace mantissa::cuda
