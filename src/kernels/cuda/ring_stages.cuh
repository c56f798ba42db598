// The ring of weight_ring.cuh: where things lie in shared memory, how tiles are dealt out, cursors
// and barriers, and the warp that loads.
#pragma once

#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {

constexpr int kUnitLines = 2;  // of 128 bytes, that a warp takes of a stage, at most
constexpr int kMultiplyWarps = 8, kMultiplyThreads = kMultiplyWarps * 32;  // the first ones
constexpr int kLoadWarp = kMultiplyWarps, kFinishWarp = kMultiplyWarps + 1;
constexpr int kRingThreads = kMultiplyThreads + 64;
constexpr int kPieceMax = kMultiplyWarps * kUnitLines * kLine;  // bytes of a row in a stage
constexpr int kRowPad = 64;  // so that two rows that a quarter of a warp reads never share a bank
constexpr int kLimbPitch = kPieceMax + kRowPad;  // bytes between rows where x is limbs
constexpr int kStagesMax = 16;
constexpr int kTilesAhead = 4;               // tiles whose parameters, or parts, are there at once
constexpr int kRingSharedMax = (226 << 10);  // the rest: what kernels have besides
constexpr int kRingBarriers = 2 * kStagesMax + 4 * kTilesAhead;
constexpr uint32_t kReadyBarrier = 2, kEmptyBarrier = 3;  // of blocks whose copies start early

// Where things lie in shared memory (bytes), and how a row is cut.
struct Ring {
  int stages, stage_bytes;
  int in_flight;             // stages that are asked for and not there, at most
  bool apart;                // copies of a stage do not start back to back
  int piece, pieces, pitch;  // bytes of a row in a stage, stages of a row, bytes between rows
  int x, x_sums, params, params_bytes, zeros, parts, barriers, bytes;
  int scales;  // that come with a stage: where they begin in it
};

// The tiles of a block: one after the other, or (pair_stride > 0) in turn with those `pair_stride`
// tiles further on.
struct Share {
  int first, count, pair_stride;

  __device__ int tile(int i) const {
    return pair_stride == 0 ? first + i : first + i / 2 + i % 2 * pair_stride;
  }
};
// How tiles are dealt out: the first `few` blocks have `least`, others one more.
struct Deal {
  int least, few;
};
__host__ __device__ inline Deal deal_of(int tiles, int blocks) {
  return {tiles / blocks, blocks - tiles % blocks};
}
__device__ inline Share share_of(const Deal& d, int pair_stride = 0) {
  const auto block = static_cast<int>(blockIdx.x);
  const int first = block * d.least + max(0, block - d.few), count = d.least + (block >= d.few);
  return {first, pair_stride > 0 ? 2 * count : count, pair_stride};
}

// Where one of the parties stands: the next stage and tile.
struct RingCursor {
  int slot = 0;
  uint32_t parity = 0;  // of the phase in which the stage is full
  unsigned tile = 0;

  __device__ void next_stage(const Ring& ring) { ptx::next_stage(slot, parity, ring.stages); }
  __device__ unsigned of_tile() const { return tile % kTilesAhead; }
  __device__ uint32_t tile_parity() const { return tile / kTilesAhead % 2; }
};

struct RingBarriers {
  uint64_t *full, *empty;                // [stages]
  uint64_t *params_full, *params_empty;  // [kTilesAhead]
  uint64_t *parts_full, *parts_empty;    // [kTilesAhead]

  __device__ explicit RingBarriers(unsigned char* at)
      : full(reinterpret_cast<uint64_t*>(at)),
        empty(full + kStagesMax),
        params_full(empty + kStagesMax),
        params_empty(params_full + kTilesAhead),
        parts_full(params_empty + kTilesAhead),
        parts_empty(parts_full + kTilesAhead) {}
  // By one warp each; of all of them before others are used. Parameters are read by the warps that
  // multiply (group scales), or by the one that finishes. Every lane arrives by itself for what it
  // has read or written: no slower than one after __syncwarp, and racecheck follows it.
  // `finishers`: lanes that finish a tile.
  __device__ void init(int stages, bool group_scales, uint32_t finishers) const {
    init_full(0, stages);
    init_empty(stages, group_scales, finishers);
  }
  // What copies need, but for the stages before `first`.
  __device__ void init_full(int first, int stages) const {
    if (ptx::elect_one()) {
#pragma unroll 1
      for (int s = first; s < stages; ++s) ptx::mbarrier_init(full + s, 1);
#pragma unroll
      for (int i = 0; i < kTilesAhead; ++i) ptx::mbarrier_init(params_full + i, 1);
      ptx::fence_barrier_init();
    }
    __syncwarp();  // the barriers exist
  }
  __device__ void init_empty(int stages, bool group_scales, uint32_t finishers) const {
    if (ptx::elect_one()) {
#pragma unroll 1
      for (int s = 0; s < stages; ++s) ptx::mbarrier_init(empty + s, kMultiplyThreads);
#pragma unroll
      for (int i = 0; i < kTilesAhead; ++i) {
        ptx::mbarrier_init(params_empty + i, group_scales ? kMultiplyThreads : finishers);
        ptx::mbarrier_init(parts_full + i, kMultiplyThreads);
        ptx::mbarrier_init(parts_empty + i, finishers);
      }
      ptx::fence_barrier_init();
    }
    __syncwarp();  // the barriers exist
  }
};

