// FP4 weights (e2m1 in groups of 32 or 16) against up to 8 bf16 tokens in the ring of
// weight_ring.cuh. Few tokens are limbs (limbs.cuh): twice a code is an integer of -12..12, and
// int8 tensor cores sum a group exactly. More of them become f16, as the codes do. Groups' sums are
// scaled and added in float32.
#pragma once

#include "kernels/cuda/weight_ring.cuh"

namespace mantissa::cuda {

// Parties stand in columns of mma of their own, so that a result has one scale: of groups of 16 the
// first and the second half of a chunk of 32 columns of K, of groups of 32 (one token) the even and
// the odd chunks, which halves the sums that are scaled.
//   limbs: columns are limbs of one token and two parties, or of two tokens
//   f16:   columns are 8 tokens (or both parties of 4), kTiles times
template <int kGroupOf, bool kLimbed, int kPartiesOf = 32 / kGroupOf, int kTilesOf = 1>
struct Fp4 {
  static constexpr int kGroup = kGroupOf, kParties = kPartiesOf;
  static constexpr bool kChunks = kGroup == 32 && kParties == 2;  // parties are chunks
  static constexpr GemvWeight kWeight = GemvWeight::kMini4;
  using Value = std::conditional_t<kLimbed, int8_t, __half>;
  static constexpr bool kIntegers = kLimbed;
  static constexpr int kSubs = 128 / kGroup;
  static constexpr bool kZeros = false;
  static constexpr int kLimbs = kLimbed ? kLimbCount : 0;
  static constexpr bool kFixedPitch = false;
  static constexpr bool kPaddedScales = true;
  static constexpr bool kGlobals = true;
  static constexpr bool kScales = true;
  static constexpr bool kTiles = false;
  using GroupScale = uint16_t;
  using Sum = float;
  static constexpr int kBlockValues = 128;
  static constexpr int kXBlock = kBlockValues * (kLimbed ? kLimbCount : 2);
  static constexpr int kXPad = kLimbed ? 0 : 64;  // tokens of f16 share no bank
  static constexpr int kColumnTiles = kTilesOf;   // of mma's 8 columns
  static constexpr int kTokens = (kLimbed ? 2 : 8 * kColumnTiles) / kParties;
};

// ---- tokens as limbs

constexpr int kChunk = 32;  // columns that one mma sums
// Where the limbs of a token's unit of 8 values lie: of each two chunks, limb by limb, a lane's 16
// bytes, which are units of both.
__device__ inline int fp4_limb_at(int unit, int limb) {
  const int chunk = unit / 4;
  return (chunk / 2 * kLimbCount + limb) * 64 + unit % 4 * 16 + chunk % 2 * 8;
}
__device__ inline void put_fp4_limbs(const float (&v)[8], float inverse, int unit,
                                     unsigned char* x) {
  uint32_t half[2][kLimbCount];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    // Nibbles 0 to 3 of a word are elements 0 2 4 6, nibbles 4 to 7 the odd ones.
    uint32_t n[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) n[i] = raised_limbs(v[2 * i + h], inverse);
    const uint32_t low01 = __byte_perm(n[0], n[1], 0x5140), low23 = __byte_perm(n[2], n[3], 0x5140);
    const uint32_t top01 = __byte_perm(n[0], n[1], 0x0062), top23 = __byte_perm(n[2], n[3], 0x0062);
    half[h][2] = __byte_perm(low01, low23, 0x5410) ^ 0x80808080u;
    half[h][1] = __byte_perm(low01, low23, 0x7632) ^ 0x80808080u;
    half[h][0] = __byte_perm(top01, top23, 0x5410) ^ 0x80808080u;
  }
#pragma unroll
  for (int l = 0; l < kLimbCount; ++l)
    *reinterpret_cast<uint2*>(x + fp4_limb_at(unit, l)) = make_uint2(half[0][l], half[1][l]);
}

// Twice the value of codes, by their three lower bits. A code with its top bit set selects the sign
// of a byte instead: 0 of those of kAbove. With that bit turned, codes above 0 get -1 from those of
// kBelow (0 from the first), so the sum of both is the value.
constexpr uint32_t kAboveLow = 0x04030200u, kAboveHigh = 0x0d090705u;  // 0, value + 1
constexpr uint32_t kBelowLow = 0xfdfeff00u, kBelowHigh = 0xf4f8fafcu;  // -value
constexpr uint32_t kTurn = 0x88888888u;
// The lower halves from shared memory, so that they stay in registers: constants would be moved
// there for every use.
struct Fp4Tables {
  uint32_t above_low, below_low;
};
// What staging leaves besides the tokens.
struct Fp4Staged {
  uint32_t amax[kGemvRowsMax][kMultiplyWarps];  // of a warp, as bits of float32
  float x_scale[kGemvRowsMax];
  Fp4Tables tables;
};

