// Persistent, warp-specialized GEMM for sm_90a. A cluster of two blocks computes a tile of 256 x N
// (128 rows each); the blocks share B: each loads half of it and multicasts it to both.
//
//   producer warp   TMA: A [128, 128 bytes], half of B -> ring of stages
//   2 consumer warp groups, 64 rows each: wgmma from shared memory, then the epilogue
//   2 mover warps, one a consumer: TMA of the residual into, and of results out of, the staging
//
// Accumulation of e4m3: Hopper's tensor cores keep about 14 bits below the largest addend, so sums
// of more than 128 products drift. By default every 128 of K are summed in a fresh accumulator and
// added to float32 registers ("two-level"). Both must fit the register file: tiles of 256 columns
// take half of their columns at a time, those of 128 have room for two accumulators, of which one
// is added while the tensor cores fill the other. fast_accum leaves out the promotion; block scales
// are applied by it.
#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace mantissa::cuda {
namespace {

constexpr int kBlockM = 128;          // rows of one block; a cluster of kCluster has twice that
constexpr int kBlockScaleRows = 128;  // of B, that share block scales
constexpr int kCluster = 2;
constexpr int kStageBytesK = 128;  // bytes of K in one stage: one swizzle atom wide
constexpr int kInstructionBytesK = 32;
constexpr int kConsumerGroups = 2;
constexpr int kThreads = 128 * (kConsumerGroups + 1);
constexpr int kChunkN = 64;                    // columns that leave through shared memory at once
constexpr int kChunkBytes = 64 * kChunkN * 2;  // of one warp group
constexpr int kSharedBytesMax = 227 * 1024;
constexpr int kStagesMax = 6;
constexpr int kRasterRows = 8;  // cluster tiles of M that share their columns of B in L2
constexpr int kSlotsMax = 4;
constexpr int kBarrierBytes = (2 * kStagesMax + 2 * kConsumerGroups * kSlotsMax) * 8;

enum class Sums : uint8_t { kPlain, kPromoted, kBlocks };

struct Config {
  GemmElem elem;
  Sums sums;
  int n;      // columns of a tile
  int slots;  // chunks of a consumer's staging
  constexpr int chunks() const { return n / kChunkN; }
  // Summed for a promotion at once.
  constexpr int part_columns() const { return n == 256 ? 128 : n; }
  constexpr int stage_bytes() const { return (kBlockM + n) * kStageBytesK; }
  constexpr int staging_bytes() const { return kConsumerGroups * slots * kChunkBytes; }
  constexpr int column_bytes() const { return kConsumerGroups * n * 4; }
  constexpr int fixed_bytes() const { return staging_bytes() + column_bytes() + kBarrierBytes; }
  constexpr int stages() const {
    return std::min(kStagesMax, (kSharedBytesMax - fixed_bytes()) / stage_bytes());
  }
  constexpr int shared_bytes() const { return stages() * stage_bytes() + fixed_bytes(); }
};

struct Params {
  const float *a_scale, *b_scale, *bias;
  void* out;  // [M, N] bf16 or float32
  int64_t out_stride, a_scale_stride, b_scale_stride;
  int m, n, k_stages;
  int tiles_m, tiles_n;  // of clusters
  bool out_f32, residual;
};

// The tiles of this block's cluster.
struct Walk {
  int first, step, count;
};
__device__ Walk walk_of(const Params& p) {
  const int first = static_cast<int>(blockIdx.x) / kCluster;
  const int step = static_cast<int>(gridDim.x) / kCluster, all = p.tiles_m * p.tiles_n;
  return {first, step, first < all ? (all - first - 1) / step + 1 : 0};
}

struct TileAt {
  int m, n;
};
// Tiles in bands of kRasterRows rows, column by column: what runs at once is about square.
__device__ TileAt tile_at(int index, const Params& p) {
  const int band_tiles = kRasterRows * p.tiles_n;
  const int band = index / band_tiles, in_band = index % band_tiles;
  const int rows = min(kRasterRows, p.tiles_m - band * kRasterRows);
  return {band * kRasterRows + in_band % rows, in_band / rows};
}

// K-major, 128-byte swizzle: rows of 128 bytes, eight rows an atom of 1024.
__device__ uint64_t matrix_descriptor(const void* p) {
  constexpr uint64_t kAtomStride = 1024 >> 4, kSwizzle128 = 1;
  return ((ptx::shared_address(p) & 0x3ffff) >> 4) | uint64_t{1} << 16 | kAtomStride << 32 |
         kSwizzle128 << 62;
}

template <GemmElem kElem>
struct Accumulator {
  using Type = float;
};
template <>
struct Accumulator<GemmElem::kS8> {
  using Type = int32_t;
};

template <GemmElem kElem, class Acc, int kRegs>
__device__ void multiply(Acc (&d)[kRegs], uint64_t a, uint64_t b, bool accumulate) {
  if constexpr (kElem == GemmElem::kE4M3) ptx::wgmma_e4m3(d, a, b, accumulate);
  if constexpr (kElem == GemmElem::kBf16) ptx::wgmma_bf16(d, a, b, accumulate);
  if constexpr (kElem == GemmElem::kS8) ptx::wgmma_s8(d, a, b, accumulate);
}

template <int kStages>
struct Ring {
  uint64_t *full, *empty;  // [kStages]
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() { ptx::next_stage(stage, parity, kStages); }
};

// The weights of the first stages are asked for before the kernel that makes A has ended.
template <Config C>
__device__ void produce(const CUtensorMap& a, const CUtensorMap& b, const Params& p,
                        unsigned char* stages, Ring<C.stages()> ring) {
  constexpr int kPerStageK = kStageBytesK / (C.elem == GemmElem::kBf16 ? 2 : 1);  // elements
  constexpr int kHalfN = C.n / kCluster;
  const int rank = static_cast<int>(ptx::cluster_rank());
  const Walk walk = walk_of(p);
  // A band's rows of A come again with every column of tiles, B's not before the next band.
  const uint64_t keep = ptx::cache_policy_evict_last();
  const auto load_a = [&](int stage, const TileAt& tile, int k) {
    ptx::tensor_load(stages + stage * C.stage_bytes(), &a, k * kPerStageK,
                     (tile.m * kCluster + rank) * kBlockM, &ring.full[stage], keep);
  };
  const auto load_b = [&](int stage, const TileAt& tile, int k) {
    ptx::mbarrier_expect_bytes(&ring.full[stage], C.stage_bytes());
    ptx::tensor_load_multicast(
        stages + stage * C.stage_bytes() + (kBlockM + rank * kHalfN) * kStageBytesK, &b,
        k * kPerStageK, tile.n * C.n + rank * kHalfN, &ring.full[stage], (1 << kCluster) - 1);
  };
  const int ahead = walk.count > 0 ? min(C.stages(), p.k_stages) : 0;
  for (int k = 0; k < ahead; ++k) load_b(k, tile_at(walk.first, p), k);
  ptx::grid_dependency_wait();
  for (int k = 0; k < ahead; ++k) {
    load_a(k, tile_at(walk.first, p), k);
    ring.advance();
  }
  for (int i = 0; i < walk.count; ++i) {
    const TileAt tile = tile_at(walk.first + i * walk.step, p);
    for (int k = i == 0 ? ahead : 0; k < p.k_stages; ++k) {
      ptx::mbarrier_wait(&ring.empty[ring.stage], ring.parity ^ 1);
      load_b(ring.stage, tile, k);
      load_a(ring.stage, tile, k);
      ring.advance();
    }
  }
  // The partner's last arrivals on our barriers come before this block's shared memory goes away.
  for (int s = 0; s < C.stages(); ++s) {
    ptx::mbarrier_wait(&ring.empty[ring.stage], ring.parity ^ 1);
    ring.advance();
  }
}

// One arrival per warp group and block: both producers may overwrite the stage after four of them.
template <int kStages>
__device__ void release(const Ring<kStages>& ring, int stage) {
  if (threadIdx.x % 128 < kCluster)
    ptx::mbarrier_arrive_cluster(&ring.empty[stage], threadIdx.x % 128);
}

// Sums over all of K, left in the tensor core's accumulator.
template <Config C, class Acc>
__device__ void accumulate_plain(Acc (&sums)[C.n / 2], const Params& p, unsigned char* stages,
                                 Ring<C.stages()>& ring, int group) {
  int previous = -1;
  for (int k = 0; k < p.k_stages; ++k) {
    ptx::mbarrier_wait(&ring.full[ring.stage], ring.parity);
    const unsigned char* at = stages + ring.stage * C.stage_bytes();
    const uint64_t a = matrix_descriptor(at + group * 64 * kStageBytesK);
    const uint64_t b = matrix_descriptor(at + kBlockM * kStageBytesK);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStageBytesK / kInstructionBytesK; ++i) {
      multiply<C.elem>(sums, a + i * (kInstructionBytesK >> 4), b + i * (kInstructionBytesK >> 4),
                       k > 0 || i > 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();  // the stage before this one has been read
    if (previous >= 0) release(ring, previous);
    previous = ring.stage;
    ring.advance();
  }
  ptx::wgmma_wait<0>();
  if (previous >= 0) release(ring, previous);
}

// What the 128 products of a stage are multiplied with: a scale a row and block of 128 columns.
// Loaded a stage ahead.
template <Config C>
struct StageScales {
  uint32_t a[2], b[2];  // where rows lane / 4 and + 8, and the tile's two blocks of 128, begin
  int boundary;         // the tile's column where its second block begins
  float next_a[2], next_b[2];
  float factor[C.n / kChunkN][2];  // of this stage: 64 columns each, rows lane / 4 and + 8

  __device__ StageScales(const Params& p, TileAt tile, int group) {
    if constexpr (C.sums == Sums::kBlocks) {
      const int thread = static_cast<int>(threadIdx.x) % 128;
      const int row0 = (tile.m * kCluster + static_cast<int>(ptx::cluster_rank())) * kBlockM;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = row0 + group * 64 + thread / 32 * 16 + thread % 32 / 4 + 8 * i;
        const int col = tile.n * C.n + i * (C.n - 1);
        a[i] = static_cast<uint32_t>(min(row, p.m - 1) * p.a_scale_stride);
        b[i] = static_cast<uint32_t>(min(col, p.n - 1) / kBlockScaleRows * p.b_scale_stride);
      }
      boundary = C.n == 192 ? 128 - tile.n * C.n % 128 : 128;
      load(p, 0);
    }
  }
  __device__ void load(const Params& p, uint32_t k) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      next_a[i] = p.a_scale[a[i] + k];
      next_b[i] = __ldg(p.b_scale + b[i] + k);
    }
  }
  // Of stage k.
  __device__ void take(const Params& p, int k) {
    if constexpr (C.sums == Sums::kBlocks) {
#pragma unroll
      for (int i = 0; i < C.n / kChunkN; ++i) {
        const float column = i * kChunkN >= boundary ? next_b[1] : next_b[0];
#pragma unroll
        for (int r = 0; r < 2; ++r) factor[i][r] = next_a[r] * column;
      }
      if (k + 1 < p.k_stages) load(p, static_cast<uint32_t>(k + 1));
    }
  }
};

