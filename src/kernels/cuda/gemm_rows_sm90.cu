// GEMM on Hopper whose weights are the tensor cores' rows: out^T [N, M] = W [N, K] x^T. Tokens are
// the small dimension of wgmma (16, 64 or 128 of them), so few tokens waste no tile; weights go
// through registers, where codes of weight-only schemes are decoded. A cluster of blocks may share
// K: their sums meet in shared memory, in one order. docs/kernels/cuda-gemv.md.
#include <algorithm>
#include <array>

#include "kernels/cuda/gemm_rows_groups.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace mantissa::cuda {
namespace {

using namespace gemm_rows;

// ---- operands in registers

// K-major, 128-byte swizzle: rows of 128 bytes, eight rows an atom of 1024.
__device__ uint64_t matrix_descriptor(const void* p) {
  constexpr uint64_t kAtomStride = 1024 >> 4, kSwizzle128 = 1;
  return ((ptx::shared_address(p) & 0x3ffff) >> 4) | uint64_t{1} << 16 | kAtomStride << 32 |
         kSwizzle128 << 62;
}

// The 16-bit word at byte `at` of a swizzled row.
__device__ uint32_t word16(const unsigned char* weights, int row, int at) {
  const int piece = at / 16 ^ row % 8;
  return *reinterpret_cast<const uint16_t*>(weights + row * kSwizzleRow + piece * 16 + at % 16);
}

__device__ uint32_t bf16_product(uint32_t a, uint32_t b) {
  return bits_of(__hmul2(from_bits<__nv_bfloat162>(a), from_bits<__nv_bfloat162>(b)));
}
// Two FP4 or FP6 codes: sign and magnitude moved to bf16's places stand there with too small an
// exponent, denormals included; the product with a power of two is exact.
__device__ uint32_t mini_pair(uint32_t sign, uint32_t magnitude, int man_bits, int bias) {
  const auto factor = static_cast<uint32_t>(254 - bias) << 7;  // 2^(127 - bias)
  return bf16_product(sign | magnitude << (7 - man_bits), factor | factor << 16);
}

// Operands of a stage; 4-bit codes are read once.
template <class F>
struct Weights {
  uint4 nibbles[F::kNibbles ? 2 : 1][4];  // rows r, r + 8

  __device__ void read(const unsigned char* weights) {
    if constexpr (F::kNibbles) {
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
  __device__ void step(uint32_t (&a)[4], const unsigned char* weights, int step, const Decoding& by,
                       const GemvArgs& args) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (F::kNibbles) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int word = 2 * step + i / 2;
        const uint32_t codes = word_of(nibbles[i % 2][word % 4], word / 4);
        if constexpr (F::kDecode == Decode::kS4ToBf16) {
          a[i] = subtract<__nv_bfloat16>(raise_s4_at<__nv_bfloat16>(codes, lane % 4),
                                         by.offset[i % 2]);
        } else {
          const uint32_t pair = codes >> (4 * (lane % 4));
          a[i] = mini_pair((pair & 0x00080008u) << 12, pair & 0x00070007u, 1, 1);
          a[i] = bf16_product(a[i], by.fold[i % 2]);
        }
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
        if constexpr (F::kDecode == Decode::kE4M3ToBf16) {
          a[i] = decode_e4m3<__nv_bfloat16>(codes);
        } else if constexpr (F::kDecode == Decode::kMini8ToBf16) {
          const uint32_t pair = __byte_perm(codes, 0, 0x4140);
          a[i] = mini_pair((pair & 0x00200020u) << 10, pair & 0x001f001fu, args.man_bits,
                           args.exp_bias);
        } else {
          a[i] = decode_s8<__nv_bfloat16>(F::kSubs > 0 ? codes << args.spare_bits : codes, 0);
          if constexpr (F::kSubs > 0) a[i] = subtract<__nv_bfloat16>(a[i], by.offset[i % 2]);
        }
        if constexpr (F::kFolds > 0) a[i] = bf16_product(a[i], by.fold[i % 2]);
      }
    }
  }
};

