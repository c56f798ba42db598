// Sixteen float32 lanes in two AVX2 registers. Names and meanings: simd_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mantissa::cpu {
namespace {

#define MANTISSA_SIMD static inline __attribute__((always_inline))

constexpr int kLanes = 16;
constexpr int kInterleaved = 1;  // vectors of long functions at once (Many, simd_math.h)
constexpr bool kDotBf16 = false;
// 16 registers, two to a vector.
constexpr int kTileRows = 4;
constexpr int tile_vectors(int rows) {
  return rows == 4 ? 1 : rows == 2 ? 2 : 4;
}

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
struct Mask {
  __m256 a, b;  // all bits of a lane, or none
};

MANTISSA_SIMD F zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
MANTISSA_SIMD F set1(float v) {
  return {_mm256_set1_ps(v), _mm256_set1_ps(v)};
}
MANTISSA_SIMD I set1i(int32_t v) {
  return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)};
}
MANTISSA_SIMD F load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
MANTISSA_SIMD void store(float* p, F v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
// Keeps v in registers: the compiler would read memory again for each use.
MANTISSA_SIMD void hold(F& v) {
  asm("" : "+x"(v.a), "+x"(v.b));
}

MANTISSA_SIMD F add(F x, F y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
MANTISSA_SIMD F sub(F x, F y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
MANTISSA_SIMD F mul(F x, F y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
MANTISSA_SIMD F div(F x, F y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
MANTISSA_SIMD F fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
MANTISSA_SIMD F max(F x, F y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
MANTISSA_SIMD F min(F x, F y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
MANTISSA_SIMD F nearest(F x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}

MANTISSA_SIMD I bits(F x) {
  return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
MANTISSA_SIMD F floats(I x) {
  return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
MANTISSA_SIMD I to_int(F x) {
  return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
}
MANTISSA_SIMD F to_float(I x) {
  return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
MANTISSA_SIMD I addi(I x, I y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
MANTISSA_SIMD I subi(I x, I y) {
  return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
MANTISSA_SIMD I andi(I x, I y) {
  return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
MANTISSA_SIMD I ori(I x, I y) {
  return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
template <int N>
MANTISSA_SIMD I shl(I x) {
  return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
template <int N>
MANTISSA_SIMD I shr(I x) {
  return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)};
}

// In two steps, so that neither power leaves float32: |n| <= 252.
MANTISSA_SIMD F scale2(F x, F n) {
  const I whole = to_int(n);
  const I half = {_mm256_srai_epi32(whole.a, 1), _mm256_srai_epi32(whole.b, 1)};
  const I rest = subi(whole, half);
  const I bias = set1i(127);
  return mul(mul(x, floats(shl<23>(addi(half, bias)))), floats(shl<23>(addi(rest, bias))));
}

MANTISSA_SIMD Mask less(F x, F y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
MANTISSA_SIMD Mask is_nan(F x) {
  return {_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)};
}
MANTISSA_SIMD F select(Mask m, F yes, F no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
MANTISSA_SIMD I selecti(Mask m, I yes, I no) {
  return bits(select(m, floats(yes), floats(no)));
}
MANTISSA_SIMD Mask lanes(int64_t first, int64_t last) {
  const int f = static_cast<int>(first < 0 ? 0 : first > 16 ? 16 : first);
  const int l = static_cast<int>(last < 0 ? 0 : last > 16 ? 16 : last);
  const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
  const __m256i from = _mm256_set1_epi32(f - 1), to = _mm256_set1_epi32(l);
  return {_mm256_castsi256_ps(
              _mm256_and_si256(_mm256_cmpgt_epi32(low, from), _mm256_cmpgt_epi32(to, low))),
          _mm256_castsi256_ps(
              _mm256_and_si256(_mm256_cmpgt_epi32(high, from), _mm256_cmpgt_epi32(to, high)))};
}

MANTISSA_SIMD float reduce_add(F v) {
  const __m256 h = _mm256_add_ps(v.a, v.b);
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
MANTISSA_SIMD float reduce_max(F v) {
  const __m256 h = _mm256_max_ps(v.a, v.b);
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

MANTISSA_SIMD __m128i load128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
MANTISSA_SIMD F load_bf16(const uint16_t* p) {
  return floats(
      shl<16>({_mm256_cvtepu16_epi32(load128(p)), _mm256_cvtepu16_epi32(load128(p + 8))}));
}
MANTISSA_SIMD F load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))};
}
MANTISSA_SIMD void store_f16(uint16_t* p, F v) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, kMode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.b, kMode));
}
// No instruction for it here.
MANTISSA_SIMD bool try_store_bf16(uint16_t*, F) {
  return false;
}
MANTISSA_SIMD bool try_store_bf16(uint16_t*, F, F) {
  return false;
}
MANTISSA_SIMD void store_u16(uint16_t* p, I v) {
  const I low = andi(v, set1i(0xffff));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.a, low.b), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
}
MANTISSA_SIMD void store_u8(uint8_t* p, I v) {
  const I low = andi(v, set1i(0xff));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.a, low.b), 0xd8);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
MANTISSA_SIMD I load_u8(const uint8_t* p) {
  const __m128i codes = load128(p);
  return {_mm256_cvtepu8_epi32(codes), _mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8))};
}
MANTISSA_SIMD F load_i8(const uint8_t* p) {
  const __m128i codes = load128(p);
  return to_float({_mm256_cvtepi8_epi32(codes), _mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8))});
}
MANTISSA_SIMD F from_half(__m256i v) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))};
}
MANTISSA_SIMD F load_e5m2(const uint8_t* p) {
  return from_half(_mm256_slli_epi16(_mm256_cvtepu8_epi16(load128(p)), 8));
}
MANTISSA_SIMD F load_e4m3(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepi8_epi16(load128(p));
  const __m256i top = _mm256_set1_epi16(0x3f80);
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), top);
  const __m256i nan = _mm256_cmpeq_epi16(half, top);
  const __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
  const __m256i value =
      _mm256_blendv_epi8(_mm256_or_si256(half, sign), _mm256_set1_epi16(0x7e00), nan);
  return mul(from_half(value), set1(256.0f));
}

MANTISSA_SIMD void load_pairs(const uint16_t* k, F& even, F& odd) {
  const I pairs = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(k)),
                   _mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + 16))};
  even = floats(shl<16>(pairs));
  odd = floats(andi(pairs, set1i(static_cast<int32_t>(0xffff0000))));
}

MANTISSA_SIMD void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
MANTISSA_SIMD float square_root(float v) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v)));
}

}  // namespace
}  // namespace mantissa::cpu
