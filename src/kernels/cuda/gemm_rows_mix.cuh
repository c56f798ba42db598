// What a block of gemm_rows_sm90.cu multiplies with, and its share of the work.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/gemv.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda::gemm_rows {

constexpr int kTileN = 128;  // rows of weights of a block: two warp groups of 64
constexpr int kLoadRegisters = 24, kMultiplyRegisters = 240;  // a thread, where they are given
constexpr int kGroups = 2, kConsumers = kGroups * 128;
constexpr int kStagesMax = 12, kSplitsMax = 4, kShareMax = 2;
constexpr int kSharedMax = 227 << 10, kSharedHalf = 113 << 10;
constexpr int kSwizzleRow = 128;  // bytes of a row of a tile: one swizzle atom
constexpr int kScaleBytesMax = 64 << 10, kTileScaleBytesMax = 96 << 10;
static_assert(kTileN == kScaleRows, "a block's rows of weights share their scales");

// What a block multiplies with. X: activations as the tensor core takes them.
enum class Decode : uint8_t {
  kBf16,
  kE4M3,
  kE4M3Tiles,  // scales of 128 of K on both sides, of 128 rows of weights at once
  kS8,
  kE4M3ToBf16,
  kS8ToBf16,
  kS4ToBf16,
  kMini8ToBf16,
  kMini4ToBf16
};

template <Decode kD, int kTokensOf, int kSubsOf = 0, int kFoldsOf = 0>
struct Mix {
  static constexpr Decode kDecode = kD;
  static constexpr int kTokens = kTokensOf;
  // Groups in 128 of K: whose scales multiply float32 sums (integers), or codes, which stay exact
  // in bf16 (MX, NVFP4).
  static constexpr int kSubs = kSubsOf, kFolds = kFoldsOf;
  static constexpr bool kNibbles = kD == Decode::kS4ToBf16 || kD == Decode::kMini4ToBf16;
  // Scales of all K wait in shared memory (int4), or those of the next stage in registers.
  static constexpr bool kSharedScales = kD == Decode::kS4ToBf16;
  static constexpr bool kByteScales = kD == Decode::kMini4ToBf16;
  static constexpr bool kStageScales = kFolds > 0 || (kSubs > 0 && !kSharedScales);
  static constexpr bool kTiles = kD == Decode::kE4M3Tiles;
  static constexpr bool kE4M3 = kD == Decode::kE4M3 || kTiles;
  static constexpr bool kIntegers = kD == Decode::kS8;
  static constexpr bool kNative8 = kE4M3 || kIntegers;
  static constexpr int kStageK = kD == Decode::kBf16 ? 64 : 128;
  static constexpr int kStepK = kNative8 ? 32 : 16;  // of one wgmma
  static constexpr int kSteps = kStageK / kStepK;
  static constexpr int kWeightRow = kNibbles ? 64 : 128;  // bytes in a stage
  static constexpr int kXBoxes = kStageK * (kNative8 ? 1 : 2) / kSwizzleRow;
  static constexpr int kWeightBytes = kTileN * kWeightRow;
  static constexpr int kStageBytes = kWeightBytes + kXBoxes * kTokens * kSwizzleRow;
  // Sums that start afresh every so many steps, and are added to float32: groups of scales; e4m3
  // products, of which Hopper keeps 14 bits.
  static constexpr bool kPromotes = kSubs > 0 || kE4M3;
  static constexpr int kPromoteSteps = kSubs > 0 ? kSteps / kSubs : kSteps;
  // Steps whose operands are decoded together. Two batches of registers take turns, so a stage has
  // an even number of them where sums go on over stages: one batch may still be read.
  static constexpr int kBatch = kSubs > 0 || (kSteps == 4 && !kPromotes) ? 2 : 4;
  static_assert(kPromotes || kSteps / kBatch % 2 == 0);
  static_assert(kPromoteSteps % kBatch == 0);
  using Sum = std::conditional_t<kIntegers, int32_t, float>;
  static constexpr int kRegs = kTokens / 2;  // of a thread
  // One warp loads. Nine warps have 168 registers a thread; a loading warp group gives its own
  // away.
  static constexpr bool kGives = kTokens > 64;
  static constexpr int kThreads = kConsumers + (kGives ? 128 : 32);
  static_assert(!kGives || kGroups * kMultiplyRegisters + kLoadRegisters <= 3 * 168);
};

struct Layout {
  int stages;
  int splits;    // blocks of a cluster that share K
  int share;     // or: that have the same tokens, of which each loads its part for both
  int k_stages;  // of all K
  int scales, sums, factors, barriers, bytes;
  int groups, group_inverse;
  bool wide;  // residual and results may be read and written 16 bytes at once
};

struct Tile {
  int row, token, first, end;  // stages of K
};
__device__ inline Tile tile_of(const Layout& l, int tokens) {
  const int rank = static_cast<int>(blockIdx.x) % l.splits;
  return {static_cast<int>(blockIdx.x) / l.splits * kTileN, static_cast<int>(blockIdx.y) * tokens,
          l.k_stages * rank / l.splits, l.k_stages * (rank + 1) / l.splits};
}

// A lane's rows of the tile are r = 16 warp + lane / 4 and r + 8.
__device__ inline int row_of_thread() {
  return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
}

}  // namespace mantissa::cuda::gemm_rows
