// Bulk and fast conversions between float32 and the storage formats. Same results as encode() and
// decode() of base/elem.h, in loops that vectorize without intrinsics.
#pragma once

#include <array>
#include <cstdint>

#include "base/view.h"

namespace mantissa {

// out = x, exactly; x is f32, f16 or bf16 of the same shape.
void to_f32(ConstView x, Matrix<float> out);
// out = x rounded to nearest even to f32, f16 or bf16; overflow becomes infinity.
void from_f32(Matrix<const float> x, View out);

// The run dtypes as a number, for code that devices compile too.
enum class RunDtype : uint8_t { kF32, kF16, kBF16 };
RunDtype run_dtype_of(const Elem& elem);
// x rounded to a run dtype and back; overflow becomes infinity.
constexpr float round_to(RunDtype dtype, float x) {
  if (dtype == RunDtype::kBF16) return f32_from_bf16(bf16_from_f32(x));
  return dtype == RunDtype::kF16 ? f32_from_f16(f16_from_f32(x)) : x;
}
inline float round_to(const Elem& dtype, float x) {
  return round_to(run_dtype_of(dtype), x);
}

// The values of all codes of a format of at most 8 bits, indexed by the code (bits above bits() are
// ignored).
std::array<float, 256> decode_table(const Elem& elem);

// encode() of a float format of at most 8 bits with a sign, saturating, for finite values and
// infinities (NaN gives the largest magnitude: replace it first). E is a row of base/elem.h.
template <const Elem& E>
constexpr uint8_t encode_fast(float value) {
  static_assert(E.is_float() && E.has_sign && E.man_bits > 0 && E.bits() <= 8);
  constexpr int32_t kLeastNormal = (128 - E.bias) << 23;  // as float32 bits
  constexpr int kShift = 23 - E.man_bits;
  // Its last place is the format's subnormal step: adding it rounds subnormals in hardware.
  constexpr float kMagic = static_cast<float>(pow2(1 - E.bias + kShift));
  constexpr uint32_t kMagicBits = __builtin_bit_cast(uint32_t, kMagic);
  constexpr uint32_t kRebias = static_cast<uint32_t>(127 - E.bias) << E.man_bits;

  // Both roundings are computed and a mask picks one, and the clamp comes last: compilers turn the
  // natural form into branches and then do not vectorize.
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t m = bits & 0x7fffffffu;
  const uint32_t normal =
      ((m + ((1u << (kShift - 1)) - 1) + ((m >> kShift) & 1u)) >> kShift) - kRebias;
  const uint32_t small =
      __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, m) + kMagic) - kMagicBits;
  const uint32_t is_small = static_cast<int32_t>(m) < kLeastNormal ? ~0u : 0u;
  const auto unclamped = static_cast<int32_t>(normal ^ ((normal ^ small) & is_small));
  constexpr auto kMaxCode = static_cast<int32_t>(max_code(E));
  const auto code = static_cast<uint32_t>(unclamped < kMaxCode ? unclamped : kMaxCode);
  uint32_t sign = (bits >> 31) << (E.bits() - 1);
  if (E.nan == NanCodes::kNegZero) sign = code == 0 ? 0 : sign;
  return static_cast<uint8_t>(code | sign);
}

// decode() of a code that is finite, of the same formats.
template <const Elem& E>
constexpr float decode_fast(uint8_t code) {
  static_assert(E.is_float() && E.has_sign && E.man_bits > 0 && E.bits() <= 8);
  constexpr uint32_t kSign = 1u << (E.bits() - 1);
  constexpr float kRebias = static_cast<float>(pow2(127 - E.bias));
  const uint32_t field = (code & (kSign - 1)) << (23 - E.man_bits);
  const float magnitude = __builtin_bit_cast(float, field) * kRebias;  // exact, also of subnormals
  return (code & kSign) != 0 ? -magnitude : magnitude;
}

// Rounds |value| <= 2^22 to the nearest integer, ties to even: the low bits of the result are its
// two's complement. (1.5 * 2^23 has a last place of 1.)
constexpr uint32_t round_to_int_bits(float value) {
  return __builtin_bit_cast(uint32_t, value + 12582912.0f);
}

}  // namespace mantissa
