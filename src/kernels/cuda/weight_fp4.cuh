// FP4 weights (e2m1 in groups of 32 or 16) against up to 8 bf16 tokens in the ring of
// weight_ring.cuh. Few tokens are limbs (limbs.cuh): twice a code is an integer of -12..12, and
// int8 tensor cores sum a group exactly. More of them become f16, as the codes do. Groups' sums are
// scaled and added in float32.
#pragma once

#include "kernels/cuda/byte_scale.cuh"
#include "kernels/cuda/quantize_row.cuh"
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
  static constexpr bool kNibbleLimbs = kLimbed, kCodeLimbs = false, kFixedPitch = true;
  static constexpr bool kStageScales = true;
  static constexpr int kLimbTimes = 2;
  static constexpr bool kGlobals = true;
  static constexpr bool kScales = true;
  static constexpr bool kTiles = false;
  static constexpr bool kZeroLine = false;  // blocks that are not there are not multiplied
  static constexpr int kLineSums = 0;
  using GroupScale = uint8_t;
  using Sum = float;
  static constexpr int kBlockValues = 128;
  static constexpr int kXBlock = kBlockValues * (kLimbed ? kLimbCount : 2);
  static constexpr int kXPad = kLimbed ? 0 : 64;  // tokens of f16 share no bank
  static constexpr int kColumnTiles = kTilesOf;   // of mma's 8 columns
  static constexpr int kTokens = (kLimbed ? 2 : 8 * kColumnTiles) / kParties;
};

template <class F>
concept IsFp4 = F::kWeight == GemvWeight::kMini4;

// ---- tokens as limbs

constexpr int kChunk = 32;  // columns that one mma sums
// Where the limbs of a token's unit of 8 values lie: of each two chunks, limb by limb, a lane's 16
// bytes, which are units of both.
__device__ inline int fp4_limb_at(int unit, int limb) {
  const int chunk = unit / 4;
  return (chunk / 2 * kLimbCount + limb) * 64 + unit % 4 * 16 + chunk % 2 * 8;
}
template <IsFp4 F>
__device__ void put_limbs(F, const float (&v)[8], float inverse, int col, unsigned char* x) {
  const int unit = col / 8;
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

// A block of 128 codes of two rows, and its scales.
template <class F>
struct Fp4Block {
  uint4 codes[2];
  uint32_t scales[2];  // bytes of the lane's party, of both where there is one

  // Scales of row r for each sum of the block: of its chunks, of pairs of chunks, of pairs of
  // groups of 16. e8m0: 2^-127 counts as 0; NaN as infinity, which leave() turns back.
  template <int kSums>
  __device__ void scales_of(float (&to)[kSums], int r) const {
    const uint32_t word = scales[r];
    if constexpr (F::kGroup == 16) {
      static_assert(kSums == 4);
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const uint32_t pair = i == 0 ? word & 0xffffu : word >> 16;
        const float2 values = __half22float2(from_bits<__half2>(decode_e4m3<__half>(pair)));
        to[i] = values.x;
        to[i + 1] = values.y;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        const int byte = kSums == 2 ? i : i % 2 * 2 + i / 2;  // even groups come first
        const uint32_t at_exponent = byte < 3 ? word << (23 - 8 * byte) : word >> 1;
        to[i] = __uint_as_float(at_exponent & 0x7f800000u);
      }
    }
  }
};

// Integers on top of this, 1.5 * 2^23 as a float, are the low bits of that float.
constexpr int32_t kFloatUnits = 0x4b400000;

