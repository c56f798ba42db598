// Number formats of one element, described by their bit fields; sizes, limits and conversions
// follow from them. The only place that lists element formats. Not here: scales and blocks
// (quant/scheme.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace mantissa {

enum class ElemKind : uint8_t { kFloat, kSigned, kUnsigned };

// Which codes are NaN.
enum class NanCodes : uint8_t {
  kNone,
  kIeee,     // exponent all ones, mantissa non-zero (infinity where it is zero)
  kTop,      // exponent and mantissa all ones (e4m3fn, e8m0)
  kNegZero,  // the code of -0 (fnuz formats, which have one zero)
};

struct Elem {
  std::string_view name;
  ElemKind kind = ElemKind::kFloat;
  int exp_bits = 0, man_bits = 0;  // an integer has man_bits value bits and no exponent
  int bias = 0;
  NanCodes nan = NanCodes::kNone;  // kIeee implies infinities; no other row has them
  bool has_sign = true;            // for integers: two's complement

  constexpr int bits() const { return exp_bits + man_bits + (has_sign ? 1 : 0); }
  constexpr bool is_float() const { return kind == ElemKind::kFloat; }
  constexpr bool operator==(const Elem& other) const { return name == other.name; }
};

// clang-format off
//                                name        kind                  exp man bias nan
inline constexpr Elem kF32     {"f32",        ElemKind::kFloat,     8, 23, 127, NanCodes::kIeee};
inline constexpr Elem kF16     {"f16",        ElemKind::kFloat,     5, 10,  15, NanCodes::kIeee};
inline constexpr Elem kBF16    {"bf16",       ElemKind::kFloat,     8,  7, 127, NanCodes::kIeee};
inline constexpr Elem kE4M3    {"e4m3fn",     ElemKind::kFloat,     4,  3,   7, NanCodes::kTop};      // OCP OFP8
inline constexpr Elem kE5M2    {"e5m2",       ElemKind::kFloat,     5,  2,  15, NanCodes::kIeee};     // OCP OFP8
inline constexpr Elem kE4M3Fnuz{"e4m3fnuz",   ElemKind::kFloat,     4,  3,   8, NanCodes::kNegZero};  // MI300
inline constexpr Elem kE5M2Fnuz{"e5m2fnuz",   ElemKind::kFloat,     5,  2,  16, NanCodes::kNegZero};
inline constexpr Elem kE8M0    {"e8m0",       ElemKind::kFloat,     8,  0, 127, NanCodes::kTop, false};  // OCP MX scale
inline constexpr Elem kE3M2    {"e3m2",       ElemKind::kFloat,     3,  2,   3, NanCodes::kNone};     // OCP MX FP6
inline constexpr Elem kE2M3    {"e2m3",       ElemKind::kFloat,     2,  3,   1, NanCodes::kNone};
inline constexpr Elem kE2M1    {"e2m1",       ElemKind::kFloat,     2,  1,   1, NanCodes::kNone};     // OCP MX FP4
inline constexpr Elem kInt[8] = {
    {"int1", ElemKind::kSigned, 0, 0}, {"int2", ElemKind::kSigned, 0, 1}, {"int3", ElemKind::kSigned, 0, 2},
    {"int4", ElemKind::kSigned, 0, 3}, {"int5", ElemKind::kSigned, 0, 4}, {"int6", ElemKind::kSigned, 0, 5},
    {"int7", ElemKind::kSigned, 0, 6}, {"int8", ElemKind::kSigned, 0, 7}};
inline constexpr Elem kUint[8] = {
    {"uint1", ElemKind::kUnsigned, 0, 1, 0, NanCodes::kNone, false}, {"uint2", ElemKind::kUnsigned, 0, 2, 0, NanCodes::kNone, false},
    {"uint3", ElemKind::kUnsigned, 0, 3, 0, NanCodes::kNone, false}, {"uint4", ElemKind::kUnsigned, 0, 4, 0, NanCodes::kNone, false},
    {"uint5", ElemKind::kUnsigned, 0, 5, 0, NanCodes::kNone, false}, {"uint6", ElemKind::kUnsigned, 0, 6, 0, NanCodes::kNone, false},
    {"uint7", ElemKind::kUnsigned, 0, 7, 0, NanCodes::kNone, false}, {"uint8", ElemKind::kUnsigned, 0, 8, 0, NanCodes::kNone, false}};
// clang-format on
constexpr const Elem& int_elem(int bits) {
  return kInt[bits - 1];
}  // bits in 1..8
constexpr const Elem& uint_elem(int bits) {
  return kUint[bits - 1];
}  // bits in 1..8

// Every row above, for tests, help and look-up.
std::span<const Elem* const> all_elems();
// nullptr where there is none of that name.
const Elem* find_elem(std::string_view name);

// The code nearest to value, ties to even mantissa. Saturates to the largest finite magnitude: also
// infinities, except in formats that have them (f32, f16, bf16, e5m2), where a value that rounds
// beyond the largest finite becomes infinity unless `saturate`. NaN: the format's quiet NaN, sign
// kept; formats without one throw Error. -0 where the format has it. Unsigned: negative values
// become 0 (e8m0, which has no zero: its least power of two). The result has no bits above bits().
uint32_t encode(const Elem& elem, double value, bool saturate = true);

