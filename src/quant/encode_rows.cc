#include "quant/encode_rows.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

int32_t magnitude_bits(float value) {
  return static_cast<int32_t>(__builtin_bit_cast(uint32_t, value) & 0x7fffffffu);
}

struct IntRange {
  float lo, hi;   // in code units less the zero point
  uint32_t zero;  // added to the rounded value
  uint32_t mask;  // of the code
};
IntRange int_range(const Elem& elem, int32_t zero) {
  constexpr int32_t kZeroMost = 1 << 20;  // round_to_int_bits() is exact up to 2^22
  check(-kZeroMost <= zero && zero <= kZeroMost, "a zero point of at most 2^20");
  const auto shift = static_cast<double>(zero);
  return {static_cast<float>(min_value(elem) - shift), static_cast<float>(max_value(elem) - shift),
          static_cast<uint32_t>(zero), code_mask(elem)};
}

template <bool kDivide>
float to_units(float value, float factor) {
  return kDivide ? value / factor : value * factor;
}

template <bool kDivide>
void encode_ints(const Elem& elem, const BlockScale& scale, std::span<const float> x,
                 uint8_t* codes) {
  const IntRange range = int_range(elem, scale.zero);
  const float factor = scale.factor;
  const float* values = x.data();
  const auto n = static_cast<int64_t>(x.size());
  for (int64_t i = 0; i < n; ++i) {
    float v = to_units<kDivide>(values[i], factor);
    v = v < range.lo ? range.lo : v;
    v = v > range.hi ? range.hi : v;
    codes[i] = static_cast<uint8_t>((round_to_int_bits(v) + range.zero) & range.mask);
  }
}

template <const Elem& E, bool kDivide>
void encode_floats(const BlockScale& scale, std::span<const float> x, uint8_t* codes) {
  const float factor = scale.factor;
  const float* values = x.data();
  const auto n = static_cast<int64_t>(x.size());
  for (int64_t i = 0; i < n; ++i) codes[i] = encode_fast<E>(to_units<kDivide>(values[i], factor));
}

struct FloatEncoder {
  const Elem& elem;
  void (*divide)(const BlockScale&, std::span<const float>, uint8_t*);
  void (*multiply)(const BlockScale&, std::span<const float>, uint8_t*);
};
template <const Elem& E>
constexpr FloatEncoder float_encoder() {
  return {E, encode_floats<E, true>, encode_floats<E, false>};
}
constexpr FloatEncoder kFloatEncoders[] = {
    float_encoder<kE4M3>(),     float_encoder<kE5M2>(), float_encoder<kE4M3Fnuz>(),
    float_encoder<kE5M2Fnuz>(), float_encoder<kE2M1>(), float_encoder<kE2M3>(),
    float_encoder<kE3M2>(),
};

void encode_plain(const Elem& elem, bool divide, const BlockScale& scale, std::span<const float> x,
                  uint8_t* codes) {
  if (!elem.is_float()) {
    return divide ? encode_ints<true>(elem, scale, x, codes)
                  : encode_ints<false>(elem, scale, x, codes);
  }
  for (const FloatEncoder& encoder : kFloatEncoders)
    if (encoder.elem == elem) return (divide ? encoder.divide : encoder.multiply)(scale, x, codes);
  check(false, "encode_row: an element with an encoder");
}

// In code units rounded to the run dtype, zero point included; then exact codes of those.
void encode_rounded(const Elem& elem, bool divide, const Elem& run_dtype, const BlockScale& scale,
                    std::span<const float> x, uint8_t* codes) {
  constexpr size_t kChunk = 256;
  std::array<float, kChunk> units;
  for (size_t at = 0; at < x.size(); at += kChunk) {
    const size_t n = std::min(kChunk, x.size() - at);
    for (size_t i = 0; i < n; ++i) {
      const float v = x[at + i];
      units[i] = round_to(run_dtype, divide ? v / scale.factor : v * scale.factor);
      if (scale.zero != 0) {
        units[i] = round_to(run_dtype, units[i] + static_cast<float>(scale.zero));
      }
    }
    encode_plain(elem, false, BlockScale{}, {units.data(), n}, codes + at);
  }
}