// bf16 tokens, 16-byte aligned, into place: limbs from the last two thirds of it, since limbs of a
// unit only overwrite what is not after it; f16 in a unit's own place.
template <class F>
__device__ void stage_fp4(const GemvArgs& a, const Plan& p, unsigned char* x, Fp4Staged& staged) {
  constexpr bool kLimbed = F::kLimbs > 0;
  const int units = p.lines * 2 * F::kBlockValues / 8, thread = static_cast<int>(threadIdx.x);
  const auto copied = [&](int m) {
    return reinterpret_cast<uint4*>(x + m * p.token_bytes + (kLimbed ? units * 8 : 0));
  };
  for (int m = 0; m < a.m; ++m) {
    const unsigned char* row = static_cast<const unsigned char*>(a.x) + m * a.x_stride * 2;
    uint4* to = copied(m);
    for (int u = thread; u < units; u += kMultiplyThreads) {
      const int there = min(16, max(0, a.k * 2 - u * 16));
      ptx::copy_async(to + u, row + (there > 0 ? u * 16 : 0), there);
    }
  }
  ptx::copy_commit();
  ptx::copy_wait<0>();  // a thread's own units
  for (int m = 0; m < a.m; ++m) {
    const uint4* from = copied(m);
    uint32_t amax = 0;
#pragma unroll 2
    for (int u = thread; u < units; u += kMultiplyThreads) amax = max(amax, amax_bits(from[u]));
    amax = __reduce_max_sync(0xffffffffu, amax);
    if (thread % 32 == 0) staged.amax[m][thread / 32] = amax;
  }
  ptx::named_barrier(1, kMultiplyThreads);  // every warp's maximum is there
  for (int m = 0; m < a.m; ++m) {
    const uint32_t amax = __reduce_max_sync(0xffffffffu, staged.amax[m][thread % kMultiplyWarps]);
    float scale, inverse;
    if constexpr (kLimbed) {
      const LimbScale s = limb_scale(amax);
      scale = s.scale / 2, inverse = s.inverse;  // codes are twice as large
    } else {
      const HalfScale s = half_scale(amax);
      scale = s.result * 0x1p14f, inverse = s.inverse;  // codes are 2^-14 as large
    }
    if (thread == 0) {
      if (a.x_scale != nullptr) scale *= a.x_scale[m * a.x_scale_stride];
      if (a.x_global != nullptr) scale *= *a.x_global;
      staged.x_scale[m] = scale;
    }
    uint4* from = copied(m);
#pragma unroll 1
    for (int base = 0; base < units; base += kMultiplyThreads) {
      const int u = base + thread;
      uint4 unit{};
      if (u < units) unit = from[u];
      if (kLimbed) ptx::named_barrier(1, kMultiplyThreads);  // these units are read
      float v[8];
      unpack<__nv_bfloat16>(v, unit);
      if (u >= units) continue;
      if constexpr (kLimbed) {
        put_fp4_limbs(v, inverse, u, x + m * p.token_bytes);
      } else {
#pragma unroll
        for (float& value : v) value *= inverse;
        from[u] = pack<__half>(v);
      }
    }
  }
}

// ---- products

// What a lane's column of x holds. Limbs: columns 0 to 3 are the upper ones of two tokens or
// parties, 4 and 6 their last ones, so each lane of a result has one token or party. f16: tokens,
// or four of them for each of two parties.
struct Fp4Column {
  int token, party, limb;
  bool used;

  template <class F>
  __device__ static Fp4Column of(int lane, int tokens) {
    const int column = lane / 4, half = lane % 4 / 2;
    if constexpr (F::kLimbs == 0)
      return {F::kParties > 1 ? column % 4 : column, column / 4, 0,
              F::kParties == 1 || half == column / 4};
    const int which = column / 2 % 2, token = F::kParties > 1 ? 0 : which;
    const bool there = (column < 4 || column % 2 == 0) && token < tokens;
    const bool mine = F::kParties == 1 || F::kChunks || half == which;  // K of its party
    return {token, which, column < 4 ? column % 2 : 2, there && mine};
  }
};

