// Weights of few-token linears through shared memory on Hopper: one warp copies 2 KiB of each of 16
// rows at a time into a ring, eight warps multiply what is there with the tokens (mma.sync), one
// warp adds up their parts and stores results. Nobody waits for anybody but through mbarriers, and
// cursors go on from one linear to the next: the ring need not run empty in between.
// gemv_sm90.cu streams one linear, decode_layers_sm90.cu all layers of a model.
#pragma once

#include <algorithm>

#include "kernels/cuda/gemv_tile.cuh"

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

// Bytes of a tile's scales and zero points, of groups or of rows, as the copy engine takes them.
struct ParamBytes {
  int64_t scales_row;  // in memory, of a row
  uint32_t scales, zeros;
};
template <class F>
__device__ ParamBytes param_bytes(const Plan& p, int rows) {
  const auto round = [](int bytes) { return static_cast<uint32_t>(bytes + 15) & ~15u; };
  const int row = F::kSubs > 0 ? p.groups * static_cast<int>(sizeof(typename F::GroupScale)) : 4;
  return {row, round(rows * row), F::kZeros ? round(rows * p.groups) : 0};
}
// `barrier` expects their bytes.
template <class F>
__device__ void fetch_params(const GemvArgs& a, const Plan& p, const Ring& ring,
                             unsigned char* shared, uint64_t* barrier, int tile, unsigned of_tile) {
  const ParamBytes bytes = param_bytes<F>(p, min(kRows, a.n - tile * kRows));
  unsigned char* to = shared + ring.params + of_tile * ring.params_bytes;
  const int64_t row0 = int64_t{tile} * kRows;
  const unsigned char* from =
      static_cast<const unsigned char*>(a.w_scale) + row0 * bytes.scales_row;
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

// A stage: `bytes` of each of `rows` rows, whose barrier expects them. One lane starts all copies
// back to back, or (ring.apart) every lane one of them: 90 cycles each, a stage almost as long as
// the memory's time for it.
__device__ inline void load_rows(const GemvArgs& a, const Ring& ring, const unsigned char* from,
                                 unsigned char* to, uint64_t* full, int rows, int bytes) {
  const uint64_t read_once = ptx::cache_policy_evict_first();
  if (ring.apart) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane < rows)
      ptx::bulk_load(to + lane * ring.pitch, from + lane * a.row_bytes, bytes, full, read_once);
  } else if (ptx::elect_one()) {
#pragma unroll 4
    for (int r = 0; r < rows; ++r) {
      ptx::bulk_load(to, from, bytes, full, read_once);
      to += ring.pitch;
      from += a.row_bytes;
    }
  }
}

// The barrier of a stage expects its bytes. with_groups: parameters of groups come with it.
template <class F>
__device__ void expect_stage(const Plan& p, uint64_t* full, int rows, int bytes, bool with_groups) {
  const ParamBytes groups = param_bytes<F>(p, rows);
  const int scales = F::kStageScales ? stage_scale_bytes<F>(bytes) : 0;
  ptx::mbarrier_expect_bytes(full, static_cast<uint32_t>(rows * bytes + scales) +
                                       (with_groups ? groups.scales + groups.zeros : 0));
}

// The share's first stage, before anything else: the memory idles until then. By one warp.
template <class F>
__device__ void produce_first(const GemvArgs& a, const Plan& p, const Ring& ring,
                              unsigned char* shared, const RingBarriers& barriers,
                              const Share& share) {
  const int tile = share.tile(0), rows = min(kRows, a.n - tile * kRows);
  const int bytes = min(ring.piece, static_cast<int>(a.row_bytes));
  if (ptx::elect_one()) {
    ptx::mbarrier_init(barriers.full, 1);
    ptx::fence_barrier_init();
    expect_stage<F>(p, barriers.full, rows, bytes, F::kSubs > 0 && !F::kStageScales);
  }
  __syncwarp();  // the bytes are expected
  load_rows(a, ring, a.w + int64_t{tile} * kRows * a.row_bytes, shared, barriers.full, rows, bytes);
}

