#include "base/elem.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr const Elem* kAllElems[] = {
    &kF32,     &kF16,     &kBF16,    &kE4M3,    &kE5M2,    &kE4M3Fnuz, &kE5M2Fnuz,
    &kE8M0,    &kE3M2,    &kE2M3,    &kE2M1,    &kInt[0],  &kInt[1],   &kInt[2],
    &kInt[3],  &kInt[4],  &kInt[5],  &kInt[6],  &kInt[7],  &kUint[0],  &kUint[1],
    &kUint[2], &kUint[3], &kUint[4], &kUint[5], &kUint[6], &kUint[7],
};

uint32_t encode_nan(const Elem& elem, bool negative) {
  const uint32_t sign = elem.has_sign ? (code_mask(elem) >> 1) + 1 : 0;
  switch (elem.nan) {
    case NanCodes::kIeee:
      return (max_code(elem) + 1 + (1u << (elem.man_bits - 1))) | (negative ? sign : 0);
    case NanCodes::kTop:
      return (max_code(elem) + 1) | (negative ? sign : 0);
    case NanCodes::kNegZero:
      return sign;
    case NanCodes::kNone:
      break;
  }
  throw Error(text("NaN has no code in ", elem.name), "replace NaN before converting");
}

uint32_t encode_integer(const Elem& elem, double value) {
  const double rounded = std::nearbyint(value);
  if (!(rounded > min_value(elem)))
    value = min_value(elem);
  else if (!(rounded < max_value(elem)))
    value = max_value(elem);
  else
    value = rounded;
  return static_cast<uint32_t>(static_cast<int64_t>(value)) & code_mask(elem);
}

// The code of a positive finite value, not saturated: may lie beyond max_code.
uint64_t encode_magnitude(const Elem& elem, double value) {
  const bool zeroless = elem.man_bits == 0;  // e8m0: no subnormals; the least value stands for 0
  const int least = zeroless ? -elem.bias : 1 - elem.bias;  // exponent of the least normal
  const int exponent = std::max(std::ilogb(value), least);
  // In units of the last place: below 2^man_bits a subnormal, 2^(man_bits + 1) the next exponent;
  // adding to the exponent field is right for all of them.
  const auto units =
      static_cast<uint64_t>(std::nearbyint(std::ldexp(value, elem.man_bits - exponent)));
  const auto field = static_cast<uint64_t>(exponent - least);
  if (zeroless) return units == 0 ? 0 : field + units - 1;
  return (field << elem.man_bits) + units;
}

}  // namespace

std::span<const Elem* const> all_elems() {
  return kAllElems;
}

const Elem* find_elem(std::string_view name) {
  for (const Elem* elem : kAllElems)
    if (elem->name == name) return elem;
  return nullptr;
}

uint32_t encode(const Elem& elem, double value, bool saturate) {
  const bool negative = std::signbit(value);
  if (std::isnan(value)) return encode_nan(elem, negative);
  if (!elem.is_float()) return encode_integer(elem, value);
  if (negative && !elem.has_sign) return 0;
  const double magnitude = std::fabs(value);
  uint64_t code = 0;
  if (std::isinf(magnitude)) {
    code = uint64_t{max_code(elem)} + 1;
  } else if (magnitude > 0) {
    code = encode_magnitude(elem, magnitude);
  }
  if (code > max_code(elem)) {
    const bool infinity = elem.nan == NanCodes::kIeee && !saturate;
    code = infinity ? max_code(elem) + 1 : max_code(elem);
  }
  if (negative && !(code == 0 && elem.nan == NanCodes::kNegZero))
    code |= (code_mask(elem) >> 1) + 1;
  return static_cast<uint32_t>(code);
}

}  // namespace mantissa