// Products of a stage with some of the tile's columns, in an accumulator of their own.
template <Config C>
struct Part {
  float sums[C.part_columns() / 2];

  __device__ void start(const unsigned char* stage, int group, int first_column) {
    const uint64_t a = matrix_descriptor(stage + group * 64 * kStageBytesK);
    const uint64_t b = matrix_descriptor(stage + (kBlockM + first_column) * kStageBytesK);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStageBytesK / kInstructionBytesK; ++i) {
      multiply<C.elem>(sums, a + i * (kInstructionBytesK >> 4), b + i * (kInstructionBytesK >> 4),
                       i > 0);
    }
    ptx::wgmma_commit();
  }
  // Once they are there.
  __device__ void add_to(float (&all)[C.n / 2], int first_column, const StageScales<C>& scales) {
    ptx::fence_registers(sums);
#pragma unroll
    for (int i = 0; i < C.part_columns() / 2; ++i) {
      float& sum = all[first_column / 2 + i];
      if constexpr (C.sums == Sums::kBlocks) {
        const int column = first_column + i / 4 * 8;
        sum = fmaf(sums[i], scales.factor[column / kChunkN][i / 2 % 2], sum);
      } else {
        sum += sums[i];
      }
    }
  }
};

// Sums of 128 products in the tensor core, the rest in float32.
template <Config C>
__device__ void accumulate_promoted(float (&sums)[C.n / 2], const Params& p, unsigned char* stages,
                                    Ring<C.stages()>& ring, int group, StageScales<C> scales) {
#pragma unroll
  for (int i = 0; i < C.n / 2; ++i) sums[i] = 0;
  for (int k = 0; k < p.k_stages; ++k) {
    scales.take(p, k);
    ptx::mbarrier_wait(&ring.full[ring.stage], ring.parity);
#pragma unroll
    for (int column = 0; column < C.n; column += C.part_columns()) {
      Part<C> part;
      part.start(stages + ring.stage * C.stage_bytes(), group, column);
      ptx::wgmma_wait<0>();
      if (column + C.part_columns() == C.n) release(ring, ring.stage);
      part.add_to(sums, column, scales);
    }
    ring.advance();
  }
}