// The stages of a block's share in order.
template <class F>
__device__ void produce(const GemvArgs& a, const Plan& p, const Ring& ring, unsigned char* shared,
                        const RingBarriers& barriers, const Share& share, LoadCursor& at) {
  const auto row_bytes = static_cast<int>(a.row_bytes);
  for (int i = 0; i < share.count; ++i, ++at.tile) {
    const int tile = share.tile(i), rows = min(kRows, a.n - tile * kRows);
    const unsigned slot = at.of_tile();
    if (F::kScales && !F::kStageScales) at.claim_params(barriers.params_empty);
    if (F::kScales && F::kSubs == 0 && ptx::elect_one()) {
      uint64_t* barrier = barriers.params_full + slot;
      ptx::mbarrier_expect_bytes(barrier, param_bytes<F>(p, rows).scales);
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
        if (!at.first_is_asked) expect_stage<F>(p, full, rows, bytes, with_groups);
        if (with_groups) fetch_params<F>(a, p, ring, shared, full, tile, slot);
        if (F::kStageScales)
          fetch_stage_scales<F>(a, ring, shared + at.slot * ring.stage_bytes, full, tile, begin,
                                bytes);
      }
      __syncwarp();  // the bytes are expected
      if (!at.first_is_asked)
        load_rows(a, ring, first + begin, shared + at.slot * ring.stage_bytes, full, rows, bytes);
      at.first_is_asked = false;
      at.next_stage(ring);
    }
  }
}

// ---- the warps that multiply

// `bytes`: of the row that are there from `line` on.
template <class F>
__device__ void read_line(Line<F>& to, const unsigned char* stage, const Ring& ring, int line,
                          int bytes, int lane) {
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const int at = b * 64 + lane % 4 * 16;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const unsigned char* from = stage + (lane / 4 + r * 8) * ring.pitch + line * kLine + at;
      to.codes[b][r] = at < bytes ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
    }
  }
}

template <class F>
__device__ void read_groups(Line<F>& to, const Plan& p, const Ring& ring,
                            const unsigned char* params, int row, int line) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int first = (row + r * 8) * p.groups;
    const auto* scales = reinterpret_cast<const typename F::GroupScale*>(params) + first;
    const auto* zeros = reinterpret_cast<const int8_t*>(params + ring.zeros) + first;
#pragma unroll
    for (int b = 0; b < 2; ++b)
      to.groups[b][r] = load_groups<F>(scales, zeros, p, min(line * 2 + b, p.blocks - 1));
  }
}

// Scales of a line's two blocks, of row `row`; 0 beyond it.
__device__ inline uint32_t read_limb_scales(const Plan& p, const unsigned char* params, int row,
                                            int line) {
  const auto* scales = reinterpret_cast<const uint16_t*>(params) + row * p.groups;
  uint32_t of[2];
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const int block = line * 2 + b;
    of[b] = block < p.blocks ? scales[(block * p.group_inverse) >> kInverseBits] : 0;
  }
  return of[0] | of[1] << 16;
}

// Lines of x before the line of zeros, which codes that are not there meet: products are 0 whatever
// x is. Integers need none.
template <class F>
__device__ int lines_of(const Plan& p) {
  return p.lines - (F::kIntegers ? 0 : 1);
}
// The line of zeros, and its sums or scales, by the first `threads` threads.
template <class F>
__device__ void clear_line(int tokens, const Plan& p, unsigned char* x, float* x_sums,
                           int threads) {
  if constexpr (!F::kIntegers) {
    constexpr int kUnits = 2 * F::kXBlock / 16, kSums = 2 * F::kSubs * kGemvRowsMax;
    const int thread = static_cast<int>(threadIdx.x), line = lines_of<F>(p);
    for (int i = thread; i < tokens * kUnits; i += threads) {
      reinterpret_cast<uint4*>(x + i / kUnits * p.token_bytes + line * 2 * F::kXBlock)[i % kUnits] =
          uint4{};
    }
    if (thread < kSums) x_sums[line * kSums + thread] = 0;
  }
}

