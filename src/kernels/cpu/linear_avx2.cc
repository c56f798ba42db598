// `linear` with AVX2, FMA and F16C.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 6, kGemmStrips = 1;

#include "kernels/cpu/linear_body.inc"
#include "kernels/cpu/linear_codes.inc"

// ---- packed codes to f32, eight channels at a time

// Codes of 8 channels, half `half` of vector kVector of a K block, in the packed order: one in each
// byte.
template <int kBits, int kVector>
MANTISSA_SIMD __m256i half_vector(const Lines& block, int half) {
  constexpr Parts parts = parts_of(kBits);
  __m256i codes = _mm256_setzero_si256();
  unrolled<parts.count>([&](auto p) MANTISSA_INLINE {
    constexpr Part part = parts.part[p()];
    const __m256i stored =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block[part.line[kVector]] + 32 * half));
    if constexpr (part.bits == 8) {
      codes = stored;
    } else {
      const __m256i low = _mm256_srli_epi16(stored, part_bit(part, kVector));
      const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << part.bits) - 1));
      codes = _mm256_or_si256(codes, _mm256_slli_epi16(_mm256_and_si256(low, mask), part.at));
    }
  });
  return codes;
}

// What a decoder has:
//   values<kBits>(codes, zeros, out)   inputs k .. k + 3 of 8 channels
//   kBiased, unbiased()                whether those are the values only after unbiased(), a power
//                                      of two, which may as well be applied to sums
//   exact()                            whether no code needed the table
// Most begin with input i of channel c in byte i of dword c.
struct InDwords {
  static constexpr bool kBiased = false;
  __m256i order;
  explicit InDwords(const LinearArgs& a) {
    alignas(32) uint8_t bytes[32];
    for (int i = 0; i < 32; ++i)
      bytes[i] = static_cast<uint8_t>(byte_of(a.order, i % 16 / 4, i % 4));
    order = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
  }
  MANTISSA_INLINE __m256i dwords(__m256i codes) const { return _mm256_shuffle_epi8(codes, order); }
  bool exact() const { return true; }
};

// Up to 4 bits: the two bytes of a bf16 by permutations.
struct ByPermutation : InDwords {
  __m256i low_table, high_table;
  explicit ByPermutation(const LinearArgs& a) : InDwords(a) {
    const auto table = [](const uint8_t* bytes) {
      return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    };
    low_table = table(a.table->bf16_low);
    high_table = table(a.table->bf16_high);
  }
  template <int kInput, int kTo>
  MANTISSA_SIMD __m256i place(__m256i bytes) {
    constexpr int kLeft = kTo - 8 * kInput;
    if constexpr (kLeft == 24) return _mm256_slli_epi32(bytes, 24);
    const __m256i moved =
        kLeft >= 0 ? _mm256_slli_epi32(bytes, kLeft) : _mm256_srli_epi32(bytes, -kLeft);
    return _mm256_and_si256(moved, _mm256_set1_epi32(static_cast<int32_t>(0xffu << kTo)));
  }
  template <int kBits>
  MANTISSA_INLINE void values(__m256i packed, __m256i, __m256* values) const {
    const __m256i codes = dwords(packed);
    const __m256i low = _mm256_shuffle_epi8(low_table, codes);
    const __m256i high = _mm256_shuffle_epi8(high_table, codes);
    unrolled<kVectorInputs>([&](auto i) MANTISSA_INLINE {
      values[i()] = _mm256_castsi256_ps(_mm256_or_si256(place<i(), 16>(low), place<i(), 24>(high)));
    });
  }
};

// Two's complement, or unsigned codes less a zero point.
template <bool kSigned>
struct ByInteger : InDwords {
  using InDwords::InDwords;
  template <int kBits>
  MANTISSA_INLINE void values(__m256i packed, __m256i zeros, __m256* values) const {
    const __m256i codes = dwords(packed);
    unrolled<kVectorInputs>([&](auto i) MANTISSA_INLINE {
      const __m256i top = _mm256_slli_epi32(codes, 32 - 8 * i() - kBits);
      const __m256i code = kSigned ? _mm256_srai_epi32(top, 32 - kBits)
                                   : _mm256_sub_epi32(_mm256_srli_epi32(top, 32 - kBits), zeros);
      values[i()] = _mm256_cvtepi32_ps(code);
    });
  }
};

