// Sixteen float32 lanes as four GCC vectors of four, on any processor. Names and meanings:
// simd_avx512.h. Multiplication and addition are rounded apart here (no fused multiply-add).
#pragma once

#include <cstdint>

namespace mantissa::cpu {
namespace {

#define MANTISSA_SIMD static inline __attribute__((always_inline))

constexpr int kLanes = 16;
constexpr int kInterleaved = 1;  // vectors of long functions at once (Many, simd_math.h)
constexpr bool kDotBf16 = false;
// 16 registers, four to a vector.
constexpr int kTileRows = 2;
constexpr int tile_vectors(int rows) {
  return rows == 2 ? 1 : 2;
}

typedef float V4 __attribute__((vector_size(16)));
typedef int32_t W4 __attribute__((vector_size(16)));

struct F {
  V4 a, b, c, d;
};
struct I {
  W4 a, b, c, d;
};
using Mask = I;  // all bits of a lane, or none

MANTISSA_SIMD V4 fours(float v) {
  return V4{v, v, v, v};
}
MANTISSA_SIMD W4 foursi(int32_t v) {
  return W4{v, v, v, v};
}
MANTISSA_SIMD F set1(float v) {
  return {fours(v), fours(v), fours(v), fours(v)};
}
MANTISSA_SIMD F zero() {
  return set1(0);
}
MANTISSA_SIMD I set1i(int32_t v) {
  return {foursi(v), foursi(v), foursi(v), foursi(v)};
}
MANTISSA_SIMD F load(const float* p) {
  F out;
  __builtin_memcpy(&out, p, sizeof(out));
  return out;
}
MANTISSA_SIMD void store(float* p, F v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
MANTISSA_SIMD void hold(F&) {}

MANTISSA_SIMD F add(F x, F y) {
  return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d};
}
MANTISSA_SIMD F sub(F x, F y) {
  return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d};
}
MANTISSA_SIMD F mul(F x, F y) {
  return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d};
}
MANTISSA_SIMD F div(F x, F y) {
  return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d};
}
MANTISSA_SIMD F fma(F x, F y, F z) {
  return add(mul(x, y), z);
}

MANTISSA_SIMD I bits(F x) {
  I out;
  __builtin_memcpy(&out, &x, sizeof(out));
  return out;
}
MANTISSA_SIMD F floats(I x) {
  F out;
  __builtin_memcpy(&out, &x, sizeof(out));
  return out;
}
MANTISSA_SIMD I addi(I x, I y) {
  return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d};
}
MANTISSA_SIMD I subi(I x, I y) {
  return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d};
}
MANTISSA_SIMD I andi(I x, I y) {
  return {x.a & y.a, x.b & y.b, x.c & y.c, x.d & y.d};
}
MANTISSA_SIMD I ori(I x, I y) {
  return {x.a | y.a, x.b | y.b, x.c | y.c, x.d | y.d};
}
typedef uint32_t U4 __attribute__((vector_size(16)));
template <int N>
MANTISSA_SIMD W4 shl4(W4 x) {
  return reinterpret_cast<W4>(reinterpret_cast<U4>(x) << static_cast<uint32_t>(N));
}
template <int N>
MANTISSA_SIMD W4 shr4(W4 x) {
  return reinterpret_cast<W4>(reinterpret_cast<U4>(x) >> static_cast<uint32_t>(N));
}
template <int N>
MANTISSA_SIMD I shl(I x) {
  return {shl4<N>(x.a), shl4<N>(x.b), shl4<N>(x.c), shl4<N>(x.d)};
}
template <int N>
MANTISSA_SIMD I shr(I x) {
  return {shr4<N>(x.a), shr4<N>(x.b), shr4<N>(x.c), shr4<N>(x.d)};
}
MANTISSA_SIMD F to_float(I x) {
  return {__builtin_convertvector(x.a, V4), __builtin_convertvector(x.b, V4),
          __builtin_convertvector(x.c, V4), __builtin_convertvector(x.d, V4)};
}