// What a lane holds of two lines.
template <class F>
struct Unit {
  Line<F> lines[kUnitLines];
  uint2 scales[2];  // where x is limbs
  int line, apart;  // of the row, of the first; how far the other one's x is. -1: another warp's
};

// A stage that waits in registers for x: its place in the ring is another's already.
template <class F>
struct Ahead {
  Unit<F> unit;
  bool held;
};

template <class F>
__device__ typename F::Sum* parts_of(const Ring& ring, unsigned char* shared, int m,
                                     unsigned of_tile) {
  return reinterpret_cast<typename F::Sum*>(shared + ring.parts) +
         of_tile * kMultiplyWarps * m * kRows;
}

// The calling warp's first line of a piece; the other one is 8 further on. Line l of a row is that
// of warp l % 8, whatever stage it comes in: only this warp reads the x that it meets.
struct Place {
  int line, in_piece;
  int bytes;  // of the row's piece from the first line on; none: it is another warp's
  __device__ bool first() const { return bytes > 0; }
  __device__ bool second() const { return bytes > kMultiplyWarps * kLine; }
};
__device__ inline Place place_in(const Ring& ring, int64_t row_bytes, int of_piece) {
  const int begin = of_piece * (ring.piece / kLine);
  const int in_piece = (static_cast<int>(threadIdx.x) / 32 - begin) & (kMultiplyWarps - 1);
  const int end = min(static_cast<int>(row_bytes), (of_piece + 1) * ring.piece);
  return {begin + in_piece, in_piece, end - (begin + in_piece) * kLine};
}

// A warp's way through the stages of a share: reads ahead of what it multiplies.
template <class F>
struct Consumer {
  const GemvArgs& a;
  const Plan& p;
  const Ring& ring;
  unsigned char* shared;
  const RingBarriers& barriers;
  RingCursor& at;           // what is read next
  int left;                 // stages that are not read
  int piece = 0;            // of its tile
  float2 x_scale = {1, 1};  // put_part
  int keeps = 0;            // last stages whose places do not become free yet (Kept)

  __device__ Place place(int of_piece) const { return place_in(ring, a.row_bytes, of_piece); }
  __device__ void take_scale(float scale) { x_scale.x = scale; }
  __device__ bool is_there() const {
    return __all_sync(0xffffffffu, ptx::mbarrier_test_wait(barriers.full + at.slot, at.parity));
  }
  __device__ void wait() const { ptx::mbarrier_wait(barriers.full + at.slot, at.parity); }
  // What is there, into registers; its place becomes free.
  __device__ void read(Unit<F>& to) { read(to, place(piece)); }
  __device__ void read(Unit<F>& to, const Place& of) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned char* stage = shared + at.slot * ring.stage_bytes;
    const unsigned char* params = shared + ring.params + at.of_tile() * ring.params_bytes;
    if constexpr (F::kLimbs > 0) {
      if (of.first()) read_codes(to, stage, params, of);
    } else {
      // Where there is no second line: zeros meet the line of zeros, integers any.
      to.line = of.first() ? of.line : -1;
      to.apart = of.second() ? kMultiplyWarps : F::kIntegers ? 0 : p.lines - 1 - of.line;
#pragma unroll
      for (int i = 0; i < kUnitLines; ++i) {
        const int apart = i * kMultiplyWarps;
        read_line(to.lines[i], stage, ring, of.in_piece + apart, of.bytes - apart * kLine, lane);
        if constexpr (F::kSubs > 0)
          read_groups(to.lines[i], p, ring, params, lane / 4, of.line + apart);
      }
    }
    if (left > keeps) ptx::mbarrier_arrive(barriers.empty + at.slot);  // the stage has been read
    at.next_stage(ring);
    --left;
    if (++piece < ring.pieces) return;
    if (F::kSubs > 0) ptx::mbarrier_arrive(barriers.params_empty + at.of_tile());
    piece = 0;
    ++at.tile;
  }
  // The next stage, if there is one that has landed.
  __device__ void look_ahead(Ahead<F>& ahead) {
    if (ahead.held || left == 0 || !is_there()) return;
    read(ahead.unit);
    ahead.held = true;
  }
  // Where x is limbs: four blocks of two rows with their scales.
  __device__ void read_codes(Unit<F>& to, const unsigned char* stage, const unsigned char* params,
                             const Place& of) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4;
    const bool whole = p.groups == p.blocks && p.groups % 2 == 0;  // lines, scales of one as a word
