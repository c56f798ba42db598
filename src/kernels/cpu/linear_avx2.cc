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

// Codes of 8 channels, half `half` of vector kVector of a K block: input i of channel c in byte i
// of dword c.
template <int kBits, int kVector>
MANTISSA_SIMD __m256i code_dwords(const Lines& block, int half, __m256i to_dwords) {
  constexpr Parts parts = parts_of(kBits);
  __m256i codes = _mm256_setzero_si256();
  unrolled<parts.count>([&](auto p) MANTISSA_INLINE {
    constexpr Part part = parts.part[p()];
    const __m256i stored =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block[part.line[kVector]] + 32 * half));
    const __m256i low = _mm256_srli_epi16(stored, part_bit(part, kVector));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << part.bits) - 1));
    codes = _mm256_or_si256(codes, _mm256_slli_epi16(_mm256_and_si256(low, mask), part.at));
  });
  return _mm256_shuffle_epi8(codes, to_dwords);
}

// Up to 4 bits: the two bytes of a bf16 by permutations.
struct ByPermutation {
  __m256i low_table, high_table;
  explicit ByPermutation(const LinearArgs& a) {
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
  MANTISSA_INLINE void values(__m256i codes, __m256i, __m256* values) const {
    const __m256i low = _mm256_shuffle_epi8(low_table, codes);
    const __m256i high = _mm256_shuffle_epi8(high_table, codes);
    unrolled<kVectorInputs>([&](auto i) MANTISSA_INLINE {
      values[i()] = _mm256_castsi256_ps(_mm256_or_si256(place<i(), 16>(low), place<i(), 24>(high)));
    });
  }
};

// Two's complement, or unsigned codes less a zero point.
template <bool kSigned>
struct ByInteger {
  explicit ByInteger(const LinearArgs&) {}
  template <int kBits>
  MANTISSA_INLINE void values(__m256i codes, __m256i zeros, __m256* values) const {
    unrolled<kVectorInputs>([&](auto i) MANTISSA_INLINE {
      const __m256i top = _mm256_slli_epi32(codes, 32 - 8 * i() - kBits);
      const __m256i code = kSigned ? _mm256_srai_epi32(top, 32 - kBits)
                                   : _mm256_sub_epi32(_mm256_srli_epi32(top, 32 - kBits), zeros);
      values[i()] = _mm256_cvtepi32_ps(code);
    });
  }
};

// Exponent and mantissa moved to a float32's place. A subnormal m 2^-s is 2^e + m 2^-s, less 2^e.
struct ByFields {
  __m128i to_mantissa;
  __m256i magnitude, least_normal, rebias, rebias_small, nan_code;
  __m256 small;
  explicit ByFields(const LinearArgs& a) {
    const int bias = a.table->bias, top = (1 << (a.bits - 1)) - 1, man_bits = a.table->man_bits;
    to_mantissa = _mm_cvtsi32_si128(23 - man_bits);
    magnitude = _mm256_set1_epi32(top);
    least_normal = _mm256_set1_epi32(1 << man_bits);
    rebias = _mm256_set1_epi32((127 - bias) << 23);
    rebias_small = _mm256_set1_epi32((128 - bias) << 23);
    small = _mm256_castsi256_ps(rebias_small);
    nan_code = _mm256_set1_epi32(a.table->nan ? top : -1);
  }
  template <int kBits>
  MANTISSA_INLINE void values(__m256i codes, __m256i, __m256* values) const {
    unrolled<kVectorInputs>([&](auto i) MANTISSA_INLINE {
      const __m256i code = _mm256_srli_epi32(codes, 8 * i());
      const __m256i m = _mm256_and_si256(code, magnitude);
      const __m256i field = _mm256_sll_epi32(m, to_mantissa);
      const __m256 normal = _mm256_castsi256_ps(_mm256_add_epi32(field, rebias));
      const __m256 tiny =
          _mm256_sub_ps(_mm256_castsi256_ps(_mm256_add_epi32(field, rebias_small)), small);
      const __m256 value =
          _mm256_blendv_ps(normal, tiny, _mm256_castsi256_ps(_mm256_cmpgt_epi32(least_normal, m)));
      const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(code, 32 - kBits),
                                            _mm256_set1_epi32(static_cast<int32_t>(0x80000000)));
      const __m256i nan = _mm256_cmpeq_epi32(m, nan_code);
      values[i()] = _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_or_si256(sign, nan)));
    });
  }
};

template <class Decode, int kBits>
static void decode_strips(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  const Decode decode(a);
  alignas(32) uint8_t order[32];
  for (int i = 0; i < 32; ++i) order[i] = static_cast<uint8_t>(byte_of(a.order, i % 16 / 4, i % 4));
  const __m256i to_dwords = _mm256_load_si256(reinterpret_cast<const __m256i*>(order));
  const int64_t width = t.strips * kStrip;
  const uint8_t* block =
      a.weight + t.entry(a.k_blocks) / kStrip * a.block_bytes + begin * t.strips * a.block_bytes;
  for (int64_t b = begin; b < end;
       ++b, panel += a.inputs * width, block += t.strips * a.block_bytes) {
    const int64_t group = a.group_zeros != nullptr ? b / a.group_blocks : 0;
    for (int64_t s = 0; s < t.strips; ++s) {
      const Lines lines{block + s * kBlockBytes, t.strips * kBlockBytes};
      for (int half = 0; half < 2; ++half) {
        __m256i zeros = _mm256_setzero_si256();
        if (a.group_zeros != nullptr)
          zeros = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(
              a.group_zeros + t.entry(a.groups) + (group * t.strips + s) * kStrip + 8 * half)));
        float* to = panel + s * kStrip + 8 * half;
        unrolled<block_inputs(kBits) / kVectorInputs>([&](auto v) MANTISSA_INLINE {
          __m256 values[kVectorInputs];
          decode.template values<kBits>(code_dwords<kBits, v()>(lines, half, to_dwords), zeros,
                                        values);
          for (int i = 0; i < kVectorInputs; ++i, to += width) _mm256_storeu_ps(to, values[i]);
        });
      }
    }
  }
}

template <class Decode, int kLeast, int kMost>
static void decode_bits(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                        float* panel) {
  with_count<kMost>(a.bits, [&](auto bits) {
    if constexpr (bits() >= kLeast) decode_strips<Decode, bits()>(a, t, begin, end, panel);
  });
}

static void decode_packed(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  using Kind = DecodeTable::Kind;
  const Kind kind = a.table->kind;
  if (a.books != nullptr) return decode_by_table(a, t, begin, end, panel);
  if (a.group_zeros != nullptr) return decode_bits<ByInteger<false>, 1, 8>(a, t, begin, end, panel);
  if (a.bits <= 4) return decode_bits<ByPermutation, 1, 4>(a, t, begin, end, panel);
  if (kind == Kind::kSigned) return decode_bits<ByInteger<true>, 5, 8>(a, t, begin, end, panel);
  if (kind == Kind::kUnsigned) return decode_bits<ByInteger<false>, 5, 8>(a, t, begin, end, panel);
  if (kind == Kind::kFloat) return decode_bits<ByFields, 5, 8>(a, t, begin, end, panel);
  decode_by_table(a, t, begin, end, panel);
}

}  // namespace

const LinearIsa kLinearAvx2{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