// 2^exponent, -1022 <= exponent <= 1023.
constexpr double pow2(int exponent) {
  return __builtin_bit_cast(double, static_cast<uint64_t>(exponent + 1023) << 52);
}
// The low bits() bits set: every code's mask.
constexpr uint32_t code_mask(const Elem& elem) {
  return static_cast<uint32_t>((uint64_t{1} << elem.bits()) - 1);
}
// The code of the largest finite value.
constexpr uint32_t max_code(const Elem& elem) {
  const uint32_t top = code_mask(elem) >> (elem.has_sign ? 1 : 0);
  if (elem.nan == NanCodes::kIeee) return top - (1u << elem.man_bits);
  return elem.nan == NanCodes::kTop ? top - 1 : top;
}
constexpr bool is_nan_code(const Elem& elem, uint32_t code) {
  const uint32_t sign = elem.has_sign ? (code_mask(elem) >> 1) + 1 : 0;
  const uint32_t magnitude = code & code_mask(elem) & ~sign;
  switch (elem.nan) {
    case NanCodes::kNone:
      return false;
    case NanCodes::kIeee:
      return magnitude > max_code(elem) + 1;
    case NanCodes::kTop:
      return magnitude == max_code(elem) + 1;
    case NanCodes::kNegZero:
      return (code & code_mask(elem)) == sign;
  }
  return false;
}
// The value of a code (its low bits() bits); NaN and infinities as doubles. Exact.
constexpr double decode(const Elem& elem, uint32_t code) {
  code &= code_mask(elem);
  const uint32_t sign = elem.has_sign ? (code_mask(elem) >> 1) + 1 : 0;
  const bool negative = (code & sign) != 0;
  if (!elem.is_float()) return static_cast<double>(code) - (negative ? 2.0 * sign : 0.0);
  const uint32_t magnitude = code & ~sign;
  double value = 0;
  if (is_nan_code(elem, code)) {
    value = __builtin_nan("");
    return negative && elem.nan != NanCodes::kNegZero ? -value : value;
  }
  const int exponent = static_cast<int>(magnitude >> elem.man_bits);
  const uint32_t fraction = magnitude & ((1u << elem.man_bits) - 1);
  if (elem.nan == NanCodes::kIeee && magnitude > max_code(elem)) {
    value = __builtin_inf();
  } else if (exponent == 0 && elem.man_bits > 0) {  // e8m0 has no subnormals and no zero
    value = fraction * pow2(1 - elem.bias - elem.man_bits);
  } else {
    value = (fraction + (1u << elem.man_bits)) * pow2(exponent - elem.bias - elem.man_bits);
  }
  return negative ? -value : value;
}

// Largest finite value.
constexpr double max_value(const Elem& elem) {
  return decode(elem, max_code(elem));
}
// Most negative: -max_value, or -2^(b-1) of an integer; 0 of unsigned integers, the least power of
// two of e8m0.
constexpr double min_value(const Elem& elem) {
  if (!elem.has_sign) return decode(elem, 0);
  return elem.is_float() ? -max_value(elem) : -max_value(elem) - 1;
}
// Smallest positive; 1 for integers.
constexpr double min_subnormal(const Elem& elem) {
  return elem.is_float() ? decode(elem, elem.man_bits > 0 ? 1 : 0) : 1;
}

static_assert(max_value(kE4M3) == 448 && min_subnormal(kE4M3) == 0x1p-9);  // OCP OFP8 rev 1.0
static_assert(max_value(kE5M2) == 57344 && max_value(kE4M3Fnuz) == 240);
static_assert(max_value(kE2M1) == 6 && max_value(kE2M3) == 7.5 &&
              max_value(kE3M2) == 28);  // OCP MX
static_assert(max_value(kE8M0) == 0x1p127 && min_subnormal(kE8M0) == 0x1p-127);
static_assert(min_value(kInt[7]) == -128 && max_value(kUint[3]) == 15 && min_value(kInt[0]) == -1);

// The run dtypes' conversions, inline because everything uses them, and written so that loops over
// them vectorize. Round to nearest even; overflow becomes infinity; NaN stays NaN (quiet).
constexpr float f32_from_bf16(uint16_t code) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(code) << 16);
}
constexpr uint16_t bf16_from_f32(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = static_cast<int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  return static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40u : rounded);
}
constexpr float f32_from_f16(uint16_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(code & 0x7fffu) << 13;
  const int32_t exponent = static_cast<int32_t>(magnitude & 0x0f800000u);
  const uint32_t normal = magnitude + (112u << 23);  // from bias 15 to bias 127
  const uint32_t quiet = static_cast<int32_t>(magnitude) > 0x0f800000 ? 0x400000u : 0u;  // NaN
  // 2^-14 + fraction 2^-24, less 2^-14: the subnormals, exactly.
  const float small = __builtin_bit_cast(float, magnitude + (113u << 23)) - 0x1p-14f;
  uint32_t bits = exponent == 0 ? __builtin_bit_cast(uint32_t, small) : normal;
  bits = exponent == 0x0f800000 ? (magnitude + (224u << 23)) | quiet : bits;
  return __builtin_bit_cast(float, bits | sign);
}
constexpr uint16_t f16_from_f32(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const int32_t ordered = static_cast<int32_t>(magnitude);
  const uint32_t normal = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  // Adding 0.5 leaves units of 2^-24, f16's subnormal step, rounded by the hardware.
  const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
  const uint32_t small = __builtin_bit_cast(uint32_t, shifted) - 0x3f000000u;
  uint32_t code = ordered < (113 << 23) ? small : normal;
  code = ordered >= 0x477ff000 ? 0x7c00u : code;  // 65520 and above
  code = ordered > 0x7f800000 ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : code;
  return static_cast<uint16_t>(code | sign);
}

}  // namespace mantissa