// ModelOpt's MXFP4 cast: counts the bounds that |v| exceeds, so ties go towards zero; a value of 0
// takes the code of -0.
void encode_ties_down(const BlockScale& scale, std::span<const float> x, uint8_t* codes) {
  constexpr float kBounds[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};  // of e2m1
  for (size_t i = 0; i < x.size(); ++i) {
    const float v = x[i] * scale.factor;
    uint8_t code = v > 0 ? 0 : 8;
    for (const float bound : kBounds) code = static_cast<uint8_t>(code + (std::fabs(v) > bound));
    codes[i] = code;
  }
}

}  // namespace

int32_t amax_bits(std::span<const float> x) {
  const float* values = x.data();
  const auto n = static_cast<int64_t>(x.size());
  int32_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, magnitude_bits(values[i]));
  return most;
}

float finite_amax(std::span<const float> x) {
  int32_t most = amax_bits(x);
  if (most >= kInfinityBits) {
    most = 0;
    for (const float v : x) {
      const int32_t bits = magnitude_bits(v);
      if (bits < kInfinityBits) most = std::max(most, bits);
    }
  }
  return __builtin_bit_cast(float, most);
}

BlockRange finite_range(std::span<const float> x) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> lo{}, hi{};
  for (size_t at = 0; at < x.size(); at += kLanes) {
    const size_t n = std::min(kLanes, x.size() - at);
    for (size_t i = 0; i < n; ++i) {
      const float v = magnitude_bits(x[at + i]) < kInfinityBits ? x[at + i] : 0.0f;
      lo[i] = v < lo[i] ? v : lo[i];
      hi[i] = v > hi[i] ? v : hi[i];
    }
  }
  BlockRange range;
  for (const float v : lo) range.min = std::min(range.min, v);
  for (const float v : hi) range.max = std::max(range.max, v);
  range.amax = std::max(-range.min, range.max);
  return range;
}

void replace_nan(std::span<const float> x, std::span<float> out, QuantReport& report) {
  for (size_t i = 0; i < x.size(); ++i) {
    const bool nan = std::isnan(x[i]);
    report.nan += nan ? 1 : 0;
    report.inf += std::isinf(x[i]) ? 1 : 0;
    out[i] = nan ? 0.0f : x[i];
  }
}

void encode_row(const Spec& spec, const RecipeRow& recipe, const Elem& run_dtype,
                const BlockScale& scale, std::span<const float> x, std::span<uint8_t> codes) {
  check(x.size() == codes.size(), "encode_row: one code a value");
  const Apply apply = recipe.apply;
  const bool divide = apply == Apply::kDivide || apply == Apply::kDivideRounded;
  if (recipe.ties_down) return encode_ties_down(scale, x, codes.data());
  if (apply == Apply::kDivideRounded || apply == Apply::kMultiplyRounded) {
    return encode_rounded(*spec.elem, divide, run_dtype, scale, x, codes.data());
  }
  encode_plain(*spec.elem, divide, scale, x, codes.data());
}

int64_t count_saturated(const Spec& spec, const RecipeRow& recipe, const BlockScale& scale,
                        std::span<const float> x) {
  const Elem& elem = *spec.elem;
  const double top = max_value(elem);
  const double step = elem.is_float() ? top - decode(elem, max_code(elem) - 1) : 1;
  const double zero = scale.zero;
  const bool divide = recipe.apply == Apply::kDivide || recipe.apply == Apply::kDivideRounded;
  const auto beyond = [&](float v) {
    const double units = (divide ? v / scale.factor : v * scale.factor) + zero;
    return units >= top + step || units <= min_value(elem) - step;
  };
  const float amax = finite_amax(x);
  if (!beyond(amax) && !beyond(-amax)) return 0;
  return std::ranges::count_if(x, [&](float v) { return std::isfinite(v) && beyond(v); });
}

}  // namespace mantissa
