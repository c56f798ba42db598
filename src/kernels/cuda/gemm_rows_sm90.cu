// GEMM on Hopper whose weights are the tensor cores' rows: out^T [N, M] = W [N, K] x^T. Tokens are
// the small dimension of wgmma (16, 64 or 128 of them), so few tokens waste no tile; weights go
// through registers, where codes of weight-only schemes are decoded. A cluster of blocks may share
// K: their sums meet in shared memory, in one order. docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/gemv.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kTileN = 128;  // rows of weights of a block: two warp groups of 64
constexpr int kGroups = 2, kConsumers = kGroups * 128, kThreads = kConsumers + 32;
constexpr int kStagesMax = 12, kSplitsMax = 4;
constexpr int kSharedMax = 227 << 10, kSharedHalf = 113 << 10;
constexpr int kSwizzleRow = 128;  // bytes of a row of a tile: one swizzle atom
constexpr int kScaleBytesMax = 64 << 10;

// What a block multiplies with. X: activations as the tensor core takes them.
enum class Decode : uint8_t { kBf16, kE4M3, kS8, kE4M3ToBf16, kS8ToBf16, kS4ToBf16 };

template <Decode kD, int kTokensOf, int kSubsOf = 0>
struct Mix {
  static constexpr Decode kDecode = kD;
  static constexpr int kTokens = kTokensOf;
  static constexpr int kSubs = kSubsOf;  // groups in 128 of K (int4)
  static constexpr bool kIntegers = kD == Decode::kS8;
  static constexpr bool kNative8 = kD == Decode::kE4M3 || kD == Decode::kS8;
  static constexpr int kStageK = kD == Decode::kBf16 ? 64 : 128;
  static constexpr int kStepK = kNative8 ? 32 : 16;  // of one wgmma
  static constexpr int kSteps = kStageK / kStepK;
  static constexpr int kWeightRow = kD == Decode::kS4ToBf16 ? 64 : 128;  // bytes in a stage
  static constexpr int kXBoxes = kStageK * (kNative8 ? 1 : 2) / kSwizzleRow;
  static constexpr int kWeightBytes = kTileN * kWeightRow;
  static constexpr int kStageBytes = kWeightBytes + kXBoxes * kTokens * kSwizzleRow;
  // Sums that start afresh every so many steps, and are added to float32: groups of scales; e4m3
  // products, of which Hopper keeps 14 bits.
  static constexpr bool kPromotes = kSubs > 0 || kD == Decode::kE4M3;
  static constexpr int kPromoteSteps = kSubs > 0 ? kSteps / kSubs : kSteps;
  static constexpr int kBatch = kSubs > 0 ? 2 : 4;  // steps whose operands are decoded together
  static_assert(kPromoteSteps % kBatch == 0);
  using Sum = std::conditional_t<kIntegers, int32_t, float>;
  static constexpr int kRegs = kTokens / 2;  // of a thread
};

struct Layout {
  int stages, splits;  // splits: blocks of a cluster, that share K
  int k_stages;        // of all K
  int scales, sums, barriers, bytes;
  int groups, group_inverse;
};

struct Tile {
  int row, token, first, end;  // stages of K
};
__device__ Tile tile_of(const Layout& l, int tokens) {
  const int rank = static_cast<int>(blockIdx.x) % l.splits;
  return {static_cast<int>(blockIdx.x) / l.splits * kTileN, static_cast<int>(blockIdx.y) * tokens,
          l.k_stages * rank / l.splits, l.k_stages * (rank + 1) / l.splits};
}

// ---- operands in registers

// K-major, 128-byte swizzle: rows of 128 bytes, eight rows an atom of 1024.
__device__ uint64_t matrix_descriptor(const void* p) {
  constexpr uint64_t kAtomStride = 1024 >> 4, kSwizzle128 = 1;
  return ((ptx::shared_address(p) & 0x3ffff) >> 4) | uint64_t{1} << 16 | kAtomStride << 32 |
         kSwizzle128 << 62;
}

// A lane's rows of the tile are r = 16 warp + lane / 4 and r + 8.
__device__ int row_of_thread() {
  return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
}

// The 16-bit word at byte `at` of a swizzled row.
__device__ uint32_t word16(const unsigned char* weights, int row, int at) {
  const int piece = at / 16 ^ row % 8;
  return *reinterpret_cast<const uint16_t*>(weights + row * kSwizzleRow + piece * 16 + at % 16);
}

