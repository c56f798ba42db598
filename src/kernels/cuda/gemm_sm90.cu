// Persistent, warp-specialized GEMM for sm_90a. A cluster of two blocks computes a tile of 256 x N
// (128 rows each); the blocks share B: each loads half of it and multicasts it to both.
//
//   producer warp   TMA: A [128, 128 bytes], half of B -> ring of kStages stages
//   2 consumer warp groups, 64 rows each: wgmma from shared memory, then the epilogue
//
// Accumulation of e4m3: Hopper's tensor cores keep about 14 bits below the largest addend, so sums
// of more than 128 products drift. By default every 128 of K are summed in a fresh accumulator and
// added to float32 registers ("two-level"); half of the columns at a time, so that both fit the
// register file while the other warp group keeps the tensor cores busy. fast_accum leaves out the
// promotion.
#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace mantissa::cuda {
namespace {

constexpr int kBlockM = 128;  // rows of one block; a cluster of kCluster has twice that
constexpr int kCluster = 2;
constexpr int kStageBytesK = 128;  // bytes of K in one stage: one swizzle atom wide
constexpr int kInstructionBytesK = 32;
constexpr int kConsumerGroups = 2;
constexpr int kThreads = 128 * (kConsumerGroups + 1);
constexpr int kChunkN = 64;                    // columns that leave through shared memory at once
constexpr int kChunkBytes = 64 * kChunkN * 2;  // of one warp group
constexpr int kSharedBytesMax = 227 * 1024;
constexpr int kStagesMax = 6;
constexpr int kBarrierBytes = 2 * kStagesMax * 8;
constexpr int kRasterRows = 8;  // cluster tiles of M that share their columns of B in L2

struct Config {
  GemmElem elem;
  bool fast;
  int n;  // columns of a tile
  bool out_f32;
  constexpr int stage_bytes() const { return (kBlockM + n) * kStageBytesK; }
  constexpr int staging_bytes() const {
    return out_f32 ? 0 : kConsumerGroups * n / kChunkN * kChunkBytes;
  }
  constexpr int column_bytes() const { return kConsumerGroups * n * 4; }
  constexpr int fixed_bytes() const { return staging_bytes() + column_bytes() + kBarrierBytes; }
  constexpr int stages() const {
    return std::min(kStagesMax, (kSharedBytesMax - fixed_bytes()) / stage_bytes());
  }
  constexpr int shared_bytes() const { return stages() * stage_bytes() + fixed_bytes(); }
};

struct Params {
  const float *a_scale, *b_scale, *bias;
  const __nv_bfloat16* residual;
  void* out;  // [M, N] bf16 or float32
  int64_t residual_stride, out_stride;
  int a_scale_stride, b_scale_stride;
  int m, n, k_stages;
  int tiles_m, tiles_n;  // of clusters
};

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
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <Config C>
__device__ void produce(const CUtensorMap& a, const CUtensorMap& b, const Params& p,
                        unsigned char* stages, Ring<C.stages()> ring) {
  constexpr int kPerStageK = kStageBytesK / (C.elem == GemmElem::kBf16 ? 2 : 1);  // elements
  constexpr int kHalfN = C.n / kCluster;
  const int rank = static_cast<int>(ptx::cluster_rank());
  for (int t = static_cast<int>(blockIdx.x) / kCluster; t < p.tiles_m * p.tiles_n;
       t += static_cast<int>(gridDim.x) / kCluster) {
    const TileAt tile = tile_at(t, p);
    const int row = (tile.m * kCluster + rank) * kBlockM;
    const int col = tile.n * C.n + rank * kHalfN;
    for (int k = 0; k < p.k_stages; ++k) {
      ptx::mbarrier_wait(&ring.empty[ring.stage], ring.parity ^ 1);
      unsigned char* to = stages + ring.stage * C.stage_bytes();
      ptx::mbarrier_expect_bytes(&ring.full[ring.stage], C.stage_bytes());
      ptx::tensor_load(to, &a, k * kPerStageK, row, &ring.full[ring.stage]);
      ptx::tensor_load_multicast(to + (kBlockM + rank * kHalfN) * kStageBytesK, &b, k * kPerStageK,
                                 col, &ring.full[ring.stage], (1 << kCluster) - 1);
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

// Sums of 128 products in the tensor core, the rest in float32.
template <Config C>
__device__ void accumulate_promoted(float (&sums)[C.n / 2], const Params& p, unsigned char* stages,
                                    Ring<C.stages()>& ring, int group) {
#pragma unroll
  for (int i = 0; i < C.n / 2; ++i) sums[i] = 0;
  for (int k = 0; k < p.k_stages; ++k) {
    ptx::mbarrier_wait(&ring.full[ring.stage], ring.parity);
    const unsigned char* at = stages + ring.stage * C.stage_bytes();
    const uint64_t a = matrix_descriptor(at + group * 64 * kStageBytesK);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint64_t b = matrix_descriptor(at + (kBlockM + half * C.n / 2) * kStageBytesK);
      float part[C.n / 4];
      ptx::wgmma_fence();
#pragma unroll
      for (int i = 0; i < kStageBytesK / kInstructionBytesK; ++i) {
        multiply<C.elem>(part, a + i * (kInstructionBytesK >> 4), b + i * (kInstructionBytesK >> 4),
                         i > 0);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      if (half == 1) release(ring, ring.stage);
#pragma unroll
      for (int i = 0; i < C.n / 4; ++i) sums[half * (C.n / 4) + i] += part[i];
    }
    ring.advance();
  }
}

// What the epilogue of one tile needs. Scales are asked for before the sums, so that they are there
// after them; element (j, i) of a tile row is column 8 j + 2 (lane % 4) + i.
struct Epilogue {
  int row0, col0;                    // of this warp group's 64 rows
  float row_scale[2];                // rows lane / 4 and lane / 4 + 8 of this warp's 16
  const __nv_bfloat16* residual[2];  // at column col0; nullptr: none, or beyond M
  float* columns;                    // [N of the tile] scales, shared by this warp group
};

template <Config C>
__device__ Epilogue begin_epilogue(const Params& p, TileAt tile, float* columns, int group,
                                   float (&column_scale)[C.n / 128 + 1]) {
  const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32;
  Epilogue e{
      .row0 = (tile.m * kCluster + static_cast<int>(ptx::cluster_rank())) * kBlockM + group * 64,
      .col0 = tile.n * C.n,
      .row_scale = {},
      .residual = {},
      .columns = columns};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = e.row0 + thread / 32 * 16 + lane / 4 + 8 * r;
    const bool inside = row < p.m;
    e.row_scale[r] =
        inside && p.a_scale != nullptr ? __ldg(p.a_scale + row * p.a_scale_stride) : 1.0f;
    e.residual[r] =
        inside && p.residual != nullptr ? p.residual + row * p.residual_stride + e.col0 : nullptr;
  }
#pragma unroll
  for (int i = 0; i < C.n / 128 + 1; ++i) {
    const int col = e.col0 + thread + 128 * i;
    column_scale[i] =
        col < p.n && p.b_scale != nullptr ? __ldg(p.b_scale + col * p.b_scale_stride) : 1.0f;
  }
  return e;
}

template <Config C>
__device__ void share_columns(const Epilogue& e, const float (&column_scale)[C.n / 128 + 1],
                              int group) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
#pragma unroll
  for (int i = 0; i < C.n / 128 + 1; ++i) {
    if (thread + 128 * i < C.n) e.columns[thread + 128 * i] = column_scale[i];
  }
  if (thread == 0) ptx::store_wait_read<0>();
  ptx::named_barrier(1 + group, 128);  // e.columns is complete, the last tile has left the staging
}

// The pair of residuals at each row, as read; zeros where there is none.
__device__ void load_residual(const Epilogue& e, const Params& p, int col,
                              __nv_bfloat162 (&residual)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool inside = e.residual[r] != nullptr && e.col0 + col < p.n;
    residual[r] = inside ? *reinterpret_cast<const __nv_bfloat162*>(e.residual[r] + col)
                         : __floats2bfloat162_rn(0, 0);
  }
}

// sums: rows r at columns col, col + 1 are sums[2 r], sums[2 r + 1].
template <class Acc>
__device__ void finish_pair(const Acc* sums, int col, const Epilogue& e, const Params& p,
                            const __nv_bfloat162 (&residual)[2], float (&value)[2][2]) {
  const float2 scale = *reinterpret_cast<const float2*>(e.columns + col);
  float2 bias = make_float2(0, 0);
  if (p.bias != nullptr && e.col0 + col < p.n) {
    bias = make_float2(__ldg(p.bias + e.col0 + col), __ldg(p.bias + e.col0 + col + 1));
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float2 add = __bfloat1622float2(residual[r]);
    value[r][0] = fmaf(static_cast<float>(sums[2 * r]) * e.row_scale[r], scale.x, bias.x + add.x);
    value[r][1] =
        fmaf(static_cast<float>(sums[2 * r + 1]) * e.row_scale[r], scale.y, bias.y + add.y);
  }
}

template <Config C, class Acc>
__device__ void store_f32(const Acc (&sums)[C.n / 2], const Epilogue& e, const Params& p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < C.n / 8; ++j) {
    const int col = 8 * j + 2 * (lane % 4);
    __nv_bfloat162 residual[2];
    float value[2][2];
    load_residual(e, p, col, residual);
    finish_pair(sums + 4 * j, col, e, p, residual, value);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = e.row0 + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4 + 8 * r;
      if (row < p.m && e.col0 + col < p.n) {
        *reinterpret_cast<float2*>(static_cast<float*>(p.out) + row * p.out_stride + e.col0 + col) =
            make_float2(value[r][0], value[r][1]);
      }
    }
  }
}

