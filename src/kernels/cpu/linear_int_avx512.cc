// `linear` of int8 activations with vpdpbusd: unsigned codes of weights times signed codes of x. A
// weight format is one decoder.
#include "kernels/cpu/linear_avx512.h"

namespace mantissa::cpu {
namespace {

// Of other widths than 4 and 8 bits: up to so many rows codes are unpacked in registers.
constexpr int64_t kPackedRows = 2;

// Whether int_sums() starts sums and makes outputs of them (IntTile::starts, ends).
constexpr bool kSumsToOutputs = true;

#include "kernels/cpu/linear_int.inc"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kGroupRows = 2, kWideRows = 1;
#else
// The register tiles: 24 sums; with groups 12 sums and 12 totals, of 6 rows x 2 strips or, up to
// kWideRows rows, of whole tiles, which then are read in one sequence.
constexpr int kGroupRows = 6, kWideRows = kFewRows;
#endif

// ---- decoders: operand kPart of a step as 64 unsigned codes, 4 of each channel

struct DecodeBytes {
  static constexpr int kParts = 1;
  template <int kPart>
  MANTISSA_INLINE I operand(const uint8_t* block) const {
    return _mm512_loadu_si512(block);
  }
};

struct DecodeNibbles {
  static constexpr int kParts = 2;
  I low = _mm512_set1_epi8(15);
  template <int kPart>
  MANTISSA_INLINE I operand(const uint8_t* block) const {
    const I codes = _mm512_loadu_si512(block);
    return _mm512_and_si512(kPart == 0 ? codes : _mm512_srli_epi16(codes, 4), low);
  }
};

// Calls call(decoder) with the decoder of the panel's codes.
template <class Call>
MANTISSA_SIMD void with_decoder(const IntTile& tile, const Call& call) {
  if (tile.a.bits == 4) {
    call(DecodeNibbles{});
  } else {
    call(DecodeBytes{});
  }
}

// sums[kRows][kStrips] += one step.
template <int kRows, int kStrips, class Decoder>
MANTISSA_SIMD void dot_step(const Decoder& decode, const uint8_t* w, const int8_t* x,
                            int64_t x_stride, I (&sums)[kRows][kStrips]) {
  unrolled<Decoder::kParts>([&](auto part) MANTISSA_INLINE {
    I codes[kStrips];
    unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
      codes[s()] = decode.template operand<part()>(w + s() * kBlockBytes);
    });
    unrolled<kRows>([&](auto r) MANTISSA_INLINE {
      const I xs = broadcast(x + r() * x_stride + 4 * part());
      unrolled<kStrips>([&](auto s) MANTISSA_INLINE { dot_int8(sums[r()][s()], codes[s()], xs); });
    });
  });
}

// Without groups: sums stay in memory between panels.
template <class Decoder, int kStrips>
struct GemmInt {
  const Decoder& decoder;
  const IntTile& tile;
  int64_t strip;
  int32_t* sums;
  Ahead ahead;

  template <int kRows>
  __attribute__((noinline)) void run(int64_t first) const {
    const Decoder decode = decoder;
    const int64_t jump = tile.jump(), x_stride = tile.a.x_stride;
    int32_t* to = sums + first * kTile + strip * kStrip;
    if (strip == 0) tile.outputs.fetch(first, kRows);
    const int32_t* x_sums = tile.x_sums() + first;
    I acc[kRows][kStrips];
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      acc[r()][s()] = tile.starts ? broadcast(x_sums + r())
                                  : _mm512_loadu_si512(to + r() * kTile + s() * kStrip);
    });
    const uint8_t* w = tile.codes + strip * kBlockBytes;
    const int8_t* x = tile.x() + first * x_stride;
    Fetch fetch(ahead, first, kRows, tile.steps);
    for (int64_t step = 0; step < tile.steps; ++step, w += jump, x += 4 * Decoder::kParts) {
      fetch.next();
      dot_step(decode, w, x, x_stride, acc);
    }
    if (tile.ends) {
      auto* totals = reinterpret_cast<float*>(to);
      each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
        store(totals + r() * kTile + s() * kStrip, to_float(acc[r()][s()]));
      });
      finish_rows(tile.a, tile.t, tile.m + first, tile.m + first + kRows, totals);
      return;
    }
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      _mm512_storeu_si512(to + r() * kTile + s() * kStrip, acc[r()][s()]);
    });
  }
};