// Operands of a stage; what int4 codes need of it is read once.
template <class F>
struct Weights {
  uint4 nibbles[F::kDecode == Decode::kS4ToBf16 ? 2 : 1][4];  // rows r, r + 8

  __device__ void read(const unsigned char* weights) {
    if constexpr (F::kDecode == Decode::kS4ToBf16) {
      const int row = row_of_thread();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          nibbles[r][i] =
              *reinterpret_cast<const uint4*>(weights + (row + 8 * r) * F::kWeightRow + 16 * i);
        }
      }
    }
  }
  // offset: of int4 codes in rows r, r + 8, as two bf16.
  __device__ void step(uint32_t (&a)[4], const unsigned char* weights, int step,
                       const uint32_t (&offset)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (F::kDecode == Decode::kS4ToBf16) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int word = 2 * step + i / 2;
        const uint32_t codes = word_of(nibbles[i % 2][word % 4], word / 4);
        a[i] = subtract<__nv_bfloat16>(raise_s4_at<__nv_bfloat16>(codes, lane % 4), offset[i % 2]);
      }
    } else if constexpr (F::kNative8 || F::kDecode == Decode::kBf16) {
      // Four matrices of 8 rows x 16 bytes: rows, rows + 8, then the next 16 bytes of both.
      const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane % 16;
      const int piece = (2 * step + lane / 16) ^ row % 8;
      ptx::load_matrix_x4(a, ptx::shared_address(weights + row * kSwizzleRow + piece * 16));
    } else {
      const int row = row_of_thread();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t codes =
            word16(weights, row + i % 2 * 8, 16 * step + i / 2 * 8 + lane % 4 * 2);
        a[i] = F::kDecode == Decode::kE4M3ToBf16 ? decode_e4m3<__nv_bfloat16>(codes)
                                                 : decode_s8<__nv_bfloat16>(codes, 0);
      }
    }
  }
};

template <class F>
__device__ void multiply(typename F::Sum (&d)[F::kRegs], const uint32_t (&a)[4], uint64_t x,
                         bool accumulate) {
  if constexpr (F::kDecode == Decode::kE4M3) {
    ptx::wgmma_rows_e4m3(d, a, x, accumulate);
  } else if constexpr (F::kDecode == Decode::kS8) {
    ptx::wgmma_rows_s8(d, a, x, accumulate);
  } else {
    ptx::wgmma_rows_bf16(d, a, x, accumulate);
  }
}

// Int4: group `sub` of stage k, for rows r and r + 8.
struct GroupOf {
  float scale[2];
  uint32_t offset[2];
};
template <class F>
__device__ GroupOf group_of(const GemvArgs& a, const Layout& l, const unsigned char* shared,
                            int row0, int k, int sub) {
  const int row = row_of_thread();
  const int at = F::kSubs > 1 ? k * F::kSubs + sub : (k * l.group_inverse) >> kInverseBits;
  GroupOf g;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const auto* scales = reinterpret_cast<const uint16_t*>(shared + l.scales);
    g.scale[r] = __uint_as_float(uint32_t{scales[(row + 8 * r) * l.groups + at]} << 16);
    int zero = 0;
    if (a.w_zero != nullptr && row0 + row + 8 * r < a.n)
      zero = a.w_zero[int64_t{row0 + row + 8 * r} * l.groups + at];
    const auto value = __float2bfloat16_rn(kRaisedS4 + static_cast<float>(zero));
    g.offset[r] = bits_of(__nv_bfloat162(value, value));
  }
  return g;
}

// ---- the two roles

struct Barriers {
  uint64_t *full, *empty, *scales;
  __device__ explicit Barriers(unsigned char* at)
      : full(reinterpret_cast<uint64_t*>(at)),
        empty(full + kStagesMax),
        scales(empty + kStagesMax) {}
};