MANTISSA_SIMD Mask less(F x, F y) {
  return {x.a < y.a, x.b < y.b, x.c < y.c, x.d < y.d};
}
MANTISSA_SIMD Mask is_nan(F x) {
  return {x.a != x.a, x.b != x.b, x.c != x.c, x.d != x.d};
}
MANTISSA_SIMD I selecti(Mask m, I yes, I no) {
  return {(m.a & yes.a) | (~m.a & no.a), (m.b & yes.b) | (~m.b & no.b),
          (m.c & yes.c) | (~m.c & no.c), (m.d & yes.d) | (~m.d & no.d)};
}
MANTISSA_SIMD F select(Mask m, F yes, F no) {
  return floats(selecti(m, bits(yes), bits(no)));
}
MANTISSA_SIMD F max(F x, F y) {
  return select(less(y, x), x, y);
}
MANTISSA_SIMD F min(F x, F y) {
  return select(less(x, y), x, y);
}
MANTISSA_SIMD Mask lanes(int64_t first, int64_t last) {
  const int32_t f = static_cast<int32_t>(first < 0 ? 0 : first > 16 ? 16 : first);
  const int32_t l = static_cast<int32_t>(last < 0 ? 0 : last > 16 ? 16 : last);
  const I index = {W4{0, 1, 2, 3}, W4{4, 5, 6, 7}, W4{8, 9, 10, 11}, W4{12, 13, 14, 15}};
  return {(index.a >= f) & (index.a < l), (index.b >= f) & (index.b < l),
          (index.c >= f) & (index.c < l), (index.d >= f) & (index.d < l)};
}

// To the nearest whole number, ties to even: |x| < 2^22 (adding 1.5 * 2^23 leaves no fraction).
MANTISSA_SIMD F nearest(F x) {
  const F magic = set1(12582912.0f);
  return sub(add(x, magic), magic);
}
MANTISSA_SIMD I to_int(F x) {
  const F magic = set1(12582912.0f);
  return subi(bits(add(x, magic)), bits(magic));
}
MANTISSA_SIMD I half_of(I x) {
  return {x.a >> 1, x.b >> 1, x.c >> 1, x.d >> 1};
}
// In two steps, so that neither power leaves float32: |n| <= 252.
MANTISSA_SIMD F scale2(F x, F n) {
  const I whole = to_int(n);
  const I half = half_of(whole);
  const I rest = subi(whole, half);
  const I bias = set1i(127);
  return mul(mul(x, floats(shl<23>(addi(half, bias)))), floats(shl<23>(addi(rest, bias))));
}