// With groups: sums and totals in registers.
template <class Decoder, bool kZeros, int kStrips>
struct GemmIntGroups {
  const Decoder& decoder;
  const IntTile& tile;
  int64_t strip;
  float* totals;
  Ahead ahead;

  template <int kRows>
  __attribute__((noinline)) void run(int64_t first) const {
    const Decoder decode = decoder;
    const LinearArgs& a = tile.a;
    const int64_t jump = tile.jump(), x_stride = a.x_stride, parts = a.parts;
    float* to = totals + first * kTile + strip * kStrip;
    if (strip == 0) tile.outputs.fetch(first, kRows);
    F total[kRows][kStrips];
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      total[r()][s()] = load(to + r() * kTile + s() * kStrip);
    });
    const uint8_t* w = tile.codes + strip * kBlockBytes;
    const int8_t* x = tile.x() + first * x_stride;
    int64_t group = tile.group();
    const int32_t* x_sums = tile.x_sums() + first * parts;
    Fetch fetch(ahead, first, kRows, tile.steps);
    for (int64_t step = 0; step < tile.steps; ++group, ++x_sums) {
      I sums[kRows][kStrips];
      I zeros[kStrips];
      unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
        if constexpr (kZeros) zeros[s()] = load_u8(tile.zeros(group, strip + s(), a.groups));
      });
      unrolled<kRows>([&](auto r) MANTISSA_INLINE {
        const I x_sum = broadcast(x_sums + r() * parts);
        unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
          if constexpr (kZeros) {
            sums[r()][s()] = _mm512_mullo_epi32(zeros[s()], x_sum);
          } else {
            sums[r()][s()] = x_sum;
          }
        });
      });
      for (const int64_t stop = least(step + tile.group_steps, tile.steps); step < stop;
           ++step, w += jump, x += 4 * Decoder::kParts) {
        fetch.next();
        dot_step(decode, w, x, x_stride, sums);
      }
      unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
        const F scale = group_scale(a, tile.t, group, strip + s());
        unrolled<kRows>([&](auto r) MANTISSA_INLINE {
          total[r()][s()] = fma(to_float(sums[r()][s()]), scale, total[r()][s()]);
        });
      });
    }
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      store(to + r() * kTile + s() * kStrip, total[r()][s()]);
    });
  }
};

template <class Decoder>
static void sums_of(const IntTile& tile, const Decoder& decoder, int32_t* sums) {
  if (tile.t.strips == kTileStrips) {
    const Ahead ahead = ahead_of(tile, 0, kTileStrips, kGemmRows);
    for_row_blocks(tile.rows, GemmInt<Decoder, kTileStrips>{decoder, tile, 0, sums, ahead});
    return;
  }
  for (int64_t s = 0; s < tile.t.strips; ++s) {
    const Ahead ahead = ahead_of(tile, s, 1, kGemmRows);
    for_row_blocks(tile.rows, GemmInt<Decoder, 1>{decoder, tile, s, sums, ahead});
  }
}

static void int_sums(const IntTile& tile, int32_t* sums) {
  with_decoder(tile, [&](const auto& decoder) { sums_of(tile, decoder, sums); });
}

template <bool kZeros, int kStrips, int kMost, class Decoder>
static void groups_of(const IntTile& tile, const Decoder& decoder, int64_t strip, float* totals) {
  const Ahead ahead = ahead_of(tile, strip, kStrips, kMost);
  for_row_blocks<kMost>(
      tile.rows, GemmIntGroups<Decoder, kZeros, kStrips>{decoder, tile, strip, totals, ahead});
}

template <bool kZeros, class Decoder>
static void groups_of(const IntTile& tile, const Decoder& decoder, float* totals) {
  if (tile.t.strips == kTileStrips && tile.rows <= kWideRows) {
    groups_of<kZeros, kTileStrips, kWideRows>(tile, decoder, 0, totals);
    return;
  }
  int64_t s = 0;
  for (; s + 2 <= tile.t.strips; s += 2) groups_of<kZeros, 2, kGroupRows>(tile, decoder, s, totals);
  if (s < tile.t.strips) groups_of<kZeros, 1, kGroupRows>(tile, decoder, s, totals);
}