// The same with two accumulators: the products of a stage are under way while those of the stage
// before it are added.
template <Config C>
__device__ void accumulate_in_turn(float (&sums)[C.n / 2], const Params& p, unsigned char* stages,
                                   Ring<C.stages()>& ring, int group, StageScales<C> scales) {
#pragma unroll
  for (int i = 0; i < C.n / 2; ++i) sums[i] = 0;
  Part<C> even, odd;
  const auto start = [&](Part<C>& part) {
    ptx::mbarrier_wait(&ring.full[ring.stage], ring.parity);
    part.start(stages + ring.stage * C.stage_bytes(), group, 0);
  };
  const auto finish = [&](Part<C>& part, int stage) {
    release(ring, stage);
    part.add_to(sums, 0, scales);
  };
  // Adds stage k, after the next one has started.
  const auto step = [&](Part<C>& now, Part<C>& next, int k) {
    const int stage = ring.stage;
    ring.advance();
    start(next);
    scales.take(p, k);
    ptx::wgmma_wait<1>();
    finish(now, stage);
  };
  const auto last = [&](Part<C>& now) {
    scales.take(p, p.k_stages - 1);
    ptx::wgmma_wait<0>();
    finish(now, ring.stage);
  };
  start(even);
  int k = 0;
  for (; k + 2 < p.k_stages; k += 2) {
    step(even, odd, k);
    step(odd, even, k + 1);
  }
  if (k + 2 == p.k_stages) {
    step(even, odd, k);
    last(odd);
  } else {
    last(even);
  }
  ring.advance();
}

