// Weights of few-token linears through shared memory on Hopper: one warp copies 2 KiB of each of 16
// rows at a time into a ring, eight warps multiply what is there with the tokens (mma.sync), one
// warp adds up their parts and stores results. Nobody waits for anybody but through mbarriers, and
// cursors go on from one linear to the next: the ring need not run empty in between.
// gemv_sm90.cu streams one linear, decode_layers_sm90.cu all layers of a model.
#pragma once

#include <algorithm>

#include "kernels/cuda/gemv_tile.cuh"
#include "kernels/cuda/ring_stages.cuh"

namespace mantissa::cuda {

// ---- the warps that multiply

// `bytes`: of the row that are there from `line` on.
template <class F>
__device__ void read_line(Line<F>& to, const unsigned char* stage, const Ring& ring, int line,
                          int bytes, int lane) {
  const unsigned char* from = stage + lane / 4 * ring.pitch + line * kLine + lane % 4 * 16;
  if (bytes >= kLine) {  // else a predicate each, and zeros for each of them
#pragma unroll
    for (int b = 0; b < 2; ++b)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        to.codes[b][r] = *reinterpret_cast<const uint4*>(from + r * 8 * ring.pitch + b * 64);
    return;
  }
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const bool there = b * 64 + lane % 4 * 16 < bytes;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      to.codes[b][r] = uint4{};
      if (there)
        to.codes[b][r] = *reinterpret_cast<const uint4*>(from + r * 8 * ring.pitch + b * 64);
    }
  }
}