#pragma unroll
    for (int i = 0; i < kUnitLines; ++i) {
      const int apart = i * kMultiplyWarps;
      Line<F>& line = to.lines[i];
      uint32_t scales[2];
      if (i > 0 && !of.second()) {
        scales[0] = scales[1] = 0;
        line = {};
      } else if (whole) {
        const unsigned char* codes =
            stage + row * kLimbPitch + (of.in_piece + apart) * kLine + lane % 4 * 16;
        const unsigned char* from = params + (row * p.groups + (of.line + apart) * 2) * 2;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          scales[r] = *reinterpret_cast<const uint32_t*>(from + r * 16 * p.groups);
#pragma unroll
          for (int b = 0; b < 2; ++b)
            line.codes[b][r] = *reinterpret_cast<const uint4*>(codes + r * 8 * kLimbPitch + b * 64);
        }
      } else {
#pragma unroll
        for (int r = 0; r < 2; ++r)
          scales[r] = read_limb_scales(p, params, row + r * 8, of.line + apart);
        read_line(line, stage, ring, of.in_piece + apart, of.bytes - apart * kLine, lane);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) (i == 0 ? to.scales[r].x : to.scales[r].y) = scales[r];
    }
  }
  // The token's limbs that the warp's lines of a piece meet; lanes of columns beyond keep theirs.
  __device__ void read_x(LimbOperands (&to)[kUnitLines * 2], const Place& of) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane / 4 >= F::kLimbs || !of.first()) return;
    const unsigned char* x =
        shared + ring.x + lane / 4 * 64 + lane % 4 * 16 + of.line * 2 * F::kXBlock;
#pragma unroll
    for (int b = 0; b < kUnitLines * 2; ++b) {
      if (b == 2 && !of.second()) return;  // zeros meet what is there
      const int at = b / 2 * kMultiplyWarps * 2 + b % 2;
      to[b].low = *reinterpret_cast<const uint4*>(x + at * F::kXBlock);
      to[b].high = *reinterpret_cast<const uint4*>(x + at * F::kXBlock + F::kXBlock / 2);
    }
  }
  template <class Between>
  __device__ void multiply_unit(Sums<F, kUnitLines>& sums, const Unit<F>& unit,
                                const Between& between) const {
    if (unit.line < 0) return between();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int token = min(lane / 4, a.m - 1) * p.token_bytes;  // of mma's column
    const unsigned char* x =
        shared + ring.x + token + lane % 4 * (F::kWide ? 32 : 16) + unit.line * 2 * F::kXBlock;
    const auto* x_sums = reinterpret_cast<const float*>(shared + ring.x_sums);
    multiply(sums, unit.lines, x, x_sums + x_sum_count<F>(unit.line) + lane % 4 * 2, unit.apart,
             F::kIntegers && a.x_zero != nullptr, between);
  }
  // The warp's part of a tile.
  __device__ void leave(Sums<F, kUnitLines>& sums, const RingCursor& tile) const {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned of_tile = tile.of_tile();
    ptx::mbarrier_wait(barriers.parts_empty + of_tile, tile.tile_parity() ^ 1);
    put_part(a, sums, x_scale, parts_of<F>(ring, shared, a.m, of_tile) + warp * a.m * kRows,
             lane / 4);
    ptx::mbarrier_arrive(barriers.parts_full + of_tile);  // the part is written
    sums = {};
  }
};