template <class F>
__device__ void multiply(typename F::Sum (&d)[F::kRegs], const uint32_t (&a)[4], uint64_t x,
                         bool accumulate) {
  if constexpr (F::kE4M3) {
    ptx::wgmma_rows_e4m3(d, a, x, accumulate);
  } else if constexpr (F::kDecode == Decode::kS8) {
    ptx::wgmma_rows_s8(d, a, x, accumulate);
  } else {
    ptx::wgmma_rows_bf16(d, a, x, accumulate);
  }
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
  const int rank = l.share > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  const int first_token = rank * F::kTokens / l.share;
  const auto load_x = [&](int k) {
    const int slot = (k - tile.first) % l.stages;
    unsigned char* to =
        shared + slot * F::kStageBytes + F::kWeightBytes + first_token * kSwizzleRow;
#pragma unroll
    for (int i = 0; i < F::kXBoxes; ++i) {
      const int col = (k * F::kXBoxes + i) * (kSwizzleRow / (F::kNative8 ? 1 : 2));
      unsigned char* box = to + i * F::kTokens * kSwizzleRow;
      if (l.share > 1) {
        ptx::tensor_load_multicast(box, &x, col, tile.token + first_token, b.full + slot,
                                   (1 << kShareMax) - 1);
      } else {
        ptx::tensor_load(box, &x, col, tile.token, b.full + slot);
      }
    }
  };
  if constexpr (F::kSharedScales) {
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

// A warp has read a stage: every block that writes there may know.
__device__ void release(const Layout& l, uint64_t* empty) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (l.share > 1) {
    if (lane < kShareMax) ptx::mbarrier_arrive_cluster(empty, static_cast<uint32_t>(lane));
  } else if (lane == 0) {
    ptx::mbarrier_arrive(empty);
  }
}

// Sums of this block's K for 64 rows of weights.
template <class F>
__device__ void consume(typename F::Sum (&sums)[F::kRegs], const GemvArgs& a, const Layout& l,
                        unsigned char* shared, const Barriers& b, const Tile& tile) {
  const TileScales<F> tile_scales(l, shared);
  typename F::Sum part[F::kPromotes ? F::kRegs : 1];
  if (F::kSharedScales) ptx::mbarrier_wait(b.scales, 0);
  StageGroups<F> next;
  if constexpr (F::kStageScales) next.load(a, l, tile.row, tile.first);
  int slot = 0, read = -1;  // read: a stage whose last products may be under way
  uint32_t parity = 0;
  uint32_t operands[2][F::kBatch][4];
  for (int k = tile.first; k < tile.end; ++k) {
    ptx::mbarrier_wait(b.full + slot, parity);
    const unsigned char* weights = shared + slot * F::kStageBytes;
    const uint64_t x = matrix_descriptor(weights + F::kWeightBytes);
    Weights<F> w;
    w.read(weights);
    StageGroups<F> stage = next;
    stage.settle();
    if constexpr (F::kStageScales) {
      if (k + 1 < tile.end) next.load(a, l, tile.row, k + 1);
    }
    GroupOf group{};
#pragma unroll
    for (int first = 0; first < F::kSteps; first += F::kBatch) {
      auto& batch = operands[first / F::kBatch % 2];
      if constexpr (F::kSubs > 0) {
        if (first % F::kPromoteSteps == 0)
          group = group_of<F>(a, l, shared, tile, k, first / F::kPromoteSteps, stage);
      }
#pragma unroll
      for (int s = 0; s < F::kBatch; ++s) {
        if constexpr (F::kFolds > 0) {
          group.by.fold[0] = stage.pair(0, (first + s) * F::kFolds / F::kSteps);
          group.by.fold[1] = stage.pair(1, (first + s) * F::kFolds / F::kSteps);
        }
        w.step(batch[s], weights, first + s, group.by, a);
      }
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
      if (read >= 0) release(l, b.empty + read);
      read = -1;
      if constexpr (F::kPromotes) {
        if ((first + F::kBatch) % F::kPromoteSteps != 0) continue;
        ptx::wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < F::kRegs; ++i) {
          if constexpr (F::kSubs > 0) {
            sums[i] = fmaf(part[i], group.scale[i / 2 % 2], sums[i]);
          } else if constexpr (F::kTiles) {
            const float2 scale = tile_scales.of(k - tile.first, i / 4);
            sums[i] = fmaf(part[i], i % 2 == 0 ? scale.x : scale.y, sums[i]);
          } else {
            sums[i] += part[i];
          }
        }
      }
    }
    read = slot;
    ptx::next_stage(slot, parity, l.stages);
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

// What sums are finished with, in shared memory: asked for before the first stage is there.
struct Factors {
  float *w_scale, *bias;  // [kTileN]
  float* x_scale;         // [tokens of a tile]

  __device__ Factors(const Layout& l, unsigned char* shared)
      : w_scale(reinterpret_cast<float*>(shared + l.factors)),
        bias(w_scale + kTileN),
        x_scale(bias + kTileN) {}
  // By the consumers, once x is there.
  template <class F>
  __device__ void load(const GemvArgs& a, const Tile& tile) const {
    const int i = static_cast<int>(threadIdx.x);
    if (i < kTileN) {
      const int row = min(tile.row + i, a.n - 1);
      const bool scaled = F::kSubs + F::kFolds == 0 && !F::kTiles && a.w_scale != nullptr;
      w_scale[i] = (scaled ? static_cast<const float*>(a.w_scale)[row] : 1.0f) *
                   (a.w_global != nullptr ? a.w_global[row] : 1.0f);
      bias[i] = a.bias != nullptr ? a.bias[row] : 0.0f;
    } else if (i - kTileN < F::kTokens) {
      const int m = min(tile.token + i - kTileN, a.m - 1);
      const bool scaled = !F::kTiles && a.x_scale != nullptr;
      x_scale[i - kTileN] = (scaled ? a.x_scale[m * a.x_scale_stride] : 1.0f) *
                            (a.x_global != nullptr ? *a.x_global : 1.0f);
    }
  }
};

constexpr int kUnit = 8;  // rows of a token that a thread finishes at once

// This block's share of the tokens (every l.splits-th), summed over the cluster. A thread has the
// same kUnit rows of each stride-th token; residuals are asked for before the sums are there.
template <class F>
struct Results {
  static constexpr int kRowUnits = kTileN / kUnit;
  static constexpr int kMost = F::kTokens * kRowUnits / kConsumers;  // tokens of a thread
  int row, token, stride;                                            // within the tile
  bool wide;  // rows are stored 16 bytes at once
  uint4 residual[kMost];

  __device__ Results(const GemvArgs& a, const Layout& l, const Tile& tile) : wide(l.wide) {
    const int i = static_cast<int>(threadIdx.x);
    const int rank = l.splits > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
    row = i % kRowUnits * kUnit;
    token = i / kRowUnits * l.splits + rank;
    stride = kConsumers / kRowUnits * l.splits;
    if (a.residual == nullptr || !wide || tile.row + row >= a.n) return;
    const auto* from = static_cast<const __nv_bfloat16*>(a.residual) + tile.row + row;
#pragma unroll
    for (int t = 0; t < kMost; ++t) {
      const int m = token + t * stride;
      if (m < F::kTokens && tile.token + m < a.m)
        residual[t] = *reinterpret_cast<const uint4*>(from + (tile.token + m) * a.residual_stride);
    }
  }

  __device__ void write(const GemvArgs& a, const Layout& l, const typename F::Sum* sums,
                        const Factors& factors, const Tile& tile) const {
#pragma unroll
    for (int t = 0; t < kMost; ++t) {
      const int m = token + t * stride;
      if (m >= F::kTokens || tile.token + m >= a.m) continue;
      float value[kUnit];
      const float x_scale = factors.x_scale[m];
#pragma unroll
      for (int part = 0; part < kUnit; part += 4) {
        float sum[4];
        add_parts(sum, l.splits, sums + m * kPitch + row + part);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = row + part + i;
          if (F::kByteScales) sum[i] = fmaf(sum[i], 0.0f, sum[i]);  // infinity: e8m0_pairs
          value[part + i] = sum[i] * factors.w_scale[r] * x_scale + factors.bias[r];
        }
      }
      put(a, tile, value, m, residual[t]);
    }
  }

 private:
  // Of four rows, over the blocks of the cluster in order.
  __device__ static void add_parts(float (&to)[4], int splits, const typename F::Sum* at) {
    using Sum = typename F::Sum;
    uint4 parts[kSplitsMax] = {};
#pragma unroll
    for (int s = 0; s < kSplitsMax; ++s) {
      if (s < splits)
        parts[s] = splits == 1 ? *reinterpret_cast<const uint4*>(at) : ptx::load_cluster(at, s);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Sum sum = 0;
#pragma unroll
      for (int s = 0; s < kSplitsMax; ++s) sum += from_bits<Sum>(word_of(parts[s], i));
      to[i] = static_cast<float>(sum);
    }
  }
  __device__ void put(const GemvArgs& a, const Tile& tile, float (&value)[kUnit], int m,
                      const uint4& add) const {
    const int64_t to = (tile.token + m) * a.out_stride + tile.row + row;
    if (!wide) {
      const int64_t from = (tile.token + m) * a.residual_stride + tile.row + row;
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        if (tile.row + row + i >= a.n) continue;
        const float sum =
            value[i] + (a.residual != nullptr ? run_value(a, a.residual, from + i) : 0.0f);
        if (a.out_f32) {
          static_cast<float*>(a.out)[to + i] = sum;
        } else {
          static_cast<__nv_bfloat16*>(a.out)[to + i] = from_f32<__nv_bfloat16>(sum);
        }
      }
      return;
    }
    if (tile.row + row >= a.n) return;
    if (a.residual != nullptr) {
#pragma unroll
      for (int i = 0; i < kUnit; i += 2) {
        const uint32_t two = word_of(add, i / 2);
        value[i] += __uint_as_float(two << 16);
        value[i + 1] += __uint_as_float(two & 0xffff0000u);
      }
    }
    if (a.out_f32) {
      auto* four = reinterpret_cast<float4*>(static_cast<float*>(a.out) + to);
      four[0] = make_float4(value[0], value[1], value[2], value[3]);
      four[1] = make_float4(value[4], value[5], value[6], value[7]);
    } else {
      uint32_t two[kUnit / 2];
#pragma unroll
      for (int i = 0; i < kUnit; i += 2)
        two[i / 2] = bits_of(__floats2bfloat162_rn(value[i], value[i + 1]));
      *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(a.out) + to) =
          make_uint4(two[0], two[1], two[2], two[3]);
    }
  }
};