// A block of 128 codes of two rows, its scales, and (limbs) what it meets.
template <class F>
struct Fp4Block {
  uint4 codes[2], x[F::kLimbs > 0 ? 2 : 1];
  std::conditional_t<F::kGroup == 32, uint2, uint4> scales[2];

  // Scale of chunk i (parties: of pair i of groups) for row r: bf16 in order, or one of two by the
  // lane's party (selector).
  __device__ float scale(int r, int i, uint32_t selector) const {
    if constexpr (F::kParties == 1) {
      const uint32_t pair = i < 2 ? scales[r].x : scales[r].y;
      return __uint_as_float(i % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
    } else if constexpr (F::kChunks) {
      return __uint_as_float(ptx::permute(i == 0 ? scales[r].x : scales[r].y, 0, selector));
    } else {
      return __uint_as_float(ptx::permute(word_of(scales[r], i), 0, selector));
    }
  }
};

// Integers on top of this, 1.5 * 2^23 as a float, are the low bits of that float.
constexpr int32_t kFloatUnits = 0x4b400000;

// Sums of chunk i: of the bytes of kAbove, then of kBelow.
__device__ inline void multiply_chunk(int32_t (&d)[4], const uint4 (&codes)[2], const uint4 (&x)[2],
                                      const Fp4Tables& tables, int i) {
  const uint32_t w0 = word_of(codes[0], i), w1 = word_of(codes[1], i);
  const uint32_t t0 = w0 ^ kTurn, t1 = w1 ^ kTurn;
  const uint32_t above[4] = {ptx::permute(tables.above_low, kAboveHigh, w0),
                             ptx::permute(tables.above_low, kAboveHigh, w1),
                             ptx::permute(tables.above_low, kAboveHigh, w0 >> 16),
                             ptx::permute(tables.above_low, kAboveHigh, w1 >> 16)};
  const uint32_t below[4] = {ptx::permute(tables.below_low, kBelowHigh, t0),
                             ptx::permute(tables.below_low, kBelowHigh, t1),
                             ptx::permute(tables.below_low, kBelowHigh, t0 >> 16),
                             ptx::permute(tables.below_low, kBelowHigh, t1 >> 16)};
  const uint32_t x0 = word_of(x[i / 2], i % 2 * 2), x1 = word_of(x[i / 2], i % 2 * 2 + 1);
  ptx::mma_s8(d, above, x0, x1);
  ptx::mma_s8(d, below, x0, x1);
}
template <class F>
__device__ void multiply_fp4(float (&sums)[1][4], const Fp4Block<F>& block, const Fp4Tables& tables,
                             uint32_t selector) {
  constexpr int kTogether = F::kChunks ? 2 : 1;  // chunks
#pragma unroll
  for (int i = 0; i < 4 / kTogether; ++i) {
    int32_t d[4] = {kFloatUnits, kFloatUnits, kFloatUnits, kFloatUnits};
#pragma unroll
    for (int c = 0; c < kTogether; ++c)
      multiply_chunk(d, block.codes, block.x, tables, i * kTogether + c);
    const float scale[2] = {block.scale(0, i, selector), block.scale(1, i, selector)};
#pragma unroll
    for (int j = 0; j < 4; ++j)
      sums[0][j] =
          fmaf(__int_as_float(d[j]) - __int_as_float(kFloatUnits), scale[j / 2], sums[0][j]);
  }
}

// A word of codes as f16, 2^-14 of their value: elements 0 and 1, 2 and 3, ... A byte of sign,
// three zeros, the code's lower bits, a zero is the upper one of such an f16.
__device__ inline void halves_of_fp4(uint32_t (&to)[4], uint32_t word) {
  const uint32_t odd = (word & 0x80808080u) | (word >> 3 & 0x0e0e0e0eu);
  const uint32_t even = (word << 4 & 0x80808080u) | (word << 1 & 0x0e0e0e0eu);
  to[0] = __byte_perm(even, 0, 0x2404);
  to[1] = __byte_perm(odd, 0, 0x2404);
  to[2] = even & 0xff00ff00u;
  to[3] = odd & 0xff00ff00u;
}

// x: f16, of the block at the lane's token and K; `used`: whether its column holds them.
template <class F>
__device__ void multiply_fp4(float (&sums)[F::kColumnTiles][4], const Fp4Block<F>& block,
                             const unsigned char* const (&x)[F::kColumnTiles], bool used,
                             uint32_t selector) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t w[2][4];
    halves_of_fp4(w[0], word_of(block.codes[0], i));
    halves_of_fp4(w[1], word_of(block.codes[1], i));
    const float scale[2] = {block.scale(0, i, selector), block.scale(1, i, selector)};
#pragma unroll
    for (int t = 0; t < F::kColumnTiles; ++t) {
      uint4 operands{};
      if (F::kParties == 1 || used) operands = *reinterpret_cast<const uint4*>(x[t] + i * 64);
      float group[4] = {};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t codes[4] = {w[0][2 * h], w[1][2 * h], w[0][2 * h + 1], w[1][2 * h + 1]};
        ptx::mma_16(group, codes, word_of(operands, 2 * h), word_of(operands, 2 * h + 1), __half{});
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[t][j] = fmaf(group[j], scale[j / 2], sums[t][j]);
    }
  }
}