// The lower halves of both tables, in registers: constants would be moved there for every use.
struct Fp4Tables {
  uint32_t above_low, below_low;
};

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
// Sums of a block's chunks, or of pairs of them.
template <class F>
using LimbSums = int32_t[F::kChunks ? 2 : 4][4];
template <class F>
__device__ void multiply_limbs(LimbSums<F>& to, const Fp4Block<F>& block, const uint4 (&x)[2],
                               const Fp4Tables& tables) {
  constexpr int kTogether = F::kChunks ? 2 : 1;  // chunks
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int32_t(&d)[4] = to[i / kTogether];
    if (i % kTogether == 0) d[0] = d[1] = d[2] = d[3] = kFloatUnits;
    multiply_chunk(d, block.codes, x, tables, i);
  }
}
template <class F>
__device__ void add_limbs(float (&sums)[4], const LimbSums<F>& products, const Fp4Block<F>& block) {
  constexpr int kSums = F::kChunks ? 2 : 4;
  float scale[2][kSums];
  block.scales_of(scale[0], 0);
  block.scales_of(scale[1], 1);
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float sum = __int_as_float(products[i][j]) - __int_as_float(kFloatUnits);
      sums[j] = fmaf(sum, scale[j / 2][i], sums[j]);
    }
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
                             const unsigned char* const (&x)[F::kColumnTiles], bool used) {
  float scale[2][4];
  block.scales_of(scale[0], 0);
  block.scales_of(scale[1], 1);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t w[2][4];
    halves_of_fp4(w[0], word_of(block.codes[0], i));
    halves_of_fp4(w[1], word_of(block.codes[1], i));
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
      for (int j = 0; j < 4; ++j) sums[t][j] = fmaf(group[j], scale[j / 2][i], sums[t][j]);
    }
  }
}

// A stage that has been read: the warp's four blocks of it.
template <IsFp4 F>
struct Ahead<F> {
  Fp4Block<F> blocks[kUnitLines * 2];
  bool held;
};

// A warp's way through the stages of a share: a block of the next stage takes the place of one that
// has been multiplied if that stage is there by then.
template <IsFp4 F>
struct Consumer<F> {
  static constexpr int kBlocks = kUnitLines * 2;
  static constexpr bool kLimbed = F::kLimbs > 0;
  using Blocks = Fp4Block<F>[kBlocks];
  using Operands = uint4[kBlocks][2];  // limbs
  using TileSums = float[F::kColumnTiles][4];

  const GemvArgs& a;
  const Plan& p;
  const Ring& ring;
  unsigned char* shared;
  const RingBarriers& barriers;
  RingCursor& at;  // what is read next
  int left;        // stages that are not read
  int piece = 0;   // of its tile
  int keeps = 0;   // last stages whose places do not become free yet (Kept)
  // What the warp's results are multiplied with: limbs: of the lane's token (leave()); f16: of its
  // two tokens of each tile of columns.
  float2 x_scale[F::kColumnTiles] = {};

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ Place place(int of_piece) const { return place_in(ring, a.row_bytes, of_piece); }
  // A block's place in the row and in its piece, whether it is there.
  __device__ static int block_at(int line, int b) {
    return (line + b / 2 * kMultiplyWarps) * 2 + b % 2;
  }
  __device__ static bool has(const Place& of, int b) {
    return of.bytes > b / 2 * kMultiplyWarps * kLine + b % 2 * 64;
  }
  __device__ bool is_there() const {
    return __all_sync(0xffffffffu, ptx::mbarrier_test_wait(barriers.full + at.slot, at.parity));
  }
  __device__ void wait() const { ptx::mbarrier_wait(barriers.full + at.slot, at.parity); }