template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kTokens >= 64 ? 1 : 2)
    gemm_rows_kernel__sm90(const __grid_constant__ CUtensorMap weights,
                           const __grid_constant__ CUtensorMap x,
                           const __grid_constant__ GemvArgs a, const __grid_constant__ Layout l) {
  extern __shared__ __align__(1024) unsigned char shared[];  // the swizzle counts from 1024
  const Barriers barriers(shared + l.barriers);
  const Tile tile = tile_of(l, F::kTokens);
  if (threadIdx.x == kConsumers) {
    for (int s = 0; s < l.stages; ++s) {
      ptx::mbarrier_init(barriers.full + s, 1);
      ptx::mbarrier_init(barriers.empty + s, static_cast<uint32_t>(kConsumers / 32 * l.share));
    }
    ptx::mbarrier_init(barriers.scales, 1);
    ptx::fence_barrier_init();
  }
  __syncthreads();  // the barriers exist
  if (l.share > 1) ptx::cluster_sync();
  if (threadIdx.x >= kConsumers) {
    if constexpr (F::kGives) ptx::registers_lower<kLoadRegisters>();
    if (threadIdx.x == kConsumers) produce<F>(weights, x, a, l, shared, barriers, tile);
    __syncwarp();
    if (l.splits > 1) ptx::cluster_sync();
  } else {
    if constexpr (F::kGives) ptx::registers_raise<kMultiplyRegisters>();
    const Factors factors(l, shared);
    auto* all = reinterpret_cast<typename F::Sum*>(shared + l.sums);
    typename F::Sum sums[F::kRegs] = {};
    ptx::grid_dependency_wait();  // what reads out is done, x is written
    factors.load<F>(a, tile);
    if constexpr (F::kTiles) {
      TileScales<F>(l, shared).load(a, l, tile);
      ptx::named_barrier(1, kConsumers);  // the scales are there
    }
    consume<F>(sums, a, l, shared, barriers, tile);
    const Results<F> results(a, l, tile);
    ptx::named_barrier(1, kConsumers);  // the stages have been read: sums may take their place
    put_sums<F>(sums, all);
    ptx::named_barrier(1, kConsumers);  // the sums are there
    if (l.splits > 1) ptx::cluster_sync();
    results.write(a, l, all, factors, tile);
  }
  if (l.splits * l.share > 1) ptx::cluster_sync();  // the others need nothing of ours any more
}