MANTISSA_SIMD float reduce_add(F v) {
  const V4 q = (v.a + v.c) + (v.b + v.d);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
MANTISSA_SIMD float larger(float x, float y) {
  return x > y ? x : y;
}
MANTISSA_SIMD float reduce_max(F v) {
  const F f = max({v.a, v.b, v.a, v.b}, {v.c, v.d, v.c, v.d});
  const F g = max(f, {f.b, f.a, f.b, f.a});
  return larger(larger(g.a[0], g.a[2]), larger(g.a[1], g.a[3]));
}

MANTISSA_SIMD I load_u16(const uint16_t* p) {
  return {W4{p[0], p[1], p[2], p[3]}, W4{p[4], p[5], p[6], p[7]}, W4{p[8], p[9], p[10], p[11]},
          W4{p[12], p[13], p[14], p[15]}};
}
MANTISSA_SIMD I load_u8(const uint8_t* p) {
  return {W4{p[0], p[1], p[2], p[3]}, W4{p[4], p[5], p[6], p[7]}, W4{p[8], p[9], p[10], p[11]},
          W4{p[12], p[13], p[14], p[15]}};
}
MANTISSA_SIMD F load_bf16(const uint16_t* p) {
  return floats(shl<16>(load_u16(p)));
}
// Exponent and mantissa of a float16 moved into place, then the exponent's bias corrected by a
// multiplication, which also normalizes; an exponent of all ones stays all ones.
MANTISSA_SIMD F from_half(I half) {
  const I magnitude = andi(half, set1i(0x7fff));
  const F value = mul(floats(shl<13>(magnitude)), set1(0x1p112f));
  const Mask special = less(set1(31743.5f), to_float(magnitude));
  const I exponent = selecti(special, set1i(0x7f800000), set1i(0));
  return floats(ori(ori(bits(value), exponent), shl<16>(andi(half, set1i(0x8000)))));
}
MANTISSA_SIMD F load_f16(const uint16_t* p) {
  return from_half(load_u16(p));
}
// No instruction for it here.
MANTISSA_SIMD bool try_store_bf16(uint16_t*, F) {
  return false;
}
MANTISSA_SIMD bool try_store_bf16(uint16_t*, F, F) {
  return false;
}
MANTISSA_SIMD void store_u16(uint16_t* p, I v) {
  int32_t lane[16];
  __builtin_memcpy(lane, &v, sizeof(lane));
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint16_t>(lane[i]);
}
MANTISSA_SIMD void store_u8(uint8_t* p, I v) {
  int32_t lane[16];
  __builtin_memcpy(lane, &v, sizeof(lane));
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(lane[i]);
}
// Normal results: the mantissa's cut bits round half to even; subnormal ones: adding 0.5 leaves
// multiples of 2^-24; beyond 65504: infinity.
MANTISSA_SIMD void store_f16(uint16_t* p, F v) {
  const I all = bits(v);
  const I sign = shr<16>(andi(all, set1i(static_cast<int32_t>(0x80000000))));
  const F magnitude = floats(andi(all, set1i(0x7fffffff)));
  const I m = bits(magnitude);
  const I odd = andi(shr<13>(m), set1i(1));
  const I rounded = shr<13>(addi(addi(m, set1i(0xfff)), odd));
  I code = subi(rounded, set1i(112 << 10));
  const I small = subi(bits(add(magnitude, set1(0.5f))), bits(set1(0.5f)));
  code = selecti(less(magnitude, set1(0x1p-14f)), small, code);
  code = selecti(less(magnitude, set1(65520.0f)), code, set1i(0x7c00));
  const I nan = ori(set1i(0x7e00), andi(shr<13>(m), set1i(0x3ff)));
  code = selecti(is_nan(v), nan, code);
  store_u16(p, ori(code, sign));
}
MANTISSA_SIMD F load_i8(const uint8_t* p) {
  const I code = load_u8(p);
  const I minus = shl<1>(andi(code, set1i(0x80)));
  return to_float(subi(code, minus));
}
MANTISSA_SIMD F load_e5m2(const uint8_t* p) {
  return from_half(shl<8>(load_u8(p)));
}
MANTISSA_SIMD F load_e4m3(const uint8_t* p) {
  const I code = load_u8(p);
  const I half = shl<7>(andi(code, set1i(0x7f)));
  const Mask nan = less(set1(16255.5f), to_float(half));
  const I sign = shl<8>(andi(code, set1i(0x80)));
  return mul(from_half(ori(selecti(nan, set1i(0x7e00), half), sign)), set1(256.0f));
}

MANTISSA_SIMD void load_pairs(const uint16_t* k, F& even, F& odd) {
  I pairs;
  __builtin_memcpy(&pairs, k, sizeof(pairs));
  even = floats(shl<16>(pairs));
  odd = floats(andi(pairs, set1i(static_cast<int32_t>(0xffff0000))));
}

MANTISSA_SIMD void prefetch(const void* p) {
  __builtin_prefetch(p);
}
MANTISSA_SIMD float square_root(float v) {
  return __builtin_sqrtf(v);
}

}  // namespace
}  // namespace mantissa::cpu