// Stages that have been read, but keep their places until release(): what would be copied there
// would be in the way of something more urgent.
struct Kept {
  int end, count;  // the place after the last of them

  __device__ void release(const Ring& ring, const RingBarriers& barriers) {
    for (; count > 0; --count)
      ptx::mbarrier_arrive(barriers.empty + (end - count + (end < count ? ring.stages : 0)));
  }
};

// Where x is limbs: products of a stage are scaled while the next one is multiplied; limbs that all
// stages meet stay in registers.
template <class F>
__device__ void consume_limbs(Consumer<F>& reader, Unit<F>& unit, RingCursor tile, int stages) {
  const Ring& ring = reader.ring;
  LimbOperands x[kUnitLines * 2] = {};
  Sums<F, kUnitLines> sums;
  int32_t last[kUnitLines * 2][4] = {};  // products that are not in the sums
  uint2 scales[2] = {};                  // theirs
  bool ends = false;                     // they are a tile's last ones
  const auto add_last = [&] {
    add_limbs<F>(sums, last, scales);
    if (!ends) return;
    reader.leave(sums, tile);
    ++tile.tile;
  };
  auto place = reader.place(0);
  reader.read_x(x, place);
  int piece = 0;
  while (true) {
    const bool early = reader.left > 0 && reader.is_there();
    int32_t products[kUnitLines * 2][4];
    multiply_limbs<F>(products, unit.lines, x);
    add_last();
    const bool mine = place.first();  // else there are no products
#pragma unroll
    for (int b = 0; b < kUnitLines * 2; ++b)
#pragma unroll
      for (int i = 0; i < 4; ++i) last[b][i] = products[b][i];
#pragma unroll
    for (int r = 0; r < 2; ++r) scales[r] = mine ? unit.scales[r] : uint2{};
    ends = ++piece == ring.pieces;
    if (ends) piece = 0;
    if (--stages > 0 && ring.pieces > 1) {
      place = reader.place(piece);
      reader.read_x(x, place);
    }
    if (!early) {
      add_last();
      if (stages == 0) return;
      ends = false;
      scales[0] = scales[1] = {};
      reader.wait();
    }
    reader.read(unit, place);
  }
}

// x is staged; every warp leaves its part of every tile. tile: of the first stage.
template <class F>
__device__ void consume(Consumer<F>& reader, Ahead<F>& ahead, RingCursor tile, int stages) {
  if (!ahead.held) {
    reader.wait();
    reader.read(ahead.unit);
  }
  if constexpr (F::kLimbs > 0) {
    consume_limbs(reader, ahead.unit, tile, stages);
  } else {
    const Ring& ring = reader.ring;
    int piece = 0;
    Sums<F, kUnitLines> sums;
    const auto ends = [&] {
      if (++piece < ring.pieces) return;
      reader.leave(sums, tile);
      ++tile.tile;
      piece = 0;
    };
    if constexpr (F::kOneStage) {
      for (int i = 0; i < stages; ++i) {
        reader.multiply_unit(sums, ahead.unit, [] {});
        ends();
        if (reader.left == 0) return;
        reader.wait();
        reader.read(ahead.unit);
      }
      return;
    }
    Unit<F> other;
    // The next stage is read in the middle of this one if it is there by then, else after it.
    const auto step = [&](Unit<F>& now, Unit<F>& next) {
      const bool early = reader.left > 0 && reader.is_there();
      reader.multiply_unit(sums, now, [&] {
        if (early) reader.read(next);
      });
      ends();
      if (!early && reader.left > 0) {
        reader.wait();
        reader.read(next);
      }
    };
    for (int i = 0; i < stages; i += 2) {
      step(ahead.unit, other);
      if (i + 1 < stages) step(other, ahead.unit);
    }
  }
}