// A warp's way through the stages of a share: four blocks of each, in registers; a block of the
// next stage takes the place of one that has been multiplied if that stage is there by then.
template <class F>
struct Fp4Consumer {
  static constexpr int kBlocks = kUnitLines * 2;
  static constexpr bool kLimbed = F::kLimbs > 0;
  static constexpr int kTogether =
      F::kGroup == 32 ? 2 : 4;  // blocks that are read behind one branch
  const GemvArgs& a;
  const Plan& p;
  const Ring& ring;
  unsigned char* shared;
  const RingBarriers& barriers;
  RingCursor at;  // what is read next
  int left;       // stages that are not read
  int piece = 0;  // of its tile
  Fp4Column column;
  Fp4Block<F> blocks[kBlocks];

  __device__ Fp4Consumer(const GemvArgs& a, const Plan& p, const Ring& ring, unsigned char* shared,
                         const RingBarriers& barriers, int stages)
      : a(a),
        p(p),
        ring(ring),
        shared(shared),
        barriers(barriers),
        left(stages),
        column(Fp4Column::of<F>(lane(), a.m)) {
#pragma unroll
    for (Fp4Block<F>& block : blocks) block = {};
  }

  __device__ static int warp() {
    return static_cast<int>(threadIdx.x) / 32;
  }
  __device__ static int lane() {
    return static_cast<int>(threadIdx.x) % 32;
  }
  // The warp's first block of a piece, in a row; how many are its.
  __device__ int first(int of_piece) const {
    return of_piece * (ring.piece / 64) + warp() * kBlocks;
  }
  __device__ int count(int of_piece) const {
    return min(ring.piece / 64 - warp() * kBlocks, p.blocks - first(of_piece));
  }
  __device__ bool is_there() const {
    return __all_sync(0xffffffffu, ptx::mbarrier_test_wait(barriers.full + at.slot, at.parity));
  }
  __device__ void wait() const {
    ptx::mbarrier_wait(barriers.full + at.slot, at.parity);
  }
  // Block b of the stage to be read; zeros for one that is another warp's.
  __device__ void load(int b) {
    Fp4Block<F>& block = blocks[b];
    const bool mine = b < count(piece);
    const int row = lane() / 4, quad = lane() % 4;
    const unsigned char* codes = shared + at.slot * ring.stage_bytes + row * ring.pitch +
                                 (warp() * kBlocks + b) * 64 + quad * 16;
    const unsigned char* scales = shared + ring.params +
                                  at.params_slot(ring) * static_cast<unsigned>(ring.params_bytes) +
                                  row * ring.scale_pitch + (first(piece) + b) * F::kSubs * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      using Scales = std::remove_reference_t<decltype(block.scales[0])>;
      block.codes[r] = mine ? *reinterpret_cast<const uint4*>(codes + r * 8 * ring.pitch) : uint4{};
      block.scales[r] =
          mine ? *reinterpret_cast<const Scales*>(scales + r * 8 * ring.scale_pitch) : Scales{};
    }
    if constexpr (kLimbed) {
      if (ring.pieces > 1) load_x(b, piece);
    }
  }
  // The limbs that block b of a piece meets; lanes of columns beyond keep their zeros.
  __device__ void load_x(int b, int of_piece) {
    if (!column.used || b >= count(of_piece)) return;
    const unsigned char* x = shared + ring.x + column.token * p.token_bytes + column.limb * 64 +
                             lane() % 4 * 16 + (first(of_piece) + b) * F::kXBlock;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint4& to = blocks[b].x[i];
      const unsigned char* from = x + i * F::kXBlock / 2;
      if constexpr (!F::kChunks) {
        to = *reinterpret_cast<const uint4*>(from);
      } else if (column.party == 0) {
        const auto even = *reinterpret_cast<const uint2*>(from);
        to.x = even.x, to.y = even.y;
      } else {
        const auto odd = *reinterpret_cast<const uint2*>(from + 8);
        to.z = odd.x, to.w = odd.y;
      }
    }
  }
  // The stage's place is free, and the tile's scales after its last stage.
  __device__ void release() {
    ptx::mbarrier_arrive(barriers.empty + at.slot);
    at.next_stage(ring);
    --left;
    if (++piece < ring.pieces) return;
    ptx::mbarrier_arrive(barriers.params_empty + at.params_slot(ring));
    piece = 0;
    ++at.tile;
  }
  __device__ void read() {
    wait();
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) load(b);
    release();
  }
  // Block b of a piece, as it was read.
  __device__ void multiply(float (&sums)[F::kColumnTiles][4], int b, int of_piece,
                           const Fp4Tables& tables) const {
    if constexpr (kLimbed) {
      const uint32_t selector = lane() % 2 == 0 ? 0x1044 : 0x3244;  // byte 4: 0
      multiply_fp4<F>(sums, blocks[b], tables, selector);
    } else {
      if (b >= count(of_piece)) return;
      const uint32_t selector = lane() % 4 < 2 ? 0x1044 : 0x3244;
      const unsigned char* x[F::kColumnTiles];
#pragma unroll
      for (int t = 0; t < F::kColumnTiles; ++t) {
        const int token = min(column.token + t * F::kTokens / F::kColumnTiles, a.m - 1);
        x[t] = shared + ring.x + token * p.token_bytes + lane() % 4 * 16 +
               (first(of_piece) + b) * F::kXBlock;
      }
      multiply_fp4<F>(sums, blocks[b], x, column.used, selector);
    }
  }
  // The warp's part of a tile.
  __device__ void leave(float (&sums)[F::kColumnTiles][4], const RingCursor& tile) const {
    const unsigned of_tile = tile.of_tile();
    ptx::mbarrier_wait(barriers.parts_empty + of_tile, tile.tile_parity() ^ 1);
    float* part = parts_of<F>(ring, shared, a.m, of_tile) + warp() * a.m * kRows + lane() / 4;
    const int quad = lane() % 4;
    if constexpr (kLimbed) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float last = __shfl_down_sync(0xffffffffu, sums[0][2 * r], 2);
        float sum = join_limbs(sums[0][2 * r], sums[0][2 * r + 1], last);
        if (F::kParties > 1) sum += __shfl_down_sync(0xffffffffu, sum, 1);
        if (quad < a.m) part[quad * kRows + r * 8] = sum;
      }
    } else {
#pragma unroll
      for (int i = 0; i < F::kColumnTiles * 4; ++i) {
        float sum = sums[i / 4][i % 4];
        int token = quad * 2 + i % 2;
        if (F::kParties > 1) {
          sum += __shfl_down_sync(0xffffffffu, sum, 2);
          token = quad < 2 ? token + i / 4 * 4 : kGemvRowsMax;
        }
        if (token < a.m) part[token * kRows + i % 4 / 2 * 8] = sum;
      }
    }
    ptx::mbarrier_arrive(barriers.parts_full + of_tile);  // the part is written
  }

  // x is staged; the warp leaves its part of every tile.
  __device__ void run(const Fp4Tables& tables) {
    if (left == 0) return;
    float sums[F::kColumnTiles][4] = {};
    RingCursor tile;
    if constexpr (kLimbed) {
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) load_x(b, 0);
    }
    read();
    int multiplied = 0;  // pieces of the tile
    while (true) {
      const bool early = left > 0 && is_there();
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        multiply(sums, b, multiplied, tables);
        if (early && b % kTogether == kTogether - 1) {
#pragma unroll
          for (int c = b + 1 - kTogether; c <= b; ++c) load(c);
        }
      }
      if (++multiplied == ring.pieces) {
        leave(sums, tile);
#pragma unroll
        for (auto& tile_sums : sums) {
#pragma unroll
          for (float& sum : tile_sums) sum = 0;
        }
        ++tile.tile;
        multiplied = 0;
      }
      if (early) {
        release();
      } else if (left > 0) {
        read();
      } else {
        return;
      }
    }
  }
};

}  // namespace mantissa::cuda