// What the epilogue of one tile needs. Scales are asked for before the sums, so that they are there
// after them; element (j, i) of a tile row is column 8 j + 2 (lane % 4) + i.
template <Config C>
struct Epilogue {
  static constexpr int kColumnsEach = (C.n + 127) / 128;
  int row0, col0;                    // of this warp group's 64 rows
  float row_scale[2];                // rows lane / 4 and lane / 4 + 8 of this warp's 16
  float column_scale[kColumnsEach];  // columns thread + 128 i
  float* columns;                    // [N of the tile] scales, shared by this warp group

  __device__ Epilogue(const Params& p, TileAt tile, float* columns, int group)
      : row0((tile.m * kCluster + static_cast<int>(ptx::cluster_rank())) * kBlockM + group * 64),
        col0(tile.n * C.n),
        columns(columns) {
    const int thread = static_cast<int>(threadIdx.x) % 128;
    const bool rows = C.sums != Sums::kBlocks && p.a_scale != nullptr;
    const bool cols = C.sums != Sums::kBlocks && p.b_scale != nullptr;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = min(row0 + thread / 32 * 16 + thread % 32 / 4 + 8 * r, p.m - 1);
      row_scale[r] = rows ? p.a_scale[row * p.a_scale_stride] : 1.0f;
    }
#pragma unroll
    for (int i = 0; i < kColumnsEach; ++i) {
      const int col = min(col0 + thread + 128 * i, p.n - 1);
      column_scale[i] = cols ? __ldg(p.b_scale + col * p.b_scale_stride) : 1.0f;
    }
  }
  __device__ void share_columns(int group) const {
    const int thread = static_cast<int>(threadIdx.x) % 128;
    // The sums are there, so every warp of the group has left the last tile.
#pragma unroll
    for (int i = 0; i < kColumnsEach; ++i) {
      if (thread + 128 * i < C.n) columns[thread + 128 * i] = column_scale[i];
    }
    ptx::named_barrier(1 + group, 128);  // columns are complete
  }
};