// ---- the warp that finishes

// Result i (token i / 16, row i % 16) of a tile whose parts are full.
template <class F>
__device__ typename F::Sum sum_parts(const Ring& ring, unsigned char* shared, int m,
                                     unsigned of_tile, int i) {
  const typename F::Sum* parts = parts_of<F>(ring, shared, m, of_tile) + i;
  typename F::Sum sum = 0;
#pragma unroll
  for (int w = 0; w < kMultiplyWarps; ++w) sum += parts[w * m * kRows];
  return sum;
}

// The scale of row `row` of a tile whose parameters are there.
template <class F>
__device__ float row_scale(const Ring& ring, const unsigned char* shared, unsigned of_tile,
                           int row) {
  if constexpr (F::kSubs > 0 || !F::kScales) return 1;
  return reinterpret_cast<const float*>(shared + ring.params + of_tile * ring.params_bytes)[row];
}

// What is added to a tile's results, asked for before they are there.
struct Added {
  static constexpr int kEach = kGemvRowsMax * kRows / 32;  // results of a lane, at most
  float bias[kEach], residual[kEach];
  float factor[kEach];  // where rows have one beside the scales of their groups
};
template <class F>
__device__ Added load_added(const GemvArgs& a, int tile) {
  Added added{};
#pragma unroll
  for (int j = 0; j < Added::kEach; ++j) {
    const int i = static_cast<int>(threadIdx.x) % 32 + j * 32, row = tile * kRows + i % kRows;
    if (i >= a.m * kRows || row >= a.n) continue;
    if (a.bias != nullptr) added.bias[j] = a.bias[row];
    if constexpr (F::kGlobals) added.factor[j] = a.w_global != nullptr ? a.w_global[row] : 1.0f;
    if (a.residual != nullptr)
      added.residual[j] = run_value(a, a.residual, i / kRows * a.residual_stride + row);
  }
  return added;
}

// Sums, scales, bias, residual -> out.
template <class F>
__device__ void finish(const GemvArgs& a, const Ring& ring, unsigned char* shared,
                       const RingBarriers& barriers, const Share& share, RingCursor& at) {
  const int lane = static_cast<int>(threadIdx.x) % 32, count = a.m * kRows;
  Added next{};
  if (share.count > 0) next = load_added<F>(a, share.tile(0));
  for (int i = 0; i < share.count; ++i, ++at.tile) {
    const int row0 = share.tile(i) * kRows;
    const Added added = next;
    if (i + 1 < share.count) next = load_added<F>(a, share.tile(i + 1));
    constexpr bool kRowScales = F::kScales && F::kSubs == 0;
    if (kRowScales) ptx::mbarrier_wait(barriers.params_full + at.of_tile(), at.tile_parity());
    ptx::mbarrier_wait(barriers.parts_full + at.of_tile(), at.tile_parity());
    typename F::Sum sums[Added::kEach];
    float scales[Added::kEach];
#pragma unroll
    for (int j = 0; j < Added::kEach; ++j) {
      if (lane + j * 32 >= count) continue;
      sums[j] = sum_parts<F>(ring, shared, a.m, at.of_tile(), lane + j * 32);
      scales[j] = row_scale<F>(ring, shared, at.of_tile(), lane % kRows);
    }
    // Parts and scales have been read.
    ptx::mbarrier_arrive(barriers.parts_empty + at.of_tile());
    if (kRowScales) ptx::mbarrier_arrive(barriers.params_empty + at.of_tile());
#pragma unroll
    for (int j = 0; j < Added::kEach; ++j) {
      const int m = (lane + j * 32) / kRows, row = row0 + lane % kRows;
      if (lane + j * 32 >= count || row >= a.n) continue;
      const float x_scale = a.x_scale != nullptr ? a.x_scale[m * a.x_scale_stride] : 1.0f;
      const float w_scale = F::kGlobals ? added.factor[j] : scales[j];
      store<F>(a, m, row, sums[j], {w_scale, x_scale, added.bias[j], added.residual[j]});
    }
  }
}