// bf16 leaves through shared memory and the copy engine, a whole tile at once: nobody waits while
// it is written, the sums of the next tile begin. (Two buffers of 64 columns waited behind the next
// tile's loads in the engine's queue, direct stores waited for L2: 6 us a tile each.)
template <Config C, class Acc>
__device__ void store_bf16(const Acc (&sums)[C.n / 2], const CUtensorMap& out, const Epilogue& e,
                           const Params& p, unsigned char* staging, int group) {
  const int lane = static_cast<int>(threadIdx.x) % 32,
            warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int matrix = lane / 8, row = warp * 16 + lane % 8 + 8 * (matrix % 2);
  unsigned char* mine = staging + group * (C.n / kChunkN) * kChunkBytes + row * 128;
#pragma unroll
  for (int j = 0; j < C.n / 16; ++j) {
    uint32_t packed[4];
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int col = 16 * j + 8 * b + 2 * (lane % 4);
      __nv_bfloat162 residual[2];
      float value[2][2];
      load_residual(e, p, col, residual);
      finish_pair(sums + 8 * j + 4 * b, col, e, p, residual, value);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(value[r][0], value[r][1]);
        packed[2 * b + r] = *reinterpret_cast<const uint32_t*>(&two);
      }
    }
    const int piece = 2 * (j % 4) + matrix / 2;  // of 16 bytes, swizzled as the tensor map expects
    ptx::store_matrix_x4(mine + j / 4 * kChunkBytes + ((piece ^ (row % 8)) * 16), packed[0],
                         packed[1], packed[2], packed[3]);
  }
  ptx::fence_async_shared();
  ptx::named_barrier(1 + group, 128);  // the tile is written, visible to the copy engine
  if (threadIdx.x % 128 == 0) {
#pragma unroll
    for (int chunk = 0; chunk < C.n / kChunkN; ++chunk) {
      ptx::tensor_store(&out, staging + (group * (C.n / kChunkN) + chunk) * kChunkBytes,
                        e.col0 + chunk * kChunkN, e.row0);
    }
    ptx::store_commit();
  }
}