// sums: rows r at columns col, col + 1 are sums[2 r], sums[2 r + 1].
template <bool kBias, Config C, class Acc>
__device__ void finish_pair(const Acc* sums, int col, const Epilogue<C>& e, const Params& p,
                            float2 (&value)[2]) {
  const float2 scale = *reinterpret_cast<const float2*>(e.columns + col);
  float2 bias = make_float2(0, 0);
  if (kBias && p.bias != nullptr && e.col0 + col < p.n)
    bias = make_float2(__ldg(p.bias + e.col0 + col), __ldg(p.bias + e.col0 + col + 1));
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    value[r].x = fmaf(static_cast<float>(sums[2 * r]) * e.row_scale[r], scale.x, bias.x);
    value[r].y = fmaf(static_cast<float>(sums[2 * r + 1]) * e.row_scale[r], scale.y, bias.y);
  }
}

template <Config C, class Acc>
__device__ void store_f32(const Acc (&sums)[C.n / 2], const Epilogue<C>& e, const Params& p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < C.n / 8; ++j) {
    const int col = 8 * j + 2 * (lane % 4);
    float2 value[2];
    finish_pair<true, C>(sums + 4 * j, col, e, p, value);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = e.row0 + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4 + 8 * r;
      if (row < p.m && e.col0 + col < p.n) {
        *reinterpret_cast<float2*>(static_cast<float*>(p.out) + row * p.out_stride + e.col0 + col) =
            value[r];
      }
    }
  }
}

// The staging of one consumer: slots of 64 rows x 64 columns of bf16, swizzled as the tensor maps
// expect. Chunk q (of all tiles of this block) passes through slot q % slots: the mover makes it
// ready (empty, or holding the residual), the consumer writes it, the mover stores it.
template <Config C>
struct Staging {
  unsigned char* slots;
  uint64_t *ready, *written;  // [slots]
  __device__ unsigned char* slot(int q) const { return slots + q % C.slots * kChunkBytes; }
  __device__ void wait(uint64_t* barriers, int q) const {
    ptx::mbarrier_wait(&barriers[q % C.slots], static_cast<uint32_t>(q / C.slots) & 1);
  }
};

__device__ float2 unpack(uint32_t bf16x2) {
  return make_float2(__uint_as_float(bf16x2 << 16), __uint_as_float(bf16x2 & 0xffff0000u));
}

// Chunks q, q + 1, ...: the tile's columns leave for the mover. Nobody waits while they are stored,
// the sums of the next tile begin.
template <bool kBias, bool kResidual, Config C, class Acc>
__device__ void stage_bf16(const Acc (&sums)[C.n / 2], const Epilogue<C>& e, const Params& p,
                           const Staging<C>& staging, int q) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int matrix = lane / 8,
            row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane % 8 + 8 * (matrix % 2);
