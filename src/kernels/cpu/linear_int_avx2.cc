// `linear` of int8 activations with AVX2: bytes by vpmaddubsw, whose int16 holds sums of some
// unsigned codes of few bits; codes of 8 bits, which it does not hold, by vpmaddwd.
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

constexpr int64_t kPackedRows = 0;  // no width is unpacked in registers here

constexpr bool kSumsToOutputs = false;

#include "kernels/cpu/linear_int.inc"

using V = __m256i;  // half a vector of codes: 4 inputs of 8 channels

// The register tiles hold 12 sums: up to 3 rows they are wide, so that weights are read in a
// sequence.
constexpr int kTileRows6 = 6;

MANTISSA_SIMD V load256(const void* p) {
  return _mm256_loadu_si256(static_cast<const V*>(p));
}
MANTISSA_SIMD V broadcast(const void* x) {
  int32_t dword;
  __builtin_memcpy(&dword, x, 4);
  return _mm256_set1_epi32(dword);
}

MANTISSA_SIMD V eight_bytes(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

// sum += product; inline assembly keeps g++ 12 from adding products first and sums in memory.
MANTISSA_SIMD void add_words(V& sum, V product) {
  asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(product));
}
MANTISSA_SIMD void add_dwords(V& sum, V product) {
  asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(product));
}

// ---- multipliers: a step's codes times x, summed in `Sum`s that hold kSpan steps
//   add(block, x, x_stride, sums)  sums[kRows][kHalves] += block * x
//   total(sum)                     the int32 of 8 channels

// 8 bits: even and odd codes as int16.
struct MultiplyWide {
  using Input = int16_t;
  static constexpr int kInputs = 4;
  static constexpr int64_t kSpan = kIntChunk;

  template <int kRows, int kHalves>
  MANTISSA_INLINE void add(const uint8_t* block, const Input* x, int64_t x_stride,
                           V (&sums)[kRows][kHalves]) const {
    const V even = _mm256_set1_epi16(0xff);
    unrolled<2>([&](auto odd) MANTISSA_INLINE {
      V codes[kHalves];
      unrolled<kHalves>([&](auto h) MANTISSA_INLINE {
        const V bytes = load256(block + 32 * h());
        codes[h()] = odd() ? _mm256_srli_epi16(bytes, 8) : _mm256_and_si256(bytes, even);
      });
      unrolled<kRows>([&](auto r) MANTISSA_INLINE {
        const V xs = broadcast(x + r() * x_stride + 2 * odd());
        unrolled<kHalves>([&](auto h) MANTISSA_INLINE {
          add_dwords(sums[r()][h()], _mm256_madd_epi16(codes[h()], xs));
        });
      });
    });
  }
  MANTISSA_INLINE V total(V sum) const { return sum; }
};

// Up to 7 bits: sums of two products fit int16, of kSpan * 2 products where codes are short.
// kParts: 2 nibbles in a byte, or 1 code.
template <int kParts, int64_t kSpanSteps>
struct MultiplyBytes {
  using Input = int8_t;
  static constexpr int kInputs = 4 * kParts;
  static constexpr int64_t kSpan = kSpanSteps;

  template <int kRows, int kHalves>
  MANTISSA_INLINE void add(const uint8_t* block, const Input* x, int64_t x_stride,
                           V (&sums)[kRows][kHalves]) const {
    const V low = _mm256_set1_epi8(15);
    unrolled<kParts>([&](auto part) MANTISSA_INLINE {
      V codes[kHalves];
      unrolled<kHalves>([&](auto h) MANTISSA_INLINE {
        codes[h()] = load256(block + 32 * h());
        if constexpr (part() == 1) codes[h()] = _mm256_srli_epi16(codes[h()], 4);
        if constexpr (kParts == 2) codes[h()] = _mm256_and_si256(codes[h()], low);
      });
      unrolled<kRows>([&](auto r) MANTISSA_INLINE {
        const V xs = broadcast(x + r() * x_stride + 4 * part());
        unrolled<kHalves>([&](auto h) MANTISSA_INLINE {
          add_words(sums[r()][h()], _mm256_maddubs_epi16(codes[h()], xs));
        });
      });
    });
  }
  MANTISSA_INLINE V total(V sum) const { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
};

template <class Call>
MANTISSA_SIMD void with_multiplier(const IntTile& tile, const Call& call) {
  if (tile.a.bits == 8) {
    call(MultiplyWide{});
  } else if (tile.a.bits == 4) {
    call(MultiplyBytes<2, 4>{});  // 15 * 128 * 2 * 8 < 2^15
  } else if (tile.a.bits < 4) {
    call(MultiplyBytes<1, 16>{});  // 7 * 128 * 2 * 16 < 2^15
  } else {
    call(MultiplyBytes<1, 1>{});  // 127 * 128 * 2 < 2^15
  }
}

// Some strips of a tile times rows: what both kernels below walk over.
template <class Multiply, int kStrips>
struct Walk {
  static constexpr int kHalves = 2 * kStrips;
  const Multiply& multiply;
  const IntTile& tile;
  int64_t strip;
  Ahead ahead;

  // Calls add(r, h, int32 sums of the next steps).
  template <int kRows, class Add>
  MANTISSA_INLINE void span(Fetch& fetch, const uint8_t*& w, const typename Multiply::Input*& x,
                            int64_t steps, const Add& add) const {
    const int64_t jump = tile.jump(), x_stride = tile.a.x_stride;
    V sums[kRows][kHalves];
    each<kRows, kHalves>([&](auto r, auto h)
                             MANTISSA_INLINE { sums[r()][h()] = _mm256_setzero_si256(); });
    for (; steps > 0; --steps, w += jump, x += Multiply::kInputs) {
      fetch.next();
      multiply.template add<kRows, kHalves>(w, x, x_stride, sums);
    }
    each<kRows, kHalves>([&](auto r, auto h)
                             MANTISSA_INLINE { add(r, h, multiply.total(sums[r()][h()])); });
  }
};

// Without groups: sums stay in memory between spans.
template <class Multiply, int kStrips>
struct GemmInt {
  Walk<Multiply, kStrips> walk;
  int32_t* sums;