// ---- the warp that loads

// The loading warp's: also the oldest stage that is not known to have landed.
struct LoadCursor : RingCursor {
  int flying = 0, oldest = 0;
  uint32_t oldest_parity = 0;
  bool first_is_asked = false;  // produce_first
  bool met = true;              // else the barriers that others arrive at are perhaps not there yet

  __device__ void meet() {
    if (!met) ptx::named_barrier(kEmptyBarrier, 64);
    met = true;
  }
  // Waits until the next stage is free and few enough are on their way: what waits in queues of the
  // memory delays everything else.
  __device__ void claim(const Ring& ring, uint64_t* full, uint64_t* empty) {
    if (flying < ring.in_flight) {  // the first ones: free
      ++flying;
      return;
    }
    meet();
    ptx::mbarrier_wait(full + oldest, oldest_parity);
    ptx::next_stage(oldest, oldest_parity, ring.stages);
    ptx::mbarrier_wait(empty + slot, parity ^ 1);
  }
  // Until the next tile's parameters have room.
  __device__ void claim_params(uint64_t* empty) {
    if (tile < kTilesAhead) return;
    meet();
    ptx::mbarrier_wait(empty + of_tile(), tile_parity() ^ 1);
  }
};

// Bytes of a tile's scales and zero points, of groups or of rows, as the copy engine takes them.
struct ParamBytes {
  int64_t scales_row;  // in memory, of a row, or of kScaleRows of them
  uint32_t scales, zeros;
};
template <class F>
__device__ ParamBytes param_bytes(int groups, int rows) {
  const auto round = [](int bytes) { return static_cast<uint32_t>(bytes + 15) & ~15u; };
  const int row = F::kSubs > 0 ? groups * static_cast<int>(sizeof(typename F::GroupScale)) : 4;
  if (F::kTiles) return {round(row), round(row), 0};
  return {row, round(rows * row), F::kZeros ? round(rows * groups) : 0};
}
// `barrier` expects their bytes.
template <class F>
__device__ void fetch_params(const GemvArgs& a, const Plan& p, const Ring& ring,
                             unsigned char* shared, uint64_t* barrier, int tile, unsigned of_tile) {
  const ParamBytes bytes = param_bytes<F>(p.groups, min(kRows, a.n - tile * kRows));
  unsigned char* to = shared + ring.params + of_tile * ring.params_bytes;
  const int64_t row0 = int64_t{tile} * kRows;
  const unsigned char* from = static_cast<const unsigned char*>(a.w_scale) +
                              row0 / (F::kTiles ? kScaleRows : 1) * bytes.scales_row;
  ptx::bulk_load(to, from, bytes.scales, barrier);
  if (F::kZeros) ptx::bulk_load(to + ring.zeros, a.w_zero + row0 * p.groups, bytes.zeros, barrier);
}

// Bytes of a tile's scales that come with `bytes` of each row's codes (weight.h, byte_scale_at).
template <class F>
__host__ __device__ int stage_scale_bytes(int bytes) {
  return bytes / 64 * F::kSubs * kRows;
}
// The scales of a stage that begins at byte `begin` of the rows' codes.
template <class F>
__device__ void fetch_stage_scales(const GemvArgs& a, const Ring& ring, unsigned char* stage,
                                   uint64_t* barrier, int tile, int begin, int bytes) {
  const auto* from = static_cast<const unsigned char*>(a.w_scale) +
                     int64_t{tile} * stage_scale_bytes<F>(static_cast<int>(a.row_bytes)) +
                     stage_scale_bytes<F>(begin);
  ptx::bulk_load(stage + ring.scales, from, static_cast<uint32_t>(stage_scale_bytes<F>(bytes)),
                 barrier);
}

// Rows of a stage: `bytes` of each, whose barrier expects them. One lane starts all copies back to
// back, or (apart) every lane one of them: 90 cycles each, a stage almost as long as the memory's
// time for it.
struct RowCopies {
  bool apart;
  int pitch, row_bytes;
};
__device__ inline void load_rows(const RowCopies& c, const unsigned char* from, unsigned char* to,
                                 uint64_t* full, int rows, int bytes) {
  const uint64_t read_once = ptx::cache_policy_evict_first();
  if (c.apart) {
    const int row = static_cast<int>(threadIdx.x) % 32;
    if (row < rows)
      ptx::bulk_load(to + row * c.pitch, from + int64_t{row} * c.row_bytes, bytes, full, read_once);
  } else if (ptx::elect_one()) {
#pragma unroll 4
    for (int r = 0; r < rows; ++r) {
      ptx::bulk_load(to, from, bytes, full, read_once);
      to += c.pitch;
      from += c.row_bytes;
    }
  }
}