#pragma unroll
  for (int chunk = 0; chunk < C.chunks(); ++chunk, ++q) {
    unsigned char* mine = staging.slot(q) + row * 128;
    staging.wait(staging.ready, q);
#pragma unroll
    for (int j = 0; j < kChunkN / 16; ++j) {
      const int piece = 2 * j + matrix / 2;  // of 16 bytes
      unsigned char* to = mine + (piece ^ (row % 8)) * 16;
      uint32_t packed[4], residual[4];
      if (kResidual) ptx::load_matrix_x4(residual, ptx::shared_address(to));
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        float2 value[2];
        finish_pair<kBias, C>(sums + (chunk * kChunkN / 8 + 2 * j + b) * 4,
                              chunk * kChunkN + 16 * j + 8 * b + 2 * (lane % 4), e, p, value);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (kResidual) {
            const float2 add = unpack(residual[2 * b + r]);
            value[r] = make_float2(value[r].x + add.x, value[r].y + add.y);
          }
          const __nv_bfloat162 two = __floats2bfloat162_rn(value[r].x, value[r].y);
          packed[2 * b + r] = *reinterpret_cast<const uint32_t*>(&two);
        }
      }
      ptx::store_matrix_x4(to, packed[0], packed[1], packed[2], packed[3]);
    }
    ptx::fence_async_shared();
    __syncwarp();  // this warp's 16 rows are written, visible to the copy engine
    if (lane == 0) ptx::mbarrier_arrive(&staging.written[q % C.slots]);
  }
}

// A mover: one thread.
template <Config C>
__device__ void move(const CUtensorMap& out, const CUtensorMap& residual, const Params& p,
                     const Staging<C>& staging, int group) {
  const Walk walk = walk_of(p);
  const int chunks = walk.count * C.chunks();
  const auto at = [&](int q) {
    const TileAt tile = tile_at(walk.first + q / C.chunks() * walk.step, p);
    return TileAt{
        (tile.m * kCluster + static_cast<int>(ptx::cluster_rank())) * kBlockM + group * 64,
        tile.n * C.n + q % C.chunks() * kChunkN};
  };
  const auto make_ready = [&](int q) {
    uint64_t* ready = &staging.ready[q % C.slots];
    if (!p.residual) return ptx::mbarrier_arrive(ready);
    const TileAt from = at(q);
    ptx::mbarrier_expect_bytes(ready, kChunkBytes);
    ptx::tensor_load(staging.slot(q), &residual, from.n, from.m, ready);
  };
  ptx::grid_dependency_wait();
  for (int q = 0; q < min(C.slots, chunks); ++q) make_ready(q);
  for (int q = 0; q < chunks; ++q) {
    staging.wait(staging.written, q);
    const TileAt to = at(q);
    ptx::tensor_store(&out, staging.slot(q), to.n, to.m);
    ptx::store_commit();
    ptx::store_wait_read<1>();  // the chunk before has left its slot
    if (q > 0 && q - 1 + C.slots < chunks) make_ready(q - 1 + C.slots);
  }
  ptx::store_wait<0>();
}

template <Config C>
__device__ void consume(const Params& p, unsigned char* stages, const Staging<C>& staging,
                        float* columns, Ring<C.stages()> ring, int group) {
  using Acc = typename Accumulator<C.elem>::Type;
  const Walk walk = walk_of(p);
  ptx::grid_dependency_wait();
  for (int i = 0; i < walk.count; ++i) {
    const TileAt tile = tile_at(walk.first + i * walk.step, p);
    const Epilogue<C> e(p, tile, columns, group);
    Acc sums[C.n / 2];
    if constexpr (C.sums == Sums::kPlain) {
      accumulate_plain<C>(sums, p, stages, ring, group);
    } else if constexpr (C.n == 128) {
      accumulate_in_turn<C>(sums, p, stages, ring, group, StageScales<C>(p, tile, group));
    } else {
      accumulate_promoted<C>(sums, p, stages, ring, group, StageScales<C>(p, tile, group));
    }
    e.share_columns(group);
    const int q = i * C.chunks();
    if (p.out_f32) {
      store_f32<C, Acc>(sums, e, p);
    } else if (p.bias != nullptr) {
      p.residual ? stage_bf16<true, true, C, Acc>(sums, e, p, staging, q)
                 : stage_bf16<true, false, C, Acc>(sums, e, p, staging, q);
    } else {
      p.residual ? stage_bf16<false, true, C, Acc>(sums, e, p, staging, q)
                 : stage_bf16<false, false, C, Acc>(sums, e, p, staging, q);
    }
  }
}

// nvcc 13.0 cannot name a kernel whose template argument is a structure, so it goes inside a type.
template <GemmElem kElem, Sums kSums, int kN, int kSlots>
struct Row {
  static constexpr Config kConfig{kElem, kSums, kN, kSlots};
};