  // Block b of the stage to be read; one that is not there has scales of 0 and any codes: rows lie
  // kLimbPitch apart, so they are no other stage's.
  __device__ void load(Blocks& blocks, const Place& of, int b) const {
    using Scales = std::conditional_t<F::kChunks, uint16_t, uint32_t>;  // of a lane
    const bool is = has(of, b);
    const int row = lane() / 4, block = block_at(of.in_piece, b);
    const unsigned char* stage = shared + at.slot * ring.stage_bytes;
    const unsigned char* codes = stage + row * kLimbPitch + block * 64 + lane() % 4 * 16;
    // Of the lane's party: that of its results.
    const int party = F::kParties == 1 ? 0 : kLimbed ? lane() % 2 : lane() % 4 / 2;
    const unsigned char* scales = stage + ring.scales + (block * kRows + row) * F::kSubs +
                                  party * static_cast<int>(sizeof(Scales));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      blocks[b].codes[r] = *reinterpret_cast<const uint4*>(codes + r * 8 * kLimbPitch);
      blocks[b].scales[r] =
          is ? uint32_t{*reinterpret_cast<const Scales*>(scales + r * 8 * F::kSubs)} : 0;
    }
  }
  // The limbs that block b of a piece meets; lanes of columns beyond keep their zeros.
  __device__ void load_x(Operands& x, const Fp4Column& column, const Place& of, int b) const {
    if (!column.used || !has(of, b)) return;
    const unsigned char* at = shared + ring.x + column.token * p.token_bytes + column.limb * 64 +
                              lane() % 4 * 16 + block_at(of.line, b) * F::kXBlock;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint4& to = x[b][i];
      const unsigned char* from = at + i * F::kXBlock / 2;
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
  // The stage has been read.
  __device__ void release() {
    if (left > keeps) ptx::mbarrier_arrive(barriers.empty + at.slot);
    at.next_stage(ring);
    --left;
    if (++piece < ring.pieces) return;
    piece = 0;
    ++at.tile;
  }
  // All blocks of the next stage, which is there.
  __device__ void read(Blocks& blocks) {
    const Place of = place(piece);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) load(blocks, of, b);
    release();
  }
  // The next stage, if there is one that has landed.
  __device__ void look_ahead(Ahead<F>& ahead) {
    if (ahead.held || left == 0 || !is_there()) return;
    read(ahead.blocks);
    ahead.held = true;
  }
  // f16: block b of a piece.
  __device__ void multiply_halves(TileSums& sums, const Blocks& blocks, const Fp4Column& column,
                                  const Place& of, int b) const {
    if (!has(of, b)) return;
    const unsigned char* x[F::kColumnTiles];
#pragma unroll
    for (int t = 0; t < F::kColumnTiles; ++t) {
      const int token = min(column.token + t * F::kTokens / F::kColumnTiles, a.m - 1);
      x[t] = shared + ring.x + token * p.token_bytes + lane() % 4 * 16 +
             block_at(of.line, b) * F::kXBlock;
    }
    multiply_fp4<F>(sums, blocks[b], x, column.used);
  }
  __device__ static float nan_of_infinity(float v) {
    return fmaf(v, 0.0f, v);
  }
  // The warp's part of a tile.
  __device__ void leave(TileSums& sums, const RingCursor& tile) const {
    const unsigned of_tile = tile.of_tile();
    ptx::mbarrier_wait(barriers.parts_empty + of_tile, tile.tile_parity() ^ 1);
    float* part = parts_of<F>(ring, shared, a.m, of_tile) +
                  static_cast<int>(threadIdx.x) / 32 * a.m * kRows + lane() / 4;
    const int quad = lane() % 4;
    if constexpr (kLimbed) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float last = __shfl_down_sync(0xffffffffu, sums[0][2 * r], 2);
        float sum = join_limbs(sums[0][2 * r], sums[0][2 * r + 1], last);
        if (F::kParties > 1) sum += __shfl_down_sync(0xffffffffu, sum, 1);
        if (quad < a.m) part[quad * kRows + r * 8] = nan_of_infinity(sum) * x_scale[0].x;
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
        const float2& scale = x_scale[i / 4];
        if (token < a.m)
          part[token * kRows + i % 4 / 2 * 8] =
              nan_of_infinity(sum) * (i % 2 == 0 ? scale.x : scale.y);
      }
    }
    ptx::mbarrier_arrive(barriers.parts_full + of_tile);  // the part is written
  }
  __device__ void take_scale(float scale) {
    x_scale[0].x = scale;
  }
  // x_scale from those of the warp's tokens, [a.m].
  __device__ void take_scales(const float* of_tokens) {
    const int quad = lane() % 4;
#pragma unroll
    for (int t = 0; t < F::kColumnTiles; ++t) {
      const int first = kLimbed ? quad : F::kParties > 1 ? quad % 2 * 2 + t * 4 : quad * 2;
      x_scale[t].x = of_tokens[min(first, a.m - 1)];
      x_scale[t].y = of_tokens[min(first + 1, a.m - 1)];
    }
  }
};

