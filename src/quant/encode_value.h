// Codes of single values, constexpr like formulas.h: loops over rows (encode_rows.cc) and devices'
// kernels share them.
#pragma once

#include <cstdint>

#include "base/convert.h"
#include "quant/formulas.h"

namespace mantissa {

// Code units -> the code, which is in the low bits.
template <const Elem& E>
struct FloatEncoder {
  constexpr uint8_t operator()(float units) const { return encode_fast<E>(units); }
};
struct IntEncoder {
  float lo, hi;         // in code units less the zero point
  uint32_t zero, mask;  // added to the rounded value; of the code

  // |zero| <= 2^20: round_to_int_bits() is exact up to 2^22.
  constexpr IntEncoder(const RecipeInput& in, int32_t zero_point)
      : lo(static_cast<float>(in.lowest - zero_point)),
        hi(static_cast<float>(in.highest - zero_point)),
        zero(static_cast<uint32_t>(zero_point)),
        mask((1u << in.bits) - 1) {}
  constexpr uint8_t operator()(float units) const {
    float v = units < lo ? lo : units;
    v = v > hi ? hi : v;
    return static_cast<uint8_t>((round_to_int_bits(v) + zero) & mask);
  }
};

// body(encoder) with the encoder of in.encoder.
template <class Body>
constexpr void with_encoder(const RecipeInput& in, int32_t zero, const Body& body) {
  switch (in.encoder) {
    case Encoder::kInt:
      return body(IntEncoder(in, zero));
    case Encoder::kE4M3:
      return body(FloatEncoder<kE4M3>{});
    case Encoder::kE5M2:
      return body(FloatEncoder<kE5M2>{});
    case Encoder::kE4M3Fnuz:
      return body(FloatEncoder<kE4M3Fnuz>{});
    case Encoder::kE5M2Fnuz:
      return body(FloatEncoder<kE5M2Fnuz>{});
    case Encoder::kE2M1:
      return body(FloatEncoder<kE2M1>{});
    case Encoder::kE2M3:
      return body(FloatEncoder<kE2M3>{});
    case Encoder::kE3M2:
      return body(FloatEncoder<kE3M2>{});
  }
}

constexpr bool divides(Apply apply) {
  return apply == Apply::kDivide || apply == Apply::kDivideRounded;
}
constexpr bool rounds_units(Apply apply) {
  return apply == Apply::kDivideRounded || apply == Apply::kMultiplyRounded;
}
constexpr float to_units(bool divide, float value, float factor) {
  return divide ? value / factor : value * factor;
}
// In the run dtype, zero point included: the codes of these have none.
constexpr float rounded_units(const RecipeInput& in, bool divide, const BlockScale& scale,
                              float value) {
  const float units = round_to(in.run_dtype, to_units(divide, value, scale.factor));
  if (scale.zero == 0) return units;
  return round_to(in.run_dtype, units + static_cast<float>(scale.zero));
}

// ModelOpt's MXFP4 cast: counts the bounds that |units| exceeds, so ties go towards zero; a value
// of 0 takes the code of -0.
constexpr uint8_t encode_ties_down(float units) {
  const float m = units < 0 ? -units : units;
  const int bounds =
      (m > 0.25f) + (m > 0.75f) + (m > 1.25f) + (m > 1.75f) + (m > 2.5f) + (m > 3.5f) + (m > 5.0f);
  return static_cast<uint8_t>((units > 0 ? 0 : 8) + bounds);
}

// A finite value that clamping moves by a step or more.
constexpr bool saturates(const RecipeInput& in, Apply apply, const BlockScale& scale, float value) {
  const double units =
      to_units(divides(apply), value, scale.factor) + static_cast<double>(scale.zero);
  return units >= in.saturated_above || units <= in.saturated_below;
}

}  // namespace mantissa