template <class R>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_kernel__sm90(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                      const __grid_constant__ CUtensorMap out,
                      const __grid_constant__ CUtensorMap residual, const Params p) {
  constexpr Config C = R::kConfig;
  extern __shared__ __align__(1024) unsigned char stages[];  // the swizzle counts from 1024
  unsigned char* slots = stages + C.stages() * C.stage_bytes();
  auto* columns = reinterpret_cast<float*>(slots + C.staging_bytes());
  auto* barriers = reinterpret_cast<uint64_t*>(columns + C.column_bytes() / 4);
  const Ring<C.stages()> ring{barriers, barriers + C.stages()};
  uint64_t* staging_barriers = barriers + 2 * C.stages();
  const auto staging_of = [&](int group) {
    uint64_t* ready = staging_barriers + group * 2 * C.slots;
    return Staging<C>{slots + group * C.slots * kChunkBytes, ready, ready + C.slots};
  };

  if (threadIdx.x == 0) {
    ptx::tensor_prefetch(&a);
    ptx::tensor_prefetch(&b);
    ptx::tensor_prefetch(&out);
    for (int s = 0; s < C.stages(); ++s) {
      ptx::mbarrier_init(&ring.full[s], 1);
      ptx::mbarrier_init(&ring.empty[s], kConsumerGroups * kCluster);
    }
    for (int s = 0; s < kConsumerGroups * C.slots; ++s) {
      const Staging<C> staging = staging_of(s / C.slots);
      ptx::mbarrier_init(&staging.ready[s % C.slots], 1);
      ptx::mbarrier_init(&staging.written[s % C.slots], 4);  // warps
    }
    ptx::fence_barrier_init();
  }
  ptx::cluster_sync();  // both blocks' barriers exist before anyone arrives on them
  ptx::grid_dependency_launch();

  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == kConsumerGroups) {
    ptx::registers_lower<40>();
    const int role = static_cast<int>(threadIdx.x) % 128;
    if (role == 0) produce<C>(a, b, p, stages, ring);
    if (role == 32 && !p.out_f32) move<C>(out, residual, p, staging_of(0), 0);
    if (role == 64 && !p.out_f32) move<C>(out, residual, p, staging_of(1), 1);
  } else {
    ptx::registers_raise<232>();
    consume<C>(p, stages, staging_of(group), columns + group * C.n, ring, group);
  }
}

template <class R>
void launch_row(const GemmArgs& args, const Params& p, cudaStream_t stream) {
  constexpr Config C = R::kConfig;
  const int elem_bytes = C.elem == GemmElem::kBf16 ? 2 : 1;
  const CUtensorMap a =
      tensor_map_k_major(args.a, elem_bytes, args.m, args.k, args.a_stride, kBlockM);
  const CUtensorMap b =
      tensor_map_k_major(args.b, elem_bytes, args.n, args.k, args.k, C.n / kCluster);
  const CUtensorMap out =
      args.out_f32 ? a : tensor_map_k_major(args.out, 2, args.m, args.n, args.out_stride, 64);
  const CUtensorMap residual =
      args.residual == nullptr
          ? a
          : tensor_map_k_major(args.residual, 2, args.m, args.n, args.residual_stride, 64);
  allow_shared<gemm_kernel__sm90<R>>(C.shared_bytes(), "giving the GEMM its shared memory");
  const int clusters = std::min(multiprocessors() / kCluster, p.tiles_m * p.tiles_n);
  launch("launching gemm_kernel__sm90", gemm_kernel__sm90<R>,
         {.grid = dim3(static_cast<unsigned>(clusters * kCluster)),
          .block = dim3(kThreads),
          .shared_bytes = C.shared_bytes(),
          .cluster = kCluster},
         stream, a, b, out, residual, p);
}

