// One token of 16-bit floats for tensor cores that multiply int8: x = scale * (l0 * 2^16 + l1 * 2^8
// + l2), limbs of one signed byte each, in three of mma's eight columns. The scale is a power of
// two by the largest magnitude of the row: what is above 2^-14 of that is exact, smaller values
// keep an error of 2^-22 of it, less than float32 sums leave. Integer weights then need no decoding
// to floats, and their products are summed exactly.
#pragma once

#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {

constexpr int kLimbCount = 3;
constexpr int kLimbColsMax = 32768;  // longer rows take too much shared memory as limbs
constexpr int kLimbBits = 22;        // of the fixed-point number, without its sign

struct LimbScale {
  float scale, inverse;
};
// amax_bits: the largest of the magnitudes as bits of float32. A row that is not finite gives NaN.
__device__ inline LimbScale limb_scale(uint32_t amax_bits) {
  if (amax_bits >= 0x7f800000u) return {__uint_as_float(0x7fffffffu), 0};
  const int exponent = max(static_cast<int>(amax_bits >> 23), 64);  // so that both are normal
  return {__uint_as_float(static_cast<uint32_t>(exponent - (kLimbBits - 1)) << 23),
          __uint_as_float(static_cast<uint32_t>(254 - exponent + (kLimbBits - 1)) << 23)};
}

// The larger of two bf16's magnitudes, as bits of float32: they order as integers, NaN above
// infinity.
__device__ inline uint32_t pair_amax_bits(uint32_t pair) {
  return max(pair & 0x7fff0000u, pair << 16 & 0x7fff0000u);
}
__device__ inline uint32_t amax_bits(const uint4& v) {
  return max(max(pair_amax_bits(v.x), pair_amax_bits(v.y)),
             max(pair_amax_bits(v.z), pair_amax_bits(v.w)));
}
// What a result is multiplied with.
template <class F>
__device__ float limb_result_scale(const LimbScale& s) {
  return s.scale / F::kLimbTimes;
}

__device__ inline float join_limbs(float l0, float l1, float l2) {
  return fmaf(l0, 65536.0f, fmaf(l1, 256.0f, l2));
}

// A value as a number whose lowest three bytes are its limbs, each 128 too large: adding 1.5 2^23
// leaves the rounded integer in a float's low bits.
__device__ inline uint32_t raised_limbs(float v, float inverse) {
  return __float_as_uint(fmaf(v, inverse, 0x1.8p23f)) + 0x408080u;
}

// Eight values from column `col` (a multiple of 8) on -> limbs at x, 64 bytes apart. int4, as
// Consumer::read_x reads them: a lane's 16 bytes for each half of a word's nibbles. int8: in order.
template <class F>
__device__ void put_limbs(F, const float (&v)[8], float inverse, int col, unsigned char* x) {
  static_assert(F::kLimbs == kLimbCount && (F::kSubs <= 1));
  constexpr bool kNibbles = F::kNibbleLimbs;
  constexpr int kValues = F::kBlockValues;
  constexpr int kApart = kNibbles ? F::kXBlock / 8 : 1;  // words, from one half to the other
  const int lane = kNibbles ? col % 32 / 8 * 16 + col % kValues / 32 * 4 : col % kValues;
  auto* at = reinterpret_cast<uint32_t*>(x + col / kValues * F::kXBlock + lane);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Of a word of nibbles elements 0 4 1 5 are the lower ones of its bytes, 2 6 3 7 the upper
    // ones.
    uint32_t n[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      n[i] = raised_limbs(v[kNibbles ? half * 2 + i / 2 + i % 2 * 4 : half * 4 + i], inverse);
    const uint32_t low01 = __byte_perm(n[0], n[1], 0x5140), low23 = __byte_perm(n[2], n[3], 0x5140);
    const uint32_t top01 = __byte_perm(n[0], n[1], 0x0062), top23 = __byte_perm(n[2], n[3], 0x0062);
    const uint32_t limbs[kLimbCount] = {__byte_perm(low01, low23, 0x5410),
                                        __byte_perm(low01, low23, 0x7632),
                                        __byte_perm(top01, top23, 0x5410)};
#pragma unroll
    for (int l = 0; l < kLimbCount; ++l)
      at[half * kApart + (kLimbCount - 1 - l) * 16] = limbs[l] ^ 0x80808080u;
  }
}

// ---- e4m3 codes: fixed-point numbers of 18 bits, multiples of 2^-9 up to 448, exact as limbs

__device__ inline LimbScale code_limbs() {
  return {0x1p-9f, 0x1p9f};
}
// Whether one of eight codes is NaN.
__device__ inline bool has_nan_code(uint2 codes) {
  const uint32_t x = (codes.x & 0x7f7f7f7fu) + 0x01010101u,
                 y = (codes.y & 0x7f7f7f7fu) + 0x01010101u;
  return ((x | y) & 0x80808080u) != 0;
}
// Eight codes, as put_limbs puts their values; whether one is NaN.
template <class F>
__device__ bool put_code_limbs(F format, uint2 codes, int col, unsigned char* x) {
  const uint4 halves = decode_unit(codes);
  float v[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(from_bits<__half2>(word_of(halves, i)));
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
  put_limbs(format, v, code_limbs().inverse, col, x);
  return has_nan_code(codes);
}
// What a warp's results are multiplied with; nan: one of the lane's codes is. By all lanes.
template <class F>
__device__ float code_limb_result_scale(bool nan) {
  const bool any = __any_sync(0xffffffffu, nan);
  return any ? __uint_as_float(0x7fffffffu) : limb_result_scale<F>(code_limbs());
}

}  // namespace mantissa::cuda