template <class F>
__device__ void produce(const CUtensorMap& weights, const CUtensorMap& x, const GemvArgs& a,
                        const Layout& l, unsigned char* shared, const Barriers& b,
                        const Tile& tile) {
  const auto load_weights = [&](int k) {
    const int slot = (k - tile.first) % l.stages;
    ptx::mbarrier_expect_bytes(b.full + slot, F::kStageBytes);
    ptx::tensor_load(shared + slot * F::kStageBytes, &weights, k * F::kWeightRow, tile.row,
                     b.full + slot);
  };
  const auto load_x = [&](int k) {
    const int slot = (k - tile.first) % l.stages;
    unsigned char* to = shared + slot * F::kStageBytes + F::kWeightBytes;
#pragma unroll
    for (int i = 0; i < F::kXBoxes; ++i) {
      ptx::tensor_load(to + i * F::kTokens * kSwizzleRow, &x,
                       (k * F::kXBoxes + i) * (kSwizzleRow / (F::kNative8 ? 1 : 2)), tile.token,
                       b.full + slot);
    }
  };
  if constexpr (F::kSubs > 0) {
    const int rows = min(kTileN, a.n - tile.row);
    const uint32_t bytes = (static_cast<uint32_t>(rows * l.groups * 2) + 15) & ~15u;
    ptx::mbarrier_expect_bytes(b.scales, bytes);
    ptx::bulk_load(shared + l.scales,
                   static_cast<const uint16_t*>(a.w_scale) + int64_t{tile.row} * l.groups, bytes,
                   b.scales);
  }
  const int early = min(tile.end, tile.first + l.stages);
  for (int k = tile.first; k < early; ++k) load_weights(k);
  ptx::grid_dependency_wait();  // x is written
  for (int k = tile.first; k < early; ++k) load_x(k);
  for (int k = early; k < tile.end; ++k) {
    const int round = (k - tile.first) / l.stages;
    ptx::mbarrier_wait(b.empty + (k - tile.first) % l.stages, (round - 1) % 2);
    load_weights(k);
    load_x(k);
  }
  ptx::grid_dependency_launch();
}

// Sums of this block's K for 64 rows of weights.
template <class F>
__device__ void consume(typename F::Sum (&sums)[F::kRegs], const GemvArgs& a, const Layout& l,
                        const unsigned char* shared, const Barriers& b, const Tile& tile) {
  const int warp_lane = static_cast<int>(threadIdx.x) % 32;
  typename F::Sum part[F::kPromotes ? F::kRegs : 1];
  if (F::kSubs > 0) ptx::mbarrier_wait(b.scales, 0);
  int slot = 0, read = -1;  // read: a stage whose last products may be under way
  uint32_t parity = 0;
  uint32_t operands[2][F::kBatch][4];
  for (int k = tile.first; k < tile.end; ++k) {
    ptx::mbarrier_wait(b.full + slot, parity);
    const unsigned char* weights = shared + slot * F::kStageBytes;
    const uint64_t x = matrix_descriptor(weights + F::kWeightBytes);
    Weights<F> w;
    w.read(weights);
    GroupOf group{};
#pragma unroll
    for (int first = 0; first < F::kSteps; first += F::kBatch) {
      auto& batch = operands[first / F::kBatch % 2];
      if constexpr (F::kSubs > 0) {
        if (first % F::kPromoteSteps == 0)
          group = group_of<F>(a, l, shared, tile.row, k, first / F::kPromoteSteps);
      }
#pragma unroll
      for (int s = 0; s < F::kBatch; ++s) w.step(batch[s], weights, first + s, group.offset);
      ptx::wgmma_fence();
#pragma unroll
      for (int s = 0; s < F::kBatch; ++s) {
        constexpr int kStepsABox = F::kSteps / F::kXBoxes;
        const int step = first + s;
        const uint64_t at = x + step / kStepsABox * (F::kTokens * kSwizzleRow >> 4) +
                            step % kStepsABox * (kSwizzleRow / kStepsABox >> 4);
        if constexpr (F::kPromotes) {
          multiply<F>(part, batch[s], at, step % F::kPromoteSteps > 0);
        } else {
          multiply<F>(sums, batch[s], at, k > tile.first || step > 0);
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // the batch before is done: its operands and its stage are free
      if (read >= 0 && warp_lane == 0) ptx::mbarrier_arrive(b.empty + read);
      read = -1;
      if constexpr (F::kPromotes) {
        if ((first + F::kBatch) % F::kPromoteSteps != 0) continue;
        ptx::wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < F::kRegs; ++i) {
          if constexpr (F::kSubs > 0) {
            sums[i] = fmaf(part[i], group.scale[i / 2 % 2], sums[i]);
          } else {
            sums[i] += part[i];
          }
        }
      }
    }
    read = slot;
    if (++slot == l.stages) {
      slot = 0;
      parity ^= 1;
    }
  }
  ptx::wgmma_wait<0>();
}

// ---- results

constexpr int kPitch = kTileN + 4;  // of a token's sums in shared memory

// Sums -> [token][row] in shared memory.
template <class F>
__device__ void put_sums(const typename F::Sum (&sums)[F::kRegs], typename F::Sum* to) {
  const int row = row_of_thread(), lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < F::kTokens / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      to[(j * 8 + lane % 4 * 2 + i % 2) * kPitch + row + i / 2 * 8] = sums[4 * j + i];
  }
}