template <GemmElem kElem, Sums kSums>
void launch_columns(const GemmArgs& args, cudaStream_t stream) {
  Params p{
      .a_scale = args.a_scale,
      .b_scale = args.b_scale,
      .bias = args.bias,
      .out = args.out,
      .out_stride = args.out_stride,
      .a_scale_stride = args.a_scale_stride,
      .b_scale_stride = args.b_scale_stride,
      .m = args.m,
      .n = args.n,
      .k_stages = (args.k * (kElem == GemmElem::kBf16 ? 2 : 1) + kStageBytesK - 1) / kStageBytesK,
      .tiles_m = (args.m + kBlockM * kCluster - 1) / (kBlockM * kCluster),
      .tiles_n = 0,
      .out_f32 = args.out_f32,
      .residual = args.residual != nullptr};
  const int columns = gemm_sm90_columns(args);
  p.tiles_n = (args.n + columns - 1) / columns;
  if (columns == 256) return launch_row<Row<kElem, kSums, 256, 4>>(args, p, stream);
  if (columns == 128) return launch_row<Row<kElem, kSums, 128, 2>>(args, p, stream);
  launch_row<Row<kElem, kSums, 192, 3>>(args, p, stream);
}

}  // namespace

std::string gemm_sm90_why_not(const GemmArgs& args) {
  const int elem_bytes = args.elem == GemmElem::kBf16 ? 2 : 1;
  const auto off = [](const void* p, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % 16 != 0 || bytes % 16 != 0;
  };
  if (args.k == 0) return "K is 0";
  if (off(args.b, args.k * elem_bytes)) return "K is no multiple of 16 bytes";
  if (off(args.a, args.a_stride * elem_bytes))
    return "rows of the activation are no multiple of 16 bytes apart";
  if (args.n % 8 != 0) return "N is no multiple of 8";
  const int64_t scales =
      std::max(args.m * args.a_scale_stride,
               (args.n + kBlockScaleRows - 1) / kBlockScaleRows * args.b_scale_stride);
  if (args.block_scales && scales > INT32_MAX) return "more than 2^31 scales";
  if (args.out_f32) return args.residual != nullptr ? "a residual beside float32 results" : "";
  if (off(args.out, args.out_stride * 2))
    return "rows of the output are no multiple of 16 bytes apart";
  if (args.residual != nullptr && off(args.residual, args.residual_stride * 2))
    return "rows of the residual are no multiple of 16 bytes apart";
  return "";
}

// The widest tile wins where waves are full: time ~ waves x (columns + what a wave costs besides).
// With promotion (measured): a column of 256 costs 6 % and of 128 5 % more than of 192, and what is
// besides counts for less where K is long.
int gemm_sm90_columns(const GemmArgs& args) {
  if (args.tile_columns > 0) return args.tile_columns;
  const bool promoted =
      args.elem == GemmElem::kE4M3 && !args.fast_accum && !args.block_scales && args.k > 0;
  const double besides = promoted ? 24.0 * std::min(2.0, 4096.0 / args.k) : 24.0;
  const int clusters = multiprocessors() / kCluster;
  const int tiles_m = (args.m + kBlockM * kCluster - 1) / (kBlockM * kCluster);
  int best = 256;
  double least = 1e30;
  for (const int columns : {256, 192, 128}) {
    const int tiles = tiles_m * ((args.n + columns - 1) / columns);
    const double waves = (tiles + clusters - 1) / clusters;
    const double each = !promoted || columns == 192 ? 1.0 : columns == 256 ? 1.06 : 1.05;
    const double cost = waves * (columns * each + besides);
    if (cost < least) {
      least = cost;
      best = columns;
    }
  }
  return best;
}

void gemm__sm90(const GemmArgs& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return;
  if (args.elem == GemmElem::kBf16) {
    launch_columns<GemmElem::kBf16, Sums::kPlain>(args, stream);
  } else if (args.elem == GemmElem::kS8) {
    launch_columns<GemmElem::kS8, Sums::kPlain>(args, stream);
  } else if (args.block_scales) {
    launch_columns<GemmElem::kE4M3, Sums::kBlocks>(args, stream);
  } else if (args.fast_accum) {
    launch_columns<GemmElem::kE4M3, Sums::kPlain>(args, stream);
  } else {
    launch_columns<GemmElem::kE4M3, Sums::kPromoted>(args, stream);
  }
}

}  // namespace mantissa::cuda