// Floats of more than 4 bits: sign, exponent and mantissa moved to a float16's place, whose
// conversion knows subnormals (and infinities: e5m2). Their values are 2^(15 - bias) times those.
template <int kExpBits, DecodeTable::Nan kNan = DecodeTable::Nan::kFields>
struct ByHalves {
  static constexpr bool kBiased = kExpBits != 5;
  __m256i fields, seen = _mm256_setzero_si256();  // NaN is 0xff in `seen`
  __m256 bias;

  explicit ByHalves(const LinearArgs& a) {
    const int magnitude = kExpBits + a.table->man_bits;
    const int bits = ((1 << magnitude) - 1) << (10 - a.table->man_bits);
    fields = _mm256_set1_epi16(static_cast<int16_t>(0x8000 | bits));
    bias = _mm256_castsi256_ps(_mm256_set1_epi32((127 + 15 - a.table->bias) << 23));
  }
  bool exact() const {
    const __m256i nan = _mm256_cmpeq_epi8(seen, _mm256_set1_epi8(-1));
    return _mm256_testz_si256(nan, nan);
  }
  MANTISSA_INLINE __m256 unbiased(__m256 v) const { return _mm256_mul_ps(v, bias); }
  MANTISSA_INLINE __m256i halves(__m256i top_aligned) const {
    return _mm256_and_si256(_mm256_srai_epi16(top_aligned, 5 - kExpBits), fields);
  }
  template <int kBits>
  MANTISSA_INLINE void values(__m256i packed, __m256i, __m256* values) {
    if constexpr (kNan == DecodeTable::Nan::kTop)
      seen = _mm256_max_epu8(seen, _mm256_or_si256(packed, _mm256_set1_epi8(-128)));
    if constexpr (kNan == DecodeTable::Nan::kNegZero)
      seen = _mm256_max_epu8(seen, _mm256_xor_si256(packed, _mm256_set1_epi8(127)));
    // Order::kPairs: a lane has inputs 0 and 1 of 4 channels, then 2 and 3.
    const __m256i pairs = _mm256_permute4x64_epi64(packed, 0xd8);
    const __m256i even = halves(_mm256_slli_epi16(pairs, 16 - kBits)),
                  odd = halves(kBits == 8 ? pairs : _mm256_slli_epi16(pairs, 8 - kBits));
    values[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(even));
    values[1] = _mm256_cvtph_ps(_mm256_castsi256_si128(odd));
    values[2] = _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1));
    values[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1));
  }
};

// Zero points of half a strip's group.
MANTISSA_SIMD __m256i half_zeros(const LinearArgs& a, const TileShape& t, int64_t group,
                                 int64_t half) {
  if (a.group_zeros == nullptr) return _mm256_setzero_si256();
  const uint8_t* at = a.group_zeros + t.entry(a.groups) + group * t.strips * kStrip + 8 * half;
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
}

template <class Decode, int kBits>
static bool decode_strips(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  Decode decode(a);
  const int64_t width = t.strips * kStrip;
  const uint8_t* block =
      a.weight + t.entry(a.k_blocks) / kStrip * a.block_bytes + begin * t.strips * a.block_bytes;
  for (int64_t b = begin; b < end;
       ++b, panel += a.inputs * width, block += t.strips * a.block_bytes) {
    const int64_t group = a.group_zeros != nullptr ? b / a.group_blocks : 0;
    for (int64_t half = 0; half < 2 * t.strips; ++half) {
      const Lines lines{block + half / 2 * kBlockBytes, t.strips * kBlockBytes};
      const __m256i zeros = half_zeros(a, t, group, half);
      float* to = panel + 8 * half;
      unrolled<block_inputs(kBits) / kVectorInputs>([&](auto v) MANTISSA_INLINE {
        __m256 values[kVectorInputs];
        decode.template values<kBits>(half_vector<kBits, v()>(lines, static_cast<int>(half % 2)),
                                      zeros, values);
        for (int i = 0; i < kVectorInputs; ++i, to += width) {
          if constexpr (Decode::kBiased) values[i] = decode.unbiased(values[i]);
          _mm256_storeu_ps(to, values[i]);
        }
      });
    }
  }
  return decode.exact();
}

