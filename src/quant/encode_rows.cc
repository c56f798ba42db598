#include "quant/encode_rows.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/encode_value.h"

namespace mantissa {
namespace {

int32_t magnitude_bits(float value) {
  return static_cast<int32_t>(__builtin_bit_cast(uint32_t, value) & 0x7fffffffu);
}

// The loops below vectorize: the encoder's type is known in each.
void encode_units(const RecipeInput& in, bool divide, const BlockScale& scale,
                  std::span<const float> x, uint8_t* codes) {
  const float factor = scale.factor;
  const float* values = x.data();
  const auto n = static_cast<int64_t>(x.size());
  with_encoder(in, scale.zero, [&](const auto encoder) {
    if (divide) {
      for (int64_t i = 0; i < n; ++i) codes[i] = encoder(to_units(true, values[i], factor));
    } else {
      for (int64_t i = 0; i < n; ++i) codes[i] = encoder(to_units(false, values[i], factor));
    }
  });
}

void encode_rounded(const RecipeInput& in, bool divide, const BlockScale& scale,
                    std::span<const float> x, uint8_t* codes) {
  constexpr size_t kChunk = 256;
  std::array<float, kChunk> units;
  for (size_t at = 0; at < x.size(); at += kChunk) {
    const size_t n = std::min(kChunk, x.size() - at);
    for (size_t i = 0; i < n; ++i) units[i] = rounded_units(in, divide, scale, x[at + i]);
    encode_units(in, false, BlockScale{}, {units.data(), n}, codes + at);
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

void encode_row(const RecipeInput& in, const RecipeRow& recipe, const BlockScale& scale,
                std::span<const float> x, std::span<uint8_t> codes) {
  check(x.size() == codes.size(), "encode_row: one code a value");
  constexpr int32_t kZeroMost = 1 << 20;
  check(-kZeroMost <= scale.zero && scale.zero <= kZeroMost, "a zero point of at most 2^20");
  const bool divide = divides(recipe.apply);
  if (recipe.ties_down) {
    std::ranges::transform(x, codes.begin(), [&](float v) {
      return encode_ties_down(to_units(divide, v, scale.factor));
    });
    return;
  }
  if (rounds_units(recipe.apply)) return encode_rounded(in, divide, scale, x, codes.data());
  encode_units(in, divide, scale, x, codes.data());
}

int64_t count_saturated(const RecipeInput& in, const RecipeRow& recipe, const BlockScale& scale,
                        std::span<const float> x) {
  const auto beyond = [&](float v) { return saturates(in, recipe.apply, scale, v); };
  const float amax = finite_amax(x);
  if (!beyond(amax) && !beyond(-amax)) return 0;
  return std::ranges::count_if(x, [&](float v) { return std::isfinite(v) && beyond(v); });
}

}  // namespace mantissa