// With groups, codes of other widths than 4 and 8 bits in the K blocks they are packed in.
template <int kBits, int kRows, int kStrips>
static void packed_groups(const IntTile& tile, int64_t strip, float* totals) {
  constexpr int kVectors = block_inputs(kBits) / kVectorInputs;
  const LinearArgs& a = tile.a;
  const int64_t x_stride = a.x_stride, jump = tile.t.strips * a.block_bytes, parts = a.parts;
  F total[kRows][kStrips];
  each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
    total[r()][s()] = load(totals + r() * kTile + (strip + s()) * kStrip);
  });
  const int64_t stride = kStrips == kTileStrips ? kTileStrips * kVectorBytes : tile.jump();
  const uint8_t* w = tile.codes + strip * kVectorBytes;
  const int8_t* x = tile.x();
  const int32_t* x_sums = tile.x_sums();
  int64_t group = tile.group();
  for (int64_t step = 0; step < tile.steps; ++group, ++x_sums) {
    I sums[kRows][kStrips];
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      sums[r()][s()] = broadcast(x_sums + r() * parts);
      if (a.group_zeros != nullptr)
        sums[r()][s()] =
            _mm512_mullo_epi32(load_u8(tile.zeros(group, strip + s(), a.groups)), sums[r()][s()]);
    });
    for (const int64_t stop = least(step + tile.group_steps, tile.steps); step < stop;
         ++step, w += jump, x += block_inputs(kBits)) {
      HeldBlock blocks[kStrips];
      each<kVectors, kStrips>([&](auto v, auto s) MANTISSA_INLINE {
        HeldBlock& block = blocks[s()];
        block.lines = {w + s() * kVectorBytes, stride};
        // Wider codes are read fast enough for the hardware's prefetcher, and better without.
        if constexpr (kBits <= 3 && v() < block_lines(kBits))
          fetch_here(block.lines[v()] + kUnpackAhead);
        const I codes = unpacked_vector<kBits, v()>(block);
        unrolled<kRows>([&](auto r) MANTISSA_INLINE {
          dot_int8_at(sums[r()][s()], codes, x + r() * x_stride + v() * kVectorInputs);
        });
      });
    }
    unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
      const F scale = group_scale(a, tile.t, group, strip + s());
      unrolled<kRows>([&](auto r) MANTISSA_INLINE {
        total[r()][s()] = fma(to_float(sums[r()][s()]), scale, total[r()][s()]);
      });
    });
  }
  each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
    store(totals + r() * kTile + (strip + s()) * kStrip, total[r()][s()]);
  });
}

template <int kBits>
static void packed_groups(const IntTile& tile, float* totals) {
  with_count<static_cast<int>(kPackedRows)>(tile.rows, [&](auto rows) {
    if (tile.t.strips == kTileStrips) {
      packed_groups<kBits, rows(), kTileStrips>(tile, 0, totals);
      return;
    }
    for (int64_t s = 0; s < tile.t.strips; ++s) packed_groups<kBits, rows(), 1>(tile, s, totals);
  });
}

static void packed_groups(const IntTile& tile, float* totals) {
  using Groups = void (*)(const IntTile&, float*);
  constexpr Groups kGroups[] = {packed_groups<1>, packed_groups<2>, packed_groups<3>, nullptr,
                                packed_groups<5>, packed_groups<6>, packed_groups<7>};
  kGroups[tile.a.bits - 1](tile, totals);
}

static void int_groups(const IntTile& tile, float* totals) {
  if (unpacks_in_registers(tile.a, tile.rows)) {
    packed_groups(tile, totals);
    return;
  }
  with_decoder(tile, [&](const auto& decoder) {
    if (tile.a.group_zeros == nullptr) {
      groups_of<false>(tile, decoder, totals);
    } else {
      groups_of<true>(tile, decoder, totals);
    }
  });
}

}  // namespace

const IntIsa kIntAvx512{run_int, false, stage_int};

}  // namespace mantissa::cpu