// This block's share of the rows: summed over the cluster, finished, written. Four rows at once.
template <class F>
__device__ void write_out(const GemvArgs& a, const Layout& l, const typename F::Sum* sums,
                          const Tile& tile) {
  using Sum = typename F::Sum;
  using Format16 = Format<GemvWeight::kRun, __nv_bfloat16, F::kSubs>;
  const int quads = kTileN / l.splits / 4;
  const int first = static_cast<int>(blockIdx.x) % l.splits * quads * 4;
  const int tokens = min(F::kTokens, a.m - tile.token);
  for (int i = static_cast<int>(threadIdx.x); i < quads * tokens; i += kConsumers) {
    const int in_tile = first + i % quads * 4, m = tile.token + i / quads;
    const Sum* at = sums + i / quads * kPitch + in_tile;
    uint4 parts[kSplitsMax] = {};
#pragma unroll
    for (int s = 0; s < kSplitsMax; ++s) {
      if (s < l.splits)
        parts[s] = l.splits == 1 ? *reinterpret_cast<const uint4*>(at) : ptx::load_cluster(at, s);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = tile.row + in_tile + r;
      if (row >= a.n) break;
      Sum sum = 0;
#pragma unroll
      for (int s = 0; s < kSplitsMax; ++s) sum += from_bits<Sum>(word_of(parts[s], r));
      const Finish finish = load_finish<Format16>(a, m, row);
      const float value =
          static_cast<float>(sum) * finish.w_scale * finish.x_scale + finish.bias + finish.residual;
      const int64_t to = m * a.out_stride + row;
      if (a.out_f32) {
        static_cast<float*>(a.out)[to] = value;
      } else {
        static_cast<__nv_bfloat16*>(a.out)[to] = from_f32<__nv_bfloat16>(value);
      }
    }
  }
}

template <class F>
__global__ void __launch_bounds__(kThreads, F::kTokens >= 64 ? 1 : 2)
    gemm_rows_kernel__sm90(const __grid_constant__ CUtensorMap weights,
                           const __grid_constant__ CUtensorMap x,
                           const __grid_constant__ GemvArgs a, const __grid_constant__ Layout l) {
  extern __shared__ __align__(1024) unsigned char shared[];  // the swizzle counts from 1024
  const Barriers barriers(shared + l.barriers);
  const Tile tile = tile_of(l, F::kTokens);
  if (threadIdx.x == kConsumers) {
    for (int s = 0; s < l.stages; ++s) {
      ptx::mbarrier_init(barriers.full + s, 1);
      ptx::mbarrier_init(barriers.empty + s, kConsumers / 32);
    }
    ptx::mbarrier_init(barriers.scales, 1);
    ptx::fence_barrier_init();
  }
  __syncthreads();  // the barriers exist
  typename F::Sum sums[F::kRegs] = {};
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) produce<F>(weights, x, a, l, shared, barriers, tile);
  } else {
    ptx::grid_dependency_wait();  // what reads out is done
    consume<F>(sums, a, l, shared, barriers, tile);
  }
  auto* all = reinterpret_cast<typename F::Sum*>(shared + l.sums);
  __syncthreads();  // the stages have been read: sums may take their place
  if (threadIdx.x < kConsumers) put_sums<F>(sums, all);
  __syncthreads();  // the sums are there
  if (l.splits > 1) ptx::cluster_sync();
  if (threadIdx.x < kConsumers) write_out<F>(a, l, all, tile);
  if (l.splits > 1) ptx::cluster_sync();  // the others have read ours
}

// ---- launch