  template <int kRows>
  __attribute__((noinline)) void run(int64_t first) const {
    const IntTile& tile = walk.tile;
    const uint8_t* w = tile.codes + walk.strip * kBlockBytes;
    const auto* x = tile.x<typename Multiply::Input>() + first * tile.a.x_stride;
    int32_t* to = sums + first * kTile + walk.strip * kStrip;
    Fetch fetch(walk.ahead, first, kRows, tile.steps);
    for (int64_t step = 0; step < tile.steps; step += Multiply::kSpan) {
      const int64_t steps = least(Multiply::kSpan, tile.steps - step);
      walk.template span<kRows>(fetch, w, x, steps, [&](auto r, auto h, V sum) MANTISSA_INLINE {
        V* at = reinterpret_cast<V*>(to + r() * kTile + 8 * h());
        _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), sum));
      });
    }
  }
};

// With groups: totals stay in memory between groups.
template <class Multiply, bool kZeros, int kStrips>
struct GemmIntGroups {
  Walk<Multiply, kStrips> walk;
  float* totals;

  template <int kRows>
  __attribute__((noinline)) void run(int64_t first) const {
    constexpr int kHalves = 2 * kStrips;
    const IntTile& tile = walk.tile;
    const LinearArgs& a = tile.a;
    const uint8_t* w = tile.codes + walk.strip * kBlockBytes;
    const auto* x = tile.x<typename Multiply::Input>() + first * a.x_stride;
    float* to = totals + first * kTile + walk.strip * kStrip;
    int64_t group = tile.group();
    const int32_t* x_sums = tile.x_sums() + first * a.parts;
    Fetch fetch(walk.ahead, first, kRows, tile.steps);
    for (int64_t step = 0; step < tile.steps; ++group, ++x_sums) {
      V sums[kRows][kHalves], zeros[kHalves];
      unrolled<kHalves>([&](auto h) MANTISSA_INLINE {
        if constexpr (kZeros)
          zeros[h()] = eight_bytes(tile.zeros(group, walk.strip + h() / 2, a.groups) + h() % 2 * 8);
      });
      each<kRows, kHalves>([&](auto r, auto h) MANTISSA_INLINE {
        const V x_sum = broadcast(x_sums + r() * a.parts);
        if constexpr (kZeros) {
          sums[r()][h()] = _mm256_mullo_epi32(zeros[h()], x_sum);
        } else {
          sums[r()][h()] = x_sum;
        }
      });
      for (const int64_t stop = least(step + tile.group_steps, tile.steps); step < stop;) {
        const int64_t steps = least(Multiply::kSpan, stop - step);
        walk.template span<kRows>(fetch, w, x, steps, [&](auto r, auto h, V sum) MANTISSA_INLINE {
          sums[r()][h()] = _mm256_add_epi32(sums[r()][h()], sum);
        });
        step += steps;
      }
      unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
        const F scale = group_scale(a, tile.t, group, walk.strip + s());
        unrolled<kRows>([&](auto r) MANTISSA_INLINE {
          float* at = to + r() * kTile + s() * kStrip;
          const I sum{sums[r()][2 * s()], sums[r()][2 * s() + 1]};
          store(at, fma(to_float(sum), scale, load(at)));
        });
      });
    }
  }
};

// Calls call(kStrips, kMost, strip) for the strips of a tile: wide blocks for few rows.
template <class Call>
static void for_strips(const IntTile& tile, const Call& call) {
  int64_t s = 0;
  const int64_t strips = tile.t.strips;
  if (tile.rows == 1)
    for (; s + 4 <= strips; s += 4) call(Index<4>{}, Index<1>{}, s);
  if (tile.rows <= kFewRows)
    for (; s + 2 <= strips; s += 2) call(Index<2>{}, Index<static_cast<int>(kFewRows)>{}, s);
  for (; s < strips; ++s) call(Index<1>{}, Index<kTileRows6>{}, s);
}

template <class Multiply>
static void sums_of(const IntTile& tile, const Multiply& multiply, int32_t* sums) {
  for_strips(tile, [&](auto strips, auto most, int64_t s) {
    const Ahead ahead = ahead_of(tile, s, strips(), most());
    for_row_blocks<most()>(tile.rows,
                           GemmInt<Multiply, strips()>{{multiply, tile, s, ahead}, sums});
  });
}

static void int_sums(const IntTile& tile, int32_t* sums) {
  with_multiplier(tile, [&](const auto& multiply) { sums_of(tile, multiply, sums); });
}

template <bool kZeros, class Multiply>
static void groups_of(const IntTile& tile, const Multiply& multiply, float* totals) {
  for_strips(tile, [&](auto strips, auto most, int64_t s) {
    const Ahead ahead = ahead_of(tile, s, strips(), most());
    for_row_blocks<most()>(
        tile.rows, GemmIntGroups<Multiply, kZeros, strips()>{{multiply, tile, s, ahead}, totals});
  });
}

static void int_groups(const IntTile& tile, float* totals) {
  with_multiplier(tile, [&](const auto& multiply) {
    if (tile.a.group_zeros == nullptr) {
      groups_of<false>(tile, multiply, totals);
    } else {
      groups_of<true>(tile, multiply, totals);
    }
  });
}

}  // namespace

const IntIsa kIntAvx2{run_int, true, stage_int};

}  // namespace mantissa::cpu
