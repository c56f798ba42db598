// Weight codes -> operands of mma, in registers. Every function is exact. A lane holds 16 bytes of
// a row; "step s" are the 4 values of the s-th mma that these bytes feed, as two registers of two.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda {

template <class V>
__device__ inline uint32_t bits_of(V v) {
  static_assert(sizeof(V) == 4);
  uint32_t out;
  memcpy(&out, &v, 4);
  return out;
}
template <class V>
__device__ inline V from_bits(uint32_t bits) {
  V out;
  memcpy(&out, &bits, 4);
  return out;
}
__device__ inline uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

template <class T>
struct Pair;  // two values of an mma operand, and the integers that share its low mantissa bits
template <>
struct Pair<__nv_bfloat16> {
  using Type = __nv_bfloat162;
  static constexpr uint32_t kUnits = 0x4300;  // 128: the step of [128, 256) is 1
  static constexpr uint32_t kSixteen = 0x4180;
  static constexpr int kMantissa = 7;
};
template <>
struct Pair<__half> {
  using Type = __half2;
  static constexpr uint32_t kUnits = 0x6400;  // 1024: the step of [1024, 2048) is 1
  static constexpr uint32_t kSixteen = 0x4c00;
  static constexpr int kMantissa = 10;
};
template <class T>
__device__ inline uint32_t subtract(uint32_t a, uint32_t b) {
  using P = typename Pair<T>::Type;
  return bits_of(__hsub2(from_bits<P>(a), from_bits<P>(b)));
}

// Two e4m3 codes in the low 16 bits.
template <class T>
__device__ inline uint32_t decode_e4m3(uint32_t codes);
template <>
__device__ inline uint32_t decode_e4m3<__half>(uint32_t codes) {
  return bits_of(
      __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3)));
}
template <>
__device__ inline uint32_t decode_e4m3<__nv_bfloat16>(uint32_t codes) {
  const float2 v = __half22float2(from_bits<__half2>(decode_e4m3<__half>(codes)));
  return bits_of(__floats2bfloat162_rn(v.x, v.y));
}

// The two in the upper 16 bits of a word.
template <class T>
__device__ inline uint32_t decode_e4m3_upper(uint32_t word) {
  return decode_e4m3<T>(word >> 16);
}
#if __CUDA_ARCH__ >= 900
template <>
__device__ inline uint32_t decode_e4m3_upper<__half>(uint32_t word) {
  return ptx::halves_of_upper_e4m3(word);  // no shift: the instruction takes either half
}
#endif

// Bytes `low` and `low` + 1 of a word of int8 codes.
template <class T>
__device__ inline uint32_t decode_s8(uint32_t word, int low);
template <>
__device__ inline uint32_t decode_s8<__half>(uint32_t word, int low) {
  const uint32_t units = __byte_perm(word ^ 0x80808080u, 0x64646464u, low == 0 ? 0x4140 : 0x4342);
  return subtract<__half>(units, 0x64806480u);
}
template <>
__device__ inline uint32_t decode_s8<__nv_bfloat16>(uint32_t word, int low) {
  // bf16 has 7 mantissa bits: (128 + low seven) - (128, or 256 where the sign is set).
  const uint32_t bytes = __byte_perm(word, 0, low == 0 ? 0x4140 : 0x4342);
  return subtract<__nv_bfloat16>(ptx::and_xor(bytes, 0x007f007fu, 0x43004300u),
                                 ptx::and_xor(bytes, 0x00800080u, 0x43004300u));
}

// Int4 codes as kRaisedS4 + code, where the offset costs nothing: element 2 j and 2 j + 1 of a word
// turn into the upper mantissa bits of 16 <= v < 32. What the offset adds to a sum is taken away
// once a group, with the sum of x.
constexpr float kRaisedS4 = 24;
template <class T>
__device__ inline uint32_t raise_s4(uint32_t word, int j) {
  constexpr int kBit = Pair<T>::kMantissa - 4;
  constexpr uint32_t kFlip = (Pair<T>::kSixteen + (8u << kBit)) * 0x10001u;
  const int right = (4 * j - kBit) & 31;
  return ptx::and_xor(__funnelshift_r(word, word, right), (15u << kBit) * 0x10001u, kFlip);
}

// The same where j is known at run time.
template <class T>
__device__ inline uint32_t raise_s4_at(uint32_t word, int j) {
  constexpr int kBit = Pair<T>::kMantissa - 4;
  constexpr uint32_t kFlip = (Pair<T>::kSixteen + (8u << kBit)) * 0x10001u;
  return ptx::and_xor(__funnelshift_r(word, word, 4 * j - kBit), (15u << kBit) * 0x10001u, kFlip);
}

// What int4 codes are offset by, twice: units + 8 + zero point.
template <class T>
__device__ inline uint32_t offset_s4(int zero) {
  return (Pair<T>::kUnits + 8 + static_cast<uint32_t>(zero)) * 0x10001u;
}
// Elements 2 j and 2 j + 1 of the eight int4 codes of a word, less the zero point.
template <class T>
__device__ inline uint32_t decode_s4(uint32_t word, int j, uint32_t offset) {
  constexpr uint32_t kFlip = (Pair<T>::kUnits + 8) * 0x10001u;  // -8..7 become 0..15
  return subtract<T>(ptx::and_xor(word >> (4 * j), 0x000f000fu, kFlip), offset);
}

}  // namespace mantissa::cuda