template <class F>
Layout layout_of(const GemvArgs& a) {
  Layout l{};
  const int kRowBytes = static_cast<int>(a.row_bytes);
  l.k_stages = (kRowBytes + F::kWeightRow - 1) / F::kWeightRow;
  const int tiles = (a.n + kTileN - 1) / kTileN * ((a.m + F::kTokens - 1) / F::kTokens);
  const int slots = multiprocessors() * (F::kTokens >= 64 ? 1 : 2);
  l.splits = 1;
  while (l.splits < kSplitsMax && tiles * l.splits * 2 <= slots * 5 / 4 &&
         l.k_stages / (l.splits * 2) >= 4)
    l.splits *= 2;
  if (a.warps > 0) l.splits = std::min(a.warps, kSplitsMax);
  l.groups = a.group_cols > 0 ? a.k / a.group_cols : 0;
  const int group_blocks = std::max(1, a.group_cols / 128);
  l.group_inverse = ((1 << kInverseBits) + group_blocks - 1) / group_blocks;
  const int scale_bytes = F::kSubs > 0 ? (kTileN * l.groups * 2 + 127) / 128 * 128 : 0;
  const int fixed = scale_bytes + (2 * kStagesMax + 1) * 8;
  const int limit = F::kTokens >= 64 || scale_bytes > (48 << 10) ? kSharedMax : kSharedHalf;
  l.stages = std::min({kStagesMax, (limit - fixed) / F::kStageBytes, std::max(2, l.k_stages)});
  const int ring_bytes =
      std::max(l.stages * F::kStageBytes, (F::kTokens * kPitch * 4 + 127) / 128 * 128);
  l.sums = 0;
  l.scales = ring_bytes;
  l.barriers = l.scales + scale_bytes;
  l.bytes = l.barriers + (2 * kStagesMax + 1) * 8;
  return l;
}

template <class F>
void launch_mix(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(CUtensorMap, CUtensorMap, GemvArgs, Layout) = gemm_rows_kernel__sm90<F>;
  static const bool configured = [&] {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedMax),
        "giving the GEMM of few tokens its shared memory");
    return true;
  }();
  (void)configured;
  const Layout l = layout_of<F>(a);
  const CUtensorMap weights =
      tensor_map_plain(a.w, a.n, a.row_bytes, F::kWeightRow, kTileN, F::kWeightRow == kSwizzleRow);
  const CUtensorMap x =
      tensor_map_k_major(a.x, F::kNative8 ? 1 : 2, a.m, a.k, a.x_stride, F::kTokens);
  launch("launching gemm_rows_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>((a.n + kTileN - 1) / kTileN * l.splits),
                       static_cast<unsigned>((a.m + F::kTokens - 1) / F::kTokens)),
          .block = dim3(kThreads),
          .shared_bytes = static_cast<size_t>(l.bytes),
          .cluster = l.splits},
         stream, weights, x, a, l);
}

template <Decode kD, int kSubs = 0>
void launch_tokens(const GemvArgs& a, cudaStream_t stream) {
  if (a.m <= 16) return launch_mix<Mix<kD, 16, kSubs>>(a, stream);
  // Sums of small groups beside those of 128 tokens do not fit the registers.
  if (a.m <= 64 || kSubs > 1) return launch_mix<Mix<kD, 64, kSubs>>(a, stream);
  if constexpr (kSubs <= 1) launch_mix<Mix<kD, 128, kSubs>>(a, stream);
}

}  // namespace

std::string gemm_rows_sm90_why_not(const GemvArgs& a) {
  const bool codes = a.input != GemvInput::kRun;
  if (a.run_is_f16) return "f16";
  if (a.weight == GemvWeight::kS4 && codes) return "4-bit weights against codes";
  if (codes && (a.input == GemvInput::kS8) != (a.weight == GemvWeight::kS8))
    return "codes of two kinds";
  if (a.x_zero != nullptr) return "zero points of activations";
  if (a.x_stride * (codes ? 1 : 2) % 16 != 0 || reinterpret_cast<uintptr_t>(a.x) % 16 != 0)
    return "rows of the activation are no multiple of 16 bytes apart";
  if (a.weight == GemvWeight::kS4 &&
      kTileN * (a.k / std::max(1, a.group_cols)) * 2 > kScaleBytesMax)
    return "scales of 128 rows are beyond 64 KiB";
  if (a.k == 0) return "K is 0";
  return weights_why_not(a);
}

void gemm_rows__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  const bool codes = a.input != GemvInput::kRun;
  if (a.weight == GemvWeight::kRun) return launch_tokens<Decode::kBf16>(a, stream);
  if (a.weight == GemvWeight::kE4M3 && codes) return launch_tokens<Decode::kE4M3>(a, stream);
  if (a.weight == GemvWeight::kS8 && codes) return launch_tokens<Decode::kS8>(a, stream);
  if (a.weight == GemvWeight::kE4M3) return launch_tokens<Decode::kE4M3ToBf16>(a, stream);
  if (a.weight == GemvWeight::kS8) return launch_tokens<Decode::kS8ToBf16>(a, stream);
  if (a.group_cols == 32) return launch_tokens<Decode::kS4ToBf16, 4>(a, stream);
  if (a.group_cols == 64) return launch_tokens<Decode::kS4ToBf16, 2>(a, stream);
  launch_tokens<Decode::kS4ToBf16, 1>(a, stream);
}

}  // namespace mantissa::cuda