template <Config C>
__device__ void consume(const CUtensorMap& out, const Params& p, unsigned char* stages,
                        unsigned char* staging, float* columns, Ring<C.stages()> ring, int group) {
  using Acc = typename Accumulator<C.elem>::Type;
  for (int t = static_cast<int>(blockIdx.x) / kCluster; t < p.tiles_m * p.tiles_n;
       t += static_cast<int>(gridDim.x) / kCluster) {
    float column_scale[C.n / 128 + 1];
    const Epilogue e =
        begin_epilogue<C>(p, tile_at(t, p), columns + group * C.n, group, column_scale);
    Acc sums[C.n / 2];
    if constexpr (C.elem == GemmElem::kE4M3 && !C.fast) {
      accumulate_promoted<C>(sums, p, stages, ring, group);
    } else {
      accumulate_plain<C>(sums, p, stages, ring, group);
    }
    share_columns<C>(e, column_scale, group);
    if constexpr (C.out_f32) {
      store_f32<C, Acc>(sums, e, p);
      ptx::named_barrier(1 + group, 128);  // e.columns has been read
    } else {
      store_bf16<C, Acc>(sums, out, e, p, staging, group);
    }
  }
  if (threadIdx.x % 128 == 0) ptx::store_wait<0>();
}

// nvcc 13.0 cannot name a kernel whose template argument is a structure, so it goes inside a type.
template <GemmElem kElem, bool kFast, int kN, bool kOutF32>
struct Row {
  static constexpr Config kConfig{kElem, kFast, kN, kOutF32};
};

template <class R>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    gemm_kernel__sm90(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                      const __grid_constant__ CUtensorMap out, const Params p) {
  constexpr Config C = R::kConfig;
  extern __shared__ __align__(1024) unsigned char stages[];  // the swizzle counts from 1024
  unsigned char* staging = stages + C.stages() * C.stage_bytes();
  auto* columns = reinterpret_cast<float*>(staging + C.staging_bytes());
  auto* barriers = reinterpret_cast<uint64_t*>(columns + C.column_bytes() / 4);
  const Ring<C.stages()> ring{barriers, barriers + C.stages()};

  if (threadIdx.x == 0) {
    ptx::tensor_prefetch(&a);
    ptx::tensor_prefetch(&b);
    ptx::tensor_prefetch(&out);
    for (int s = 0; s < C.stages(); ++s) {
      ptx::mbarrier_init(&ring.full[s], 1);
      ptx::mbarrier_init(&ring.empty[s], kConsumerGroups * kCluster);
    }
    ptx::fence_barrier_init();
  }
  ptx::cluster_sync();  // both blocks' barriers exist before anyone arrives on them

  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == kConsumerGroups) {
    ptx::registers_lower<40>();
    if (threadIdx.x % 128 == 0) produce<C>(a, b, p, stages, ring);
  } else {
    ptx::registers_raise<232>();
    consume<C>(out, p, stages, staging, columns, ring, group);
  }
}