// ---- launch

// Of `blocks` blocks each, as many as run at the same time: fewer than multiprocessors / blocks,
// since a cluster stays within a group of multiprocessors.
template <class F>
int clusters_at_once(int blocks) {
  static const auto counts = [] {
    std::array<int, kSplitsMax + 1> out{};
    for (int size = 2; size <= kSplitsMax; ++size) {
      cudaLaunchAttribute cluster{};
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(static_cast<unsigned>(size * multiprocessors()));
      config.blockDim = dim3(F::kThreads);
      config.dynamicSmemBytes = F::kTokens >= 64 ? kSharedMax : kSharedHalf;
      config.attrs = &cluster;
      config.numAttrs = 1;
      int& count = out[static_cast<size_t>(size)];
      if (cudaOccupancyMaxActiveClusters(&count, gemm_rows_kernel__sm90<F>, &config) !=
          cudaSuccess) {
        count = 0;  // a size that this device does not have
        cudaGetLastError();
      }
    }
    return out;
  }();
  return counts[static_cast<size_t>(blocks)];
}

template <class F>
Layout layout_of(const GemvArgs& a) {
  Layout l{};
  const int kRowBytes = static_cast<int>(a.row_bytes);
  l.k_stages = (kRowBytes + F::kWeightRow - 1) / F::kWeightRow;
  const int tiles_n = (a.n + kTileN - 1) / kTileN;
  const int tiles = tiles_n * ((a.m + F::kTokens - 1) / F::kTokens);
  l.splits = 1;
  for (int splits = 2; splits <= kSplitsMax; ++splits) {
    if (tiles <= clusters_at_once<F>(splits) && l.k_stages / splits >= 4) l.splits = splits;
  }
  if (a.warps > 0) l.splits = std::min(a.warps, kSplitsMax);
  l.share = l.splits == 1 && F::kTokens >= 64 && tiles_n % kShareMax == 0 ? kShareMax : 1;
  l.groups = F::kTiles ? l.k_stages : a.group_cols > 0 ? a.k / a.group_cols : 0;
  const int group_blocks = std::max(1, a.group_cols / 128);
  l.group_inverse = ((1 << kInverseBits) + group_blocks - 1) / group_blocks;
  const int stages_most = (l.k_stages + l.splits - 1) / l.splits;  // of a block
  const int scales = F::kSharedScales ? kTileN * l.groups * 2 : TileScales<F>::bytes(stages_most);
  const int scale_bytes = (scales + 127) / 128 * 128;
  const int factor_bytes = (2 * kTileN + F::kTokens) * 4;
  const int fixed = scale_bytes + factor_bytes + (2 * kStagesMax + 1) * 8;
  const int limit = F::kTokens >= 64 || scale_bytes > (48 << 10) ? kSharedMax : kSharedHalf;
  l.stages = std::min({kStagesMax, (limit - fixed) / F::kStageBytes, std::max(2, l.k_stages)});
  const int ring_bytes =
      std::max(l.stages * F::kStageBytes, (F::kTokens * kPitch * 4 + 127) / 128 * 128);
  l.sums = 0;
  l.scales = ring_bytes;
  l.factors = l.scales + scale_bytes;
  l.barriers = l.factors + factor_bytes;
  l.bytes = l.barriers + (2 * kStagesMax + 1) * 8;
  const auto aligned = [&](const void* p, int64_t stride, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride * bytes % 16 == 0;
  };
  l.wide = a.n % kUnit == 0 && aligned(a.out, a.out_stride, a.out_f32 ? 4 : 2) &&
           aligned(a.residual, a.residual_stride, 2);
  return l;
}

