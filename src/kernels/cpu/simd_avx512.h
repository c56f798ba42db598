// Sixteen float32 lanes in one AVX-512 register. The same names as simd_avx2.h and simd_portable.h;
// the bodies (*_body.inc) are written over them once. For per-ISA sources only: no standard
// library, everything internal.
#pragma once

// g++ 12 takes its own headers' _mm512_undefined_*() for a mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

namespace mantissa::cpu {
namespace {

#define MANTISSA_SIMD static inline __attribute__((always_inline))

constexpr int kLanes = 16;
constexpr int kInterleaved = 4;  // vectors of long functions at once (Many, simd_math.h)
constexpr bool kDotBf16 = true;  // dot_pairs() is one instruction
// Register tiles of attention_body.inc: up to kTileRows query rows x tile_vectors(rows) vectors,
// with room for the operands in 32 registers.
constexpr int kTileRows = 8;
constexpr int tile_vectors(int rows) {
  return rows == 8 ? 2 : 4;
}

using F = __m512;
using I = __m512i;
using Mask = __mmask16;

MANTISSA_SIMD F zero() {
  return _mm512_setzero_ps();
}
MANTISSA_SIMD F set1(float v) {
  return _mm512_set1_ps(v);
}
MANTISSA_SIMD I set1i(int32_t v) {
  return _mm512_set1_epi32(v);
}
MANTISSA_SIMD F load(const float* p) {
  return _mm512_loadu_ps(p);
}
MANTISSA_SIMD void store(float* p, F v) {
  _mm512_storeu_ps(p, v);
}
// Keeps v in registers: the compiler would read memory again for each use.
MANTISSA_SIMD void hold(F& v) {
  asm("" : "+v"(v));
}

MANTISSA_SIMD F add(F a, F b) {
  return _mm512_add_ps(a, b);
}
MANTISSA_SIMD F sub(F a, F b) {
  return _mm512_sub_ps(a, b);
}
MANTISSA_SIMD F mul(F a, F b) {
  return _mm512_mul_ps(a, b);
}
MANTISSA_SIMD F div(F a, F b) {
  return _mm512_div_ps(a, b);
}
MANTISSA_SIMD F fma(F a, F b, F c) {
  return _mm512_fmadd_ps(a, b, c);
}
// b where either is NaN.
MANTISSA_SIMD F max(F a, F b) {
  return _mm512_max_ps(a, b);
}
MANTISSA_SIMD F min(F a, F b) {
  return _mm512_min_ps(a, b);
}
MANTISSA_SIMD F nearest(F a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^n, n whole.
MANTISSA_SIMD F scale2(F a, F n) {
  return _mm512_scalef_ps(a, n);
}

MANTISSA_SIMD I bits(F a) {
  return _mm512_castps_si512(a);
}
MANTISSA_SIMD F floats(I a) {
  return _mm512_castsi512_ps(a);
}
MANTISSA_SIMD I to_int(F a) {
  return _mm512_cvtps_epi32(a);
}
MANTISSA_SIMD F to_float(I a) {
  return _mm512_cvtepi32_ps(a);
}
MANTISSA_SIMD I addi(I a, I b) {
  return _mm512_add_epi32(a, b);
}
MANTISSA_SIMD I subi(I a, I b) {
  return _mm512_sub_epi32(a, b);
}
MANTISSA_SIMD I andi(I a, I b) {
  return _mm512_and_si512(a, b);
}
MANTISSA_SIMD I ori(I a, I b) {
  return _mm512_or_si512(a, b);
}
template <int N>
MANTISSA_SIMD I shl(I a) {
  return _mm512_slli_epi32(a, N);
}
template <int N>
MANTISSA_SIMD I shr(I a) {
  return _mm512_srli_epi32(a, N);
}

MANTISSA_SIMD Mask less(F a, F b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
MANTISSA_SIMD Mask is_nan(F a) {
  return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
MANTISSA_SIMD F select(Mask m, F yes, F no) {
  return _mm512_mask_blend_ps(m, no, yes);
}
MANTISSA_SIMD I selecti(Mask m, I yes, I no) {
  return _mm512_mask_blend_epi32(m, no, yes);
}
// Lanes first <= lane < last of 16.
MANTISSA_SIMD Mask lanes(int64_t first, int64_t last) {
  const int64_t f = first < 0 ? 0 : first > 16 ? 16 : first;
  const int64_t l = last < 0 ? 0 : last > 16 ? 16 : last;
  return static_cast<Mask>(((1u << l) - 1u) & ~((1u << f) - 1u));
}

// Pairs 8 lanes apart, then 4, 2, 1: the same tree on every instruction set.
MANTISSA_SIMD float reduce_add(F v) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
MANTISSA_SIMD float reduce_max(F v) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// ---- other formats, to float32 and back
MANTISSA_SIMD F load_bf16(const uint16_t* p) {
  return floats(
      shl<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
}
MANTISSA_SIMD F load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
MANTISSA_SIMD void store_f16(uint16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// Rounds to bf16 by the processor's instruction, to nearest even; a NaN stays one. It takes
// subnormals for zeros: where there are any (or zeros), nothing is stored, and false.
MANTISSA_SIMD Mask subnormal(F v) {
  return _mm512_testn_epi32_mask(bits(v), set1i(0x7f800000));
}
MANTISSA_SIMD bool try_store_bf16(uint16_t* p, F v) {
  if (subnormal(v) != 0) return false;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  return true;
}
MANTISSA_SIMD bool try_store_bf16(uint16_t* p, F v0, F v1) {
  if ((subnormal(v0) | subnormal(v1)) != 0) return false;
  _mm512_storeu_si512(p, reinterpret_cast<I>(_mm512_cvtne2ps_pbh(v1, v0)));
  return true;
}
// Low 16 or 8 bits of each lane.
MANTISSA_SIMD void store_u16(uint16_t* p, I v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
}
MANTISSA_SIMD void store_u8(uint8_t* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
MANTISSA_SIMD F load_i8(const uint8_t* p) {
  return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
MANTISSA_SIMD I load_u8(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// An e5m2 code is the upper byte of a float16.
MANTISSA_SIMD F load_e5m2(const uint8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 8));
}
// An e4m3 code, sign apart, is a float16 shifted by 7 whose exponent is 8 too small.
MANTISSA_SIMD F load_e4m3(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(0x3f80));
  const __mmask16 nan = _mm256_cmpeq_epi16_mask(half, _mm256_set1_epi16(0x3f80));
  const __m256i sign = _mm256_set1_epi16(static_cast<int16_t>(0x8000));
  const __m256i value = _mm256_mask_mov_epi16(_mm256_ternarylogic_epi32(half, wide, sign, 0xf8),
                                              nan, _mm256_set1_epi16(0x7e01));
  return mul(_mm512_cvtph_ps(value), set1(256.0f));
}

// ---- pairs of bf16, for vdpbf16ps

// bf16 of every magnitude (7 bits) of an 8-bit float: exact, subnormals and NaN too.
struct Float8Table {
  alignas(64) uint16_t bf16[128];
};
template <int kManBits, int kBias, bool kIeee>
constexpr Float8Table float8_table() {
  Float8Table table{};
  for (int code = 0; code < 128; ++code) {
    int exponent = code >> kManBits, mantissa = code & ((1 << kManBits) - 1);
    const bool top = exponent == (1 << (7 - kManBits)) - 1;
    if (kIeee ? top : code == 127) {  // infinity (e5m2) or NaN
      exponent = 255 - 127 + kBias;
    } else if (exponent == 0 && mantissa != 0) {
      for (exponent = 1; mantissa < (1 << kManBits); mantissa <<= 1) --exponent;
      mantissa -= 1 << kManBits;
    }
    table.bf16[code] = static_cast<uint16_t>(
        code == 0 ? 0 : (exponent + 127 - kBias) << 7 | mantissa << (7 - kManBits));
  }
  return table;
}
constexpr Float8Table kE4m3Table = float8_table<3, 7, false>();
constexpr Float8Table kE5m2Table = float8_table<2, 15, true>();

// Codes of even in the low, of odd in the high half of each lane.
MANTISSA_SIMD I code_pairs(const uint8_t* even, const uint8_t* odd) {
  const __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(even)));
  const __m512i high = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(odd)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
MANTISSA_SIMD I look_up(I codes, const Float8Table& table) {
  const __m512i low = _mm512_permutex2var_epi16(_mm512_load_si512(table.bf16), codes,
                                                _mm512_load_si512(table.bf16 + 32));
  const __m512i high = _mm512_permutex2var_epi16(_mm512_load_si512(table.bf16 + 64), codes,
                                                 _mm512_load_si512(table.bf16 + 96));
  const __mmask32 upper = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
  const __m512i value = _mm512_mask_blend_epi16(upper, low, high);
  const __m512i sign = _mm512_slli_epi16(codes, 8);
  return _mm512_ternarylogic_epi32(value, sign, _mm512_set1_epi16(static_cast<int16_t>(0x8000)),
                                   0xf8);  // value | (sign & 0x8000)
}
MANTISSA_SIMD I pairs_e4m3(const uint8_t* even, const uint8_t* odd) {
  return look_up(code_pairs(even, odd), kE4m3Table);
}
MANTISSA_SIMD I pairs_e5m2(const uint8_t* even, const uint8_t* odd) {
  return look_up(code_pairs(even, odd), kE5m2Table);
}
// The same by bytes, for 64 codes at once.
struct Float8Bytes {
  alignas(64) uint8_t low[128], high[128];
};
constexpr Float8Bytes float8_bytes(const Float8Table& table) {
  Float8Bytes bytes{};
  for (int code = 0; code < 128; ++code) {
    bytes.low[code] = static_cast<uint8_t>(table.bf16[code] & 0xff);
    bytes.high[code] = static_cast<uint8_t>(table.bf16[code] >> 8);
  }
  return bytes;
}
// bf16 of 0 to 127.
constexpr Float8Table magnitude_table() {
  Float8Table table{};
  for (int value = 1; value < 128; ++value) {
    int exponent = 0;
    while (value >> (exponent + 1) != 0) ++exponent;
    table.bf16[value] =
        static_cast<uint16_t>((exponent + 127) << 7 | ((value << (7 - exponent)) & 0x7f));
  }
  return table;
}
constexpr Float8Bytes kE4m3Bytes = float8_bytes(kE4m3Table), kE5m2Bytes = float8_bytes(kE5m2Table),
                      kMagnitudeBytes = float8_bytes(magnitude_table());

MANTISSA_SIMD I load_i(const void* p) {
  return _mm512_loadu_si512(p);
}
MANTISSA_SIMD void store_i(void* p, I v) {
  _mm512_storeu_si512(p, v);
}
// The first `count` of 64 bytes or 32 halves; the rest is 0 and not read.
MANTISSA_SIMD I load_bytes(const uint8_t* p, int64_t count) {
  return _mm512_maskz_loadu_epi8(count >= 64 ? ~0ull : (1ull << count) - 1, p);
}
MANTISSA_SIMD I load_halves(const uint16_t* p, int64_t count) {
  return _mm512_maskz_loadu_epi16(count >= 32 ? ~0u : (1u << count) - 1, p);
}
MANTISSA_SIMD I permute_bytes(I v, I order) {
  return _mm512_permutexvar_epi8(order, v);
}
// Of two vectors one behind the other.
MANTISSA_SIMD I permute_two(I a, I order, I b) {
  return _mm512_permutex2var_epi8(a, order, b);
}
MANTISSA_SIMD I permute_halves(I a, I order, I b) {
  return _mm512_permutex2var_epi16(a, order, b);
}

// bf16 of the codes at 16 L + w, L < 4: w < 8 in `first`, the others in `second`, in order.
MANTISSA_SIMD void widen_bytes(I index, I high_bits, const Float8Bytes& table, I& first,
                               I& second) {
  const I low = permute_two(load_i(table.low), index, load_i(table.low + 64));
  const I high =
      _mm512_or_si512(permute_two(load_i(table.high), index, load_i(table.high + 64)), high_bits);
  first = _mm512_unpacklo_epi8(low, high);
  second = _mm512_unpackhi_epi8(low, high);
}
MANTISSA_SIMD void widen_float8(I codes, const Float8Bytes& table, I& first, I& second) {
  const I sign = _mm512_and_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
  widen_bytes(codes, sign, table, first, second);
}
// |code| of bytes; -128 stays. vpabsb takes ten cycles of Zen 4.
MANTISSA_SIMD I magnitudes(I codes) {
  return _mm512_max_epi8(codes, _mm512_sub_epi8(set1i(0), codes));
}

// -128 has no magnitude of 7 bits: its index is that of 0, its upper byte that of -128.
MANTISSA_SIMD void widen_i8(I codes, I& first, I& second) {
  const I least = _mm512_set1_epi8(static_cast<char>(0x80));
  const I high =
      _mm512_mask_mov_epi8(_mm512_and_si512(codes, least), _mm512_cmpeq_epi8_mask(codes, least),
                           _mm512_set1_epi8(static_cast<char>(0xc3)));
  widen_bytes(magnitudes(codes), high, kMagnitudeBytes, first, second);
}

// Stores v rounded to bf16 and gives it back.
MANTISSA_SIMD F store_rounded(uint16_t* p, F v) {
  const __m256i halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
  return floats(shl<16>(_mm512_cvtepu16_epi32(halves)));
}

// acc + k[2i] * q[0] + k[2i + 1] * q[1] in lane i: 32 bf16 in k, a pair of bf16 at q.
MANTISSA_SIMD F dot_pairs(F acc, I k, const uint32_t* q) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(k),
                          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*q))));
}
MANTISSA_SIMD I pairs_bf16(const uint16_t* k) {
  return _mm512_loadu_si512(k);
}
MANTISSA_SIMD void split_pairs(I pairs, F& even, F& odd) {
  even = floats(shl<16>(pairs));
  odd = floats(andi(pairs, set1i(static_cast<int32_t>(0xffff0000))));
}
MANTISSA_SIMD void load_pairs(const uint16_t* k, F& even, F& odd) {
  split_pairs(pairs_bf16(k), even, odd);
}

MANTISSA_SIMD void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
MANTISSA_SIMD float square_root(float v) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v)));
}

}  // namespace
}  // namespace mantissa::cpu
