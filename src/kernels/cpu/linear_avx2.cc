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

// Codes of 8 channels, half `half` of vector v of a K block: input i of channel c in byte i of
// dword c.
MANTISSA_SIMD __m256i code_dwords(const LinearArgs& a, const uint8_t* block, int v, int half,
                                  __m256i to_dwords) {
  const Parts parts = parts_of(a.bits);
  __m256i codes = _mm256_setzero_si256();
  for (int p = 0; p < parts.count; ++p) {
    const Part part = parts.part[p];
    const __m256i stored = _mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(block + part_offset(part, a.inputs, v) + 32 * half));
    const __m256i low = _mm256_srl_epi16(stored, _mm_cvtsi32_si128(part_bit(part, v)));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << part.bits) - 1));
    codes = _mm256_or_si256(
        codes, _mm256_sll_epi16(_mm256_and_si256(low, mask), _mm_cvtsi32_si128(part.at)));
  }
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
  MANTISSA_SIMD __m256i place(__m256i bytes, int input, int to) {
    const __m256i moved = 8 * input < to
                              ? _mm256_sll_epi32(bytes, _mm_cvtsi32_si128(to - 8 * input))
                              : _mm256_srl_epi32(bytes, _mm_cvtsi32_si128(8 * input - to));
    return _mm256_and_si256(moved, _mm256_set1_epi32(static_cast<int32_t>(0xffu << to)));
  }
  __attribute__((always_inline)) void operator()(__m256i codes, __m256i, __m256* values) const {
    const __m256i low = _mm256_shuffle_epi8(low_table, codes);
    const __m256i high = _mm256_shuffle_epi8(high_table, codes);
    for (int i = 0; i < kVectorInputs; ++i)
      values[i] = _mm256_castsi256_ps(_mm256_or_si256(place(low, i, 16), place(high, i, 24)));
  }
};

// Two's complement, or unsigned codes less a zero point.
template <bool kSigned>
struct ByInteger {
  int bits;
  explicit ByInteger(const LinearArgs& a) : bits(a.bits) {}
  __attribute__((always_inline)) void operator()(__m256i codes, __m256i zeros,
                                                 __m256* values) const {
    for (int i = 0; i < kVectorInputs; ++i) {
      const __m256i top = _mm256_sll_epi32(codes, _mm_cvtsi32_si128(32 - 8 * i - bits));
      const __m128i down = _mm_cvtsi32_si128(32 - bits);
      const __m256i code = kSigned ? _mm256_sra_epi32(top, down) : _mm256_srl_epi32(top, down);
      values[i] = _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zeros));
    }
  }
};

// Exponent and mantissa moved to a float32's place. A subnormal m 2^-s is 2^e + m 2^-s, less 2^e.
struct ByFields {
  int bits, man_bits;
  __m256i magnitude, least_normal, rebias, rebias_small, nan_code;
  __m256 small;
  explicit ByFields(const LinearArgs& a) : bits(a.bits), man_bits(a.table->man_bits) {
    const int bias = a.table->bias, top = (1 << (bits - 1)) - 1;
    magnitude = _mm256_set1_epi32(top);
    least_normal = _mm256_set1_epi32(1 << man_bits);
    rebias = _mm256_set1_epi32((127 - bias) << 23);
    rebias_small = _mm256_set1_epi32((128 - bias) << 23);
    small = _mm256_castsi256_ps(rebias_small);
    nan_code = _mm256_set1_epi32(a.table->nan ? top : -1);
  }
  __attribute__((always_inline)) void operator()(__m256i codes, __m256i, __m256* values) const {
    for (int i = 0; i < kVectorInputs; ++i) {
      const __m256i code = _mm256_srl_epi32(codes, _mm_cvtsi32_si128(8 * i));
      const __m256i m = _mm256_and_si256(code, magnitude);
      const __m256i field = _mm256_sll_epi32(m, _mm_cvtsi32_si128(23 - man_bits));
      const __m256 normal = _mm256_castsi256_ps(_mm256_add_epi32(field, rebias));
      const __m256 tiny =
          _mm256_sub_ps(_mm256_castsi256_ps(_mm256_add_epi32(field, rebias_small)), small);
      const __m256 value =
          _mm256_blendv_ps(normal, tiny, _mm256_castsi256_ps(_mm256_cmpgt_epi32(least_normal, m)));
      const __m256i sign = _mm256_and_si256(_mm256_sll_epi32(code, _mm_cvtsi32_si128(32 - bits)),
                                            _mm256_set1_epi32(static_cast<int32_t>(0x80000000)));
      const __m256i nan = _mm256_cmpeq_epi32(m, nan_code);
      values[i] = _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_or_si256(sign, nan)));
    }
  }
};

template <class Decode>
static void decode_strips(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  const Decode decode(a);
  alignas(32) uint8_t order[32];
  for (int i = 0; i < 32; ++i) order[i] = static_cast<uint8_t>(byte_of(a.order, i % 16 / 4, i % 4));
  const __m256i to_dwords = _mm256_load_si256(reinterpret_cast<const __m256i*>(order));
  const int64_t width = t.strips * kStrip;
  const uint8_t* block =
      a.weight + t.entry(a.k_blocks) / kStrip * a.block_bytes + begin * t.strips * a.block_bytes;
  for (int64_t b = begin; b < end; ++b, panel += a.inputs * width) {
    const int64_t group = a.group_zeros != nullptr ? b / a.group_blocks : 0;
    for (int64_t s = 0; s < t.strips; ++s, block += a.block_bytes) {
      for (int half = 0; half < 2; ++half) {
        __m256i zeros = _mm256_setzero_si256();
        if (a.group_zeros != nullptr)
          zeros = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(
              a.group_zeros + t.entry(a.groups) + (group * t.strips + s) * kStrip + 8 * half)));
        float* to = panel + s * kStrip + 8 * half;
        for (int v = 0; v < a.inputs / kVectorInputs; ++v) {
          __m256 values[kVectorInputs];
          decode(code_dwords(a, block, v, half, to_dwords), zeros, values);
          for (int i = 0; i < kVectorInputs; ++i, to += width) _mm256_storeu_ps(to, values[i]);
        }
      }
    }
  }
}

static void decode_packed(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  using Kind = DecodeTable::Kind;
  const Kind kind = a.table->kind;
  if (a.books != nullptr) return decode_by_table(a, t, begin, end, panel);
  if (a.group_zeros != nullptr) return decode_strips<ByInteger<false>>(a, t, begin, end, panel);
  if (a.bits <= 4) return decode_strips<ByPermutation>(a, t, begin, end, panel);
  if (kind == Kind::kSigned) return decode_strips<ByInteger<true>>(a, t, begin, end, panel);
  if (kind == Kind::kUnsigned) return decode_strips<ByInteger<false>>(a, t, begin, end, panel);
  if (kind == Kind::kFloat) return decode_strips<ByFields>(a, t, begin, end, panel);
  decode_by_table(a, t, begin, end, panel);
}

}  // namespace

const LinearIsa kLinearAvx2{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