template <class F>
void launch_mix(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(CUtensorMap, CUtensorMap, GemvArgs, Layout) = gemm_rows_kernel__sm90<F>;
  allow_shared<gemm_rows_kernel__sm90<F>>(kSharedMax,
                                          "giving the GEMM of few tokens its shared memory");
  const Layout l = layout_of<F>(a);
  const CUtensorMap weights =
      tensor_map_plain(a.w, a.n, a.row_bytes, F::kWeightRow, kTileN, F::kWeightRow == kSwizzleRow);
  const CUtensorMap x =
      tensor_map_k_major(a.x, F::kNative8 ? 1 : 2, a.m, a.k, a.x_stride, F::kTokens / l.share);
  launch("launching gemm_rows_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>((a.n + kTileN - 1) / kTileN * l.splits),
                       static_cast<unsigned>((a.m + F::kTokens - 1) / F::kTokens)),
          .block = dim3(F::kThreads),
          .shared_bytes = static_cast<size_t>(l.bytes),
          .cluster = l.splits * l.share},
         stream, weights, x, a, l);
}

// Of a block.
int tokens_of(int m) {
  return m <= 16 ? 16 : m <= 64 ? 64 : 128;
}
template <Decode kD, int kSubs = 0, int kFolds = 0>
void launch_tokens(const GemvArgs& a, cudaStream_t stream) {
  const int tokens = tokens_of(a.m);
  if (tokens == 16) return launch_mix<Mix<kD, 16, kSubs, kFolds>>(a, stream);
  if (tokens == 64) return launch_mix<Mix<kD, 64, kSubs, kFolds>>(a, stream);
  launch_mix<Mix<kD, 128, kSubs, kFolds>>(a, stream);
}
template <Decode kD>
void launch_groups(const GemvArgs& a, cudaStream_t stream) {
  if (a.group_cols == 32) return launch_tokens<kD, 4>(a, stream);
  if (a.group_cols == 64) return launch_tokens<kD, 2>(a, stream);
  launch_tokens<kD, 1>(a, stream);
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
  const int tokens = tokens_of(a.m), k_stages = (a.k + 127) / 128;
  if (a.weight == GemvWeight::kE4M3Tiles && (tokens + 2) * 4 * k_stages > kTileScaleBytesMax)
    return "scales of the activations are beyond 96 KiB";
  if (a.k == 0) return "K is 0";
  if (a.weight >= GemvWeight::kS8Groups) {
    if (codes) return "codes on both sides, of groups";
    if (a.k > 1 << 16) return "K is beyond 65536";
    const int g = a.group_cols;
    if (a.k % 128 != 0 || a.k % g != 0) return "K is no multiple of 128 and of the group";
    const bool folds = g == 32 || (g == 16 && a.weight == GemvWeight::kMini4);
    if (a.weight == GemvWeight::kS8Groups ? g != 32 && g != 64 && g % 128 != 0 : !folds)
      return "groups of this size";
  }
  return weights_why_not(a);
}