template <class R>
void launch(const GemmArgs& args, const Params& p, cudaStream_t stream) {
  constexpr Config C = R::kConfig;
  const int elem_bytes = C.elem == GemmElem::kBf16 ? 2 : 1;
  const CUtensorMap a =
      tensor_map_k_major(args.a, elem_bytes, args.m, args.k, args.a_stride, kBlockM);
  const CUtensorMap b =
      tensor_map_k_major(args.b, elem_bytes, args.n, args.k, args.k, C.n / kCluster);
  const CUtensorMap out =
      C.out_f32 ? a : tensor_map_k_major(args.out, 2, args.m, args.n, args.out_stride, 64);
  static const bool configured = [] {
    cuda_check(
        cudaFuncSetAttribute(gemm_kernel__sm90<R>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             R::kConfig.shared_bytes()),
        "giving the GEMM its shared memory");
    return true;
  }();
  (void)configured;
  const int clusters = std::min(multiprocessors() / kCluster, p.tiles_m * p.tiles_n);
  gemm_kernel__sm90<R><<<clusters * kCluster, kThreads, C.shared_bytes(), stream>>>(a, b, out, p);
  cuda_check(cudaGetLastError(), "launching gemm_kernel__sm90");
}

// The widest tile wins where waves are full: time ~ waves x (columns + what a wave costs besides).
int best_columns(int tiles_m, int n, int clusters) {
  int best = 256;
  double least = 1e30;
  for (const int columns : {256, 192, 128}) {
    const int tiles = tiles_m * ((n + columns - 1) / columns);
    const double waves = (tiles + clusters - 1) / clusters;
    const double cost = waves * (columns + 24);
    if (cost < least) {
      least = cost;
      best = columns;
    }
  }
  return best;
}

template <GemmElem kElem, bool kFast, bool kOutF32>
void launch_columns(const GemmArgs& args, cudaStream_t stream) {
  Params p{
      .a_scale = args.a_scale,
      .b_scale = args.b_scale,
      .bias = args.bias,
      .residual = args.residual,
      .out = args.out,
      .residual_stride = args.residual_stride,
      .out_stride = args.out_stride,
      .a_scale_stride = args.a_scale_stride,
      .b_scale_stride = args.b_scale_stride,
      .m = args.m,
      .n = args.n,
      .k_stages = (args.k * (kElem == GemmElem::kBf16 ? 2 : 1) + kStageBytesK - 1) / kStageBytesK,
      .tiles_m = (args.m + kBlockM * kCluster - 1) / (kBlockM * kCluster),
      .tiles_n = 0};
  const int columns = best_columns(p.tiles_m, args.n, multiprocessors() / kCluster);
  p.tiles_n = (args.n + columns - 1) / columns;
  if (columns == 256) launch<Row<kElem, kFast, 256, kOutF32>>(args, p, stream);
  if (columns == 192) launch<Row<kElem, kFast, 192, kOutF32>>(args, p, stream);
  if (columns == 128) launch<Row<kElem, kFast, 128, kOutF32>>(args, p, stream);
}

}  // namespace

std::string gemm_sm90_why_not(const GemmArgs& args) {
  const int elem_bytes = args.elem == GemmElem::kBf16 ? 2 : 1;
  if (args.k * elem_bytes % 16 != 0) return "K is no multiple of 16 bytes";
  if (args.a_stride * elem_bytes % 16 != 0)
    return "rows of the activation are no multiple of 16 bytes apart";
  if (!args.out_f32 && args.out_stride % 8 != 0)
    return "rows of the output are no multiple of 16 bytes apart";
  if (args.n % 8 != 0 || args.residual_stride % 2 != 0) {
    return "N is no multiple of 8, or the residual's stride is odd";
  }
  return "";
}

void gemm__sm90(const GemmArgs& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return;
  if (args.out_f32) {
    launch_columns<GemmElem::kBf16, false, true>(args, stream);
  } else if (args.elem == GemmElem::kBf16) {
    launch_columns<GemmElem::kBf16, false, false>(args, stream);
  } else if (args.elem == GemmElem::kS8) {
    launch_columns<GemmElem::kS8, false, false>(args, stream);
  } else if (args.fast_accum) {
    launch_columns<GemmElem::kE4M3, true, false>(args, stream);
  } else {
    launch_columns<GemmElem::kE4M3, false, false>(args, stream);
  }
}

}  // namespace mantissa::cuda