template <class F>
__device__ void read_groups(Line<F>& to, const Plan& p, const Ring& ring,
                            const unsigned char* params, int row, int line) {
  if constexpr (F::kTiles) {
    to.tile_scale = reinterpret_cast<const float*>(params)[min(line, p.groups - 1)];
  } else {
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
  return p.lines - (F::kZeroLine ? 1 : 0);
}
// The line of zeros, and its sums or scales, by the threads that multiply.
template <class F>
__device__ void clear_line(int tokens, const Plan& p, const Ring& ring, unsigned char* shared) {
  if constexpr (F::kZeroLine) {
    constexpr int kUnits = 2 * F::kXBlock / 16;
    static_assert(F::kLineSums <= kMultiplyThreads);
    const int thread = static_cast<int>(threadIdx.x), line = lines_of<F>(p);
    unsigned char* x = shared + ring.x + line * 2 * F::kXBlock;
    for (int i = thread; i < tokens * kUnits; i += kMultiplyThreads)
      reinterpret_cast<uint4*>(x + i / kUnits * p.token_bytes)[i % kUnits] = uint4{};
    auto* x_sums = reinterpret_cast<float*>(shared + ring.x_sums);
    if (thread < F::kLineSums) x_sums[line * F::kLineSums + thread] = 0;
  }
}

// What a lane holds of two lines.
template <class F>
struct Unit {
  Line<F> lines[kUnitLines];
  uint32_t scales[kUnitLines][2];  // of int4 against limbs: of a line's two blocks, of both rows
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
  __device__ const unsigned char* stage() const { return shared + at.slot * ring.stage_bytes; }
  __device__ const unsigned char* params() const {
    return shared + ring.params + at.of_tile() * ring.params_bytes;
  }
  // What is there, into registers; its place becomes free.
  __device__ void read(Unit<F>& to) { read(to, place(piece)); }
  __device__ void read(Unit<F>& to, const Place& of) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned char *stage = this->stage(), *params = this->params();
    if constexpr (F::kNibbleLimbs) {
      whole() ? read_limb_stage<true>(to, piece) : read_limb_stage<false>(to, piece);
    } else {
      // Where there is no second line: zeros meet the line of zeros, integers any.
      to.line = of.first() ? of.line : -1;
      to.apart = of.second() ? kMultiplyWarps : F::kZeroLine ? p.lines - 1 - of.line : 0;
#pragma unroll
      for (int i = 0; i < kUnitLines; ++i) {
        const int apart = i * kMultiplyWarps;
        read_line(to.lines[i], stage, ring, of.in_piece + apart, of.bytes - apart * kLine, lane);
        if constexpr (F::kSubs > 0)
          read_groups(to.lines[i], p, ring, params, lane / 4, of.line + apart);
      }
    }
    next_stage();
  }
  // The stage has been read.
  __device__ void next_stage() {
    if (left > keeps) ptx::mbarrier_arrive(barriers.empty + at.slot);
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
  // Of int4 against limbs pieces are kPieceMax long: the warp's lines have one place in a stage.
  __device__ static int limb_line(int of_piece, int i) {
    return of_piece * (kPieceMax / kLine) + i * kMultiplyWarps + static_cast<int>(threadIdx.x) / 32;
  }
  // Rows of whole lines, whose scales are a word each.
  __device__ bool whole() const {
    return p.groups == p.blocks && p.groups % 2 == 0;
  }
  // Line i of the stage's two, of two rows with their scales; `line`: of the weight's rows.
  template <bool kWhole>
  __device__ void read_codes(Unit<F>& to, int i, const unsigned char* stage,
                             const unsigned char* params, int line) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4;
    const int in_piece = limb_line(0, i);
    if (line >= p.lines) {
      to.lines[i] = {};
      to.scales[i][0] = to.scales[i][1] = 0;
    } else if constexpr (kWhole) {
      const unsigned char* codes = stage + row * kLimbPitch + in_piece * kLine + lane % 4 * 16;
      const unsigned char* scales = params + row * p.groups * 2 + line * 4;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        to.scales[i][r] = *reinterpret_cast<const uint32_t*>(scales + r * 16 * p.groups);
#pragma unroll
        for (int b = 0; b < 2; ++b)
          to.lines[i].codes[b][r] =
              *reinterpret_cast<const uint4*>(codes + r * 8 * kLimbPitch + b * 64);
      }
    } else {
#pragma unroll
      for (int r = 0; r < 2; ++r) to.scales[i][r] = read_limb_scales(p, params, row + r * 8, line);
      read_line(to.lines[i], stage, ring, in_piece, static_cast<int>(a.row_bytes) - line * kLine,
                lane);
    }
  }
  template <bool kWhole>
  __device__ void read_limb_stage(Unit<F>& to, int of_piece) const {
    const unsigned char *stage = this->stage(), *params = this->params();
#pragma unroll
    for (int i = 0; i < kUnitLines; ++i)
      read_codes<kWhole>(to, i, stage, params, limb_line(of_piece, i));
  }
  // The token's limbs that a line meets; lanes of columns beyond keep theirs.
  __device__ void read_x(LimbOperands (&to)[2], int line) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane / 4 >= F::kLimbs || line >= p.lines) return;  // codes of no line are 0
    const unsigned char* x =
        shared + ring.x + lane / 4 * 64 + lane % 4 * 16 + line * 2 * F::kXBlock;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      to[b].low = *reinterpret_cast<const uint4*>(x + b * F::kXBlock);
      to[b].high = *reinterpret_cast<const uint4*>(x + b * F::kXBlock + F::kXBlock / 2);
    }
  }
  template <class Between>
  __device__ void multiply_unit(Sums<F, kUnitLines>& sums, const Unit<F>& unit,
                                const Between& between) const {
    if (unit.line < 0) return between();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    // Of mma's column: a token, or its limb.
    const int token =
        F::kLimbs > 0 ? min(lane / 4, F::kLimbs - 1) * 64 : min(lane / 4, a.m - 1) * p.token_bytes;
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

// int4 against limbs. Every instruction counts here: what is multiplied is bound by them, so a
// stage is read when the one before it is done, and rows of no whole lines have code of their own.
// Limbs that all stages meet stay in registers. held: the first stage is in `unit`.
template <class F, bool kWhole>
__device__ void consume_limbs(Consumer<F>& reader, Unit<F>& unit, bool held, RingCursor tile,
                              int stages) {
  const int pieces = reader.ring.pieces;
  LimbOperands x[kUnitLines][2] = {};
  Sums<F, kUnitLines> sums;
  int piece = 0;
#pragma unroll 1
  for (bool first = true; stages > 0; --stages, first = false) {
    if (!held) {
      reader.wait();
      reader.template read_limb_stage<kWhole>(unit, piece);
    }
    if (first || pieces > 1) {
#pragma unroll
      for (int i = 0; i < kUnitLines; ++i) reader.read_x(x[i], reader.limb_line(piece, i));
    }
    if (!held) reader.next_stage();
    held = false;
    int32_t products[kUnitLines][2][4];
#pragma unroll
    for (int i = 0; i < kUnitLines; ++i) multiply_limbs<F>(products[i], unit.lines[i], x[i]);
#pragma unroll
    for (int i = 0; i < kUnitLines; ++i) add_limbs<F>(sums, products[i], unit.scales[i]);
    if (++piece < pieces) continue;
    piece = 0;
    reader.leave(sums, tile);
    ++tile.tile;
  }
}

// Whether a stage is read while the one before it is multiplied. Two at a time take so many
// instructions that only bf16, which needs none to decode, gains by it.
template <class F>
inline constexpr bool kReadsAhead = F::kWeight == GemvWeight::kRun;

// x is staged; every warp leaves its part of every tile. tile: of the first stage.
template <class F>
__device__ void consume(Consumer<F>& reader, Ahead<F>& ahead, RingCursor tile, int stages) {
  if constexpr (F::kNibbleLimbs) {
    if (reader.whole()) return consume_limbs<F, true>(reader, ahead.unit, ahead.held, tile, stages);
    consume_limbs<F, false>(reader, ahead.unit, ahead.held, tile, stages);
  } else {
    if (!ahead.held) {
      reader.wait();
      reader.read(ahead.unit);
    }
    const Ring& ring = reader.ring;
    int piece = 0;
    Sums<F, kUnitLines> sums;
    const auto ends = [&] {
      if (++piece < ring.pieces) return;
      reader.leave(sums, tile);
      ++tile.tile;
      piece = 0;
    };
    if constexpr (!kReadsAhead<F>) {
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
      const bool x_scaled = !F::kTiles && a.x_scale != nullptr;  // tiles: line by line
      const float x_scale = x_scaled ? a.x_scale[m * a.x_scale_stride] : 1.0f;
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
  if (F::kZeroLine) ++p.lines;
  p.token_bytes = p.lines * 2 * F::kXBlock + F::kXPad;
  return p;
}

// How rows of `row_bytes` are cut into pieces of at most `piece_max`.
inline void cut_rows(Ring& r, int row_bytes, int piece_max) {
  r.piece = std::min(piece_max, round_up(row_bytes, kUnitLines * kLine));
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
  r.zeros = round_up((F::kTiles ? 1 : kRows) * needs.groups * kScaleBytes, 16);
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

}  // namespace mantissa::cuda
