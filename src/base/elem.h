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

// The value of a code (its low bits() bits); NaN and infinities as doubles. Exact.
double decode(const Elem& elem, uint32_t code);
// The code nearest to value, ties to even mantissa. Saturates to the largest finite magnitude: also
// infinities, except in formats that have them (f32, f16, bf16, e5m2), where a value that rounds
// beyond the largest finite becomes infinity unless `saturate`. NaN: the format's NaN; formats
// without one throw Error. -0 where the format has it. Unsigned: negative values become 0.
uint32_t encode(const Elem& elem, double value, bool saturate = true);

double max_value(const Elem& elem);      // largest finite
double min_value(const Elem& elem);      // most negative: -max_value, or -2^(b-1) of an integer
double min_subnormal(const Elem& elem);  // smallest positive; 1 for integers

// The run dtypes' conversions, inline because kernels' host code uses them everywhere.
// bf16: round to nearest even; NaN stays NaN (quiet).
constexpr float f32_from_bf16(uint16_t code) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(code) << 16);
}
constexpr uint16_t bf16_from_f32(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
float f32_from_f16(uint16_t code);
uint16_t f16_from_f32(float value);  // round to nearest even; overflow becomes infinity

}  // namespace mantissa