// A row of x times a whole tile, decoded in registers; whether exactly. Sums of biased values have
// the bits of a panel's as long as no product leaves the normal range: |x| >= 2^-100, or 0.
template <class Decode, int kBits>
static bool row_strips(const LinearArgs& a, const TileShape& t, int64_t m, float* sums) {
  constexpr int kSums = 2 * kTileStrips;  // of 8 channels
  Decode decode(a);
  const bool scaled = a.group_scales != nullptr;
  const int64_t group_blocks = a.group_blocks > 0 ? a.group_blocks : a.k_blocks;
  const int64_t jump = kTileStrips * a.block_bytes;
  const uint8_t* block = a.weight + t.entry(a.k_blocks) / kStrip * a.block_bytes;
  const float* x = static_cast<const float*>(a.x) + m * a.x_stride;
  fill_zero(sums, kTile);
  for (int64_t b = 0, group = 0; b < a.k_blocks; ++group) {
    const int64_t stop = least(b + group_blocks, a.k_blocks);
    __m256 part[kSums];
    __m256i zeros[kSums];
    unrolled<kSums>([&](auto i) MANTISSA_INLINE {
      part[i()] = scaled ? _mm256_setzero_ps() : _mm256_loadu_ps(sums + 8 * i());
      zeros[i()] = half_zeros(a, t, group, i());
    });
    for (; b < stop; ++b, block += jump, x += block_inputs(kBits)) {
      each<block_inputs(kBits) / kVectorInputs, kSums>([&](auto v, auto i) MANTISSA_INLINE {
        const Lines lines{block + i() / 2 * kBlockBytes, kTileStrips * kBlockBytes};
        __m256 values[kVectorInputs];
        decode.template values<kBits>(half_vector<kBits, v()>(lines, i() % 2), zeros[i()], values);
        unrolled<kVectorInputs>([&](auto k) MANTISSA_INLINE {
          part[i()] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + kVectorInputs * v() + k()),
                                      values[k()], part[i()]);
        });
      });
    }
    unrolled<kTileStrips>([&](auto s) MANTISSA_INLINE {
      F sum{part[2 * s()], part[2 * s() + 1]};
      if constexpr (Decode::kBiased) sum = {decode.unbiased(sum.a), decode.unbiased(sum.b)};
      float* to = sums + s() * kStrip;
      if (scaled) sum = fma(scale_x(a, m, group, sum), group_scale(a, t, group, s()), load(to));
      store(to, sum);
    });
  }
  return decode.exact();
}

// Calls call.template operator()<Decode, kBits>() with what decodes the weight, if anything but the
// table does.
template <class Call>
static bool with_decoder(const LinearArgs& a, const Call& call) {
  using Kind = DecodeTable::Kind;
  const Kind kind = a.table->kind;
  bool done = false;
  if (a.books != nullptr) return false;
  with_count<8>(a.bits, [&](auto bits) {
    constexpr int kBits = bits();
    if (a.group_zeros != nullptr || (kind == Kind::kUnsigned && kBits > 4)) {
      done = call.template operator()<ByInteger<false>, kBits>();
    } else if constexpr (kBits <= 4) {
      done = kBits == 4 && kind == Kind::kSigned
                 ? call.template operator()<ByInteger<true>, kBits>()
                 : call.template operator()<ByPermutation, kBits>();
    } else if (kind == Kind::kSigned) {
      done = call.template operator()<ByInteger<true>, kBits>();
    } else if (kind == Kind::kFloat) {
      const int exp_bits = kBits - 1 - a.table->man_bits;
      if constexpr (kBits == 8) {
        using Nan = DecodeTable::Nan;
        if (exp_bits == 5) done = call.template operator()<ByHalves<5>, 8>();
        if (exp_bits == 4 && a.table->nan == Nan::kTop)
          done = call.template operator()<ByHalves<4, Nan::kTop>, 8>();
        if (exp_bits == 4 && a.table->nan == Nan::kNegZero)
          done = call.template operator()<ByHalves<4, Nan::kNegZero>, 8>();
      } else if constexpr (kBits == 6) {
        if (exp_bits == 3) done = call.template operator()<ByHalves<3>, 6>();
        if (exp_bits == 2) done = call.template operator()<ByHalves<2>, 6>();
      }
    }
  });
  return done;
}

static void decode_packed(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  const bool exact = with_decoder(a, [&]<class Decode, int kBits>() {
    return decode_strips<Decode, kBits>(a, t, begin, end, panel);
  });
  if (!exact) decode_by_table(a, t, begin, end, panel);
}

// Of the widths that fill few vectors; the compiler takes long over each.
static bool row_packed(const LinearArgs& a, const TileShape& t, int64_t m, float* sums) {
  return with_decoder(a, [&]<class Decode, int kBits>() {
    if constexpr (kBits % 2 == 0 && kBits > 2) return row_strips<Decode, kBits>(a, t, m, sums);
    return false;
  });
}

}  // namespace

const LinearIsa kLinearAvx2{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