// ---- host

inline int round_up(int bytes, int to) {
  return (bytes + to - 1) / to * to;
}

// A plan whose x ends with a line of zeros where such lines are met.
template <class F>
Plan ring_plan_of(const GemvArgs& a) {
  Plan p = plan_of<F>(a);
  if (!F::kIntegers) ++p.lines;
  p.token_bytes = p.lines * 2 * F::kXBlock + F::kXPad;
  return p;
}

// How rows of `row_bytes` are cut into pieces of at most `piece_max`.
inline void cut_rows(Ring& r, int row_bytes, int piece_max) {
  r.pieces = (row_bytes + piece_max - 1) / piece_max;
  r.piece = round_up((row_bytes + r.pieces - 1) / r.pieces, kUnitLines * kLine);
  r.pieces = (row_bytes + r.piece - 1) / r.piece;
}

// What the longest of the ring's linears needs.
struct RingNeeds {
  int x_bytes, x_sums_bytes, groups, m;
};
// Lays out `limit` bytes of shared memory; as many stages as fit (perhaps none).
template <class F>
void lay_out(Ring& r, const RingNeeds& needs, int piece, int limit) {
  constexpr int kScaleBytes = static_cast<int>(sizeof(typename F::GroupScale));
  r.pitch = F::kFixedPitch ? kLimbPitch : piece + kRowPad;
  r.stage_bytes = kRows * r.pitch;
  if (F::kStageScales) {
    r.scales = r.stage_bytes;
    r.stage_bytes += stage_scale_bytes<F>(piece);
  }
  const bool of_tiles = F::kSubs > 0 && !F::kStageScales;
  r.zeros = round_up(kRows * needs.groups * kScaleBytes, 16);
  r.params_bytes = of_tiles ? r.zeros + (F::kZeros ? round_up(r.zeros / 2, 16) : 0)
                   : F::kSubs > 0 || !F::kScales ? 0
                                                 : kRows * 4;
  const int part_bytes = kTilesAhead * kMultiplyWarps * needs.m * kRows * 4;
  const int fixed = needs.x_bytes + needs.x_sums_bytes + kTilesAhead * r.params_bytes + part_bytes +
                    kRingBarriers * 8;
  r.stages = std::clamp((limit - fixed) / r.stage_bytes, 0, kStagesMax);
  r.in_flight = r.stages;
  // Rows 8 KiB apart that all blocks ask for at once meet in the memory's channels: 28672 x 4096 in
  // bf16 takes 61.5 us instead of 53.2.
  r.apart = F::kWeight == GemvWeight::kRun;
  r.x = r.stages * r.stage_bytes;
  r.x_sums = r.x + needs.x_bytes;
  r.params = r.x_sums + needs.x_sums_bytes;
  r.parts = r.params + kTilesAhead * r.params_bytes;
  r.barriers = r.parts + part_bytes;
  r.bytes = r.barriers + kRingBarriers * 8;
}

// Stages on their way: two cover the memory's latency at its full rate, more of them only make x
// wait in its queues.
constexpr int kInFlight = 2;
// A block has a multiprocessor to itself. Where two fit, the hardware deals a grid out by groups of
// multiprocessors: some get two blocks, others none (int8_weight_only 31 -> 47 us).
constexpr int kSharedLeast = 116 << 10;

// A ring of one linear, as its call may ask for it (benchmarks do).
inline void limit_ring(Ring& r, const GemvArgs& a) {
  if (a.stages > 0) r.stages = std::min(r.stages, a.stages);
  r.in_flight = std::min(r.stages, a.in_flight > 0 ? a.in_flight : kInFlight);
  r.bytes = std::max(r.bytes, kSharedLeast);
}

}  // namespace mantissa::cuda