// The barrier of a stage expects its bytes. with_groups: parameters of groups come with it.
template <class F>
__device__ void expect_stage(int groups, uint64_t* full, int rows, int bytes, bool with_groups) {
  const ParamBytes of = param_bytes<F>(groups, rows);
  const int scales = F::kStageScales ? stage_scale_bytes<F>(bytes) : 0;
  ptx::mbarrier_expect_bytes(full, static_cast<uint32_t>(rows * bytes + scales) +
                                       (with_groups ? of.scales + of.zeros : 0));
}

// What a block needs for its first stage. The first parameter of a launch: each line of parameters
// costs some hundred cycles when it is first read, and these take one.
struct FirstStage {
  const unsigned char* w;
  int row_bytes, bytes, pitch, barriers, n, groups;
  Deal deal;
  bool apart;
};
static_assert(sizeof(FirstStage) <= 48, "a line of 64 bytes less what lies before parameters");
inline FirstStage first_stage_of(const GemvArgs& a, const Plan& p, const Ring& ring,
                                 const Deal& deal) {
  const auto row_bytes = static_cast<int>(a.row_bytes);
  return {a.w,        row_bytes,     std::min(ring.piece, row_bytes),
          ring.pitch, ring.barriers, a.n,
          p.groups,   deal,          ring.apart};
}

// The share's first stage, before anything else: the memory idles until then. By one warp.
template <class F>
__device__ void produce_first(const FirstStage& s, unsigned char* shared) {
  const int tile = share_of(s.deal).first, rows = min(kRows, s.n - tile * kRows);
  auto* full = reinterpret_cast<uint64_t*>(shared + s.barriers);
  if (ptx::elect_one()) {
    ptx::mbarrier_init(full, 1);
    ptx::fence_barrier_init();
    expect_stage<F>(s.groups, full, rows, s.bytes, F::kSubs > 0 && !F::kStageScales);
  }
  __syncwarp();  // the bytes are expected
  load_rows({s.apart, s.pitch, s.row_bytes}, s.w + int64_t{tile} * kRows * s.row_bytes, shared,
            full, rows, s.bytes);
}

// The stages of a block's share in order.
template <class F>
__device__ void produce(const GemvArgs& a, const Plan& p, const Ring& ring, unsigned char* shared,
                        const RingBarriers& barriers, const Share& share, LoadCursor& at) {
  const auto row_bytes = static_cast<int>(a.row_bytes);
  const RowCopies copies{ring.apart, ring.pitch, row_bytes};
  for (int i = 0; i < share.count; ++i, ++at.tile) {
    const int tile = share.tile(i), rows = min(kRows, a.n - tile * kRows);
    const unsigned slot = at.of_tile();
    if (F::kScales && !F::kStageScales) at.claim_params(barriers.params_empty);
    if (F::kScales && F::kSubs == 0 && ptx::elect_one()) {
      uint64_t* barrier = barriers.params_full + slot;
      ptx::mbarrier_expect_bytes(barrier, param_bytes<F>(p.groups, rows).scales);
      fetch_params<F>(a, p, ring, shared, barrier, tile, slot);
    }
    const unsigned char* first = a.w + int64_t{tile} * kRows * a.row_bytes;
    for (int begin = 0; begin < row_bytes; begin += ring.piece) {
      at.claim(ring, barriers.full, barriers.empty);
      const int bytes = min(ring.piece, row_bytes - begin);
      uint64_t* full = barriers.full + at.slot;
      // They come with the first stage.
      const bool with_groups = F::kSubs > 0 && !F::kStageScales && begin == 0;
      if (ptx::elect_one()) {
        if (!at.first_is_asked) expect_stage<F>(p.groups, full, rows, bytes, with_groups);
        if (with_groups) fetch_params<F>(a, p, ring, shared, full, tile, slot);
        if (F::kStageScales)
          fetch_stage_scales<F>(a, ring, shared + at.slot * ring.stage_bytes, full, tile, begin,
                                bytes);
      }
      __syncwarp();  // the bytes are expected
      unsigned char* to = shared + at.slot * ring.stage_bytes;
      if (!at.first_is_asked) load_rows(copies, first + begin, to, full, rows, bytes);
      at.first_is_asked = false;
      at.next_stage(ring);
    }
  }
}

}  // namespace mantissa::cuda