void gemm_rows__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  const bool codes = a.input != GemvInput::kRun;
  switch (a.weight) {
    case GemvWeight::kRun:
      return launch_tokens<Decode::kBf16>(a, stream);
    case GemvWeight::kE4M3:
      return codes ? launch_tokens<Decode::kE4M3>(a, stream)
                   : launch_tokens<Decode::kE4M3ToBf16>(a, stream);
    case GemvWeight::kS8:
      return codes ? launch_tokens<Decode::kS8>(a, stream)
                   : launch_tokens<Decode::kS8ToBf16>(a, stream);
    case GemvWeight::kS4:
      return launch_groups<Decode::kS4ToBf16>(a, stream);
    case GemvWeight::kE4M3Tiles:
      return launch_tokens<Decode::kE4M3Tiles>(a, stream);
    case GemvWeight::kS8Groups:
      return launch_groups<Decode::kS8ToBf16>(a, stream);
    case GemvWeight::kE4M3Groups:
      return launch_tokens<Decode::kE4M3ToBf16, 0, 4>(a, stream);
    case GemvWeight::kMini8:
      return launch_tokens<Decode::kMini8ToBf16, 0, 4>(a, stream);
    case GemvWeight::kMini4:
      return a.group_cols == 16 ? launch_tokens<Decode::kMini4ToBf16, 0, 8>(a, stream)
                                : launch_tokens<Decode::kMini4ToBf16, 0, 4>(a, stream);
  }
}

}  // namespace mantissa::cuda