// Where x is limbs: two blocks at a time, so that mma need not wait for each other; a tile's part
// is left while the next one's first blocks are multiplied.
template <class F>
__device__ void consume_limbs(Consumer<F>& reader, Ahead<F>& ahead, RingCursor tile, int stages) {
  using Reader = Consumer<F>;
  constexpr int kPair = 2;
  const Ring& ring = reader.ring;
  const Fp4Column column = Fp4Column::of<F>(Reader::lane(), reader.a.m);
  Fp4Tables tables{kAboveLow, kBelowLow};
  ptx::keep(tables.above_low);
  ptx::keep(tables.below_low);
  typename Reader::Operands x = {};
  float sums[4] = {}, last[1][4];  // last: of the tile before
  bool ends = false;               // it is not left yet
  int multiplied = 0;              // pieces of the tile
  const Place first = reader.place(0);
#pragma unroll
  for (int b = 0; b < Reader::kBlocks; ++b) reader.load_x(x, column, first, b);
  while (true) {
    const bool early = --stages > 0 && reader.is_there();
    const Place next = reader.place(reader.piece);
#pragma unroll
    for (int pair = 0; pair < Reader::kBlocks; pair += kPair) {
      LimbSums<F> products[kPair];
#pragma unroll
      for (int b = 0; b < kPair; ++b)
        multiply_limbs<F>(products[b], ahead.blocks[pair + b], x[pair + b], tables);
      if (pair == 0 && ends) {
        reader.leave(last, tile);
        ++tile.tile;
      }
#pragma unroll
      for (int b = 0; b < kPair; ++b) add_limbs<F>(sums, products[b], ahead.blocks[pair + b]);
      if (!early) continue;
#pragma unroll
      for (int b = pair; b < pair + kPair; ++b) {
        reader.load(ahead.blocks, next, b);
        if (ring.pieces > 1) reader.load_x(x, column, next, b);
      }
    }
    ends = ++multiplied == ring.pieces;
    if (ends) {
      multiplied = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        last[0][j] = sums[j];
        sums[j] = 0;
      }
    }
    if (early) {
      reader.release();
      continue;
    }
    if (ends) {
      reader.leave(last, tile);
      ++tile.tile;
      ends = false;
    }
    if (stages == 0) return;
    reader.wait();
    reader.read(ahead.blocks);
    if (ring.pieces == 1) continue;
#pragma unroll
    for (int b = 0; b < Reader::kBlocks; ++b) reader.load_x(x, column, next, b);
  }
}
template <class F>
__device__ void consume_halves(Consumer<F>& reader, Ahead<F>& ahead, RingCursor tile, int stages) {
  using Reader = Consumer<F>;
  constexpr int kTogether = F::kGroup == 32 ? 2 : 4;  // blocks that are read behind one branch
  const Fp4Column column = Fp4Column::of<F>(Reader::lane(), reader.a.m);
  typename Reader::TileSums sums = {};
  Place of = reader.place(0);  // what is multiplied
  int multiplied = 0;          // pieces of the tile
  while (true) {
    const bool early = --stages > 0 && reader.is_there();
    const Place next = reader.place(reader.piece);
#pragma unroll
    for (int b = 0; b < Reader::kBlocks; ++b) {
      reader.multiply_halves(sums, ahead.blocks, column, of, b);
      if (early && b % kTogether == kTogether - 1) {
#pragma unroll
        for (int c = b + 1 - kTogether; c <= b; ++c) reader.load(ahead.blocks, next, c);
      }
    }
    of = next;
    if (++multiplied == reader.ring.pieces) {
      reader.leave(sums, tile);
#pragma unroll
      for (auto& tile_sums : sums) {
#pragma unroll
        for (float& sum : tile_sums) sum = 0;
      }
      ++tile.tile;
      multiplied = 0;
    }
    if (early) {
      reader.release();
    } else if (stages > 0) {
      reader.wait();
      reader.read(ahead.blocks);
    } else {
      return;
    }
  }
}
// x is staged; the warp leaves its part of every tile. tile: of the first stage.
template <IsFp4 F>
__device__ void consume(Consumer<F>& reader, Ahead<F>& ahead, RingCursor tile, int stages) {
  if (!ahead.held) {
    reader.wait();
    reader.read(ahead.blocks);
  }
  if constexpr (F::kLimbs > 0) {
    consume_limbs(reader, ahead, tile, stages);
  } else {
    consume_halves(reader, ahead, tile, stages);
  }
}

}  // namespace mantissa::cuda
