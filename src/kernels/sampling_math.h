// The arithmetic of sampling, one source for host and device: float32 operations that round alike
// everywhere (no contraction) and sums of integers, so that neither order nor machine matters.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/random.h"
#include "kernels/sampling.h"

namespace mantissa::sampling {

// e^x for x <= 0, relative error below 2e-7; 0 below -87. Cody-Waite reduction to |r| <= ln2 / 2,
// then the Taylor series to r^7.
constexpr float exp_negative(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  const float clamped = x > -87.0f ? x : -87.0f;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t power = (std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound)) << 23;
  const float value = std::bit_cast<float>(std::bit_cast<int32_t>(p) + power);
  return x > -87.0f ? value : 0.0f;
}

// Of a logit beside the highest one; factor is 1 / temperature.
constexpr float weight_of(float logit, float max, float factor) {
  return exp_negative((logit - max) * factor);
}

// A weight in fixed point. 2^39 for each of up to kVocabMax tokens fits into 64 bits, and each
// third of 13 bits, summed over as many, into 32.
constexpr float kMassOne = 0x1p39f;
constexpr uint64_t mass_of(float weight) {
  return static_cast<uint64_t>(weight * kMassOne);
}

// Mass that the likeliest tokens must reach to be kept by top-p: at least 1, at most `total`.
constexpr uint64_t top_p_mass(double top_p, uint64_t total) {
  const double wanted = top_p * static_cast<double>(total);
  auto mass = static_cast<uint64_t>(wanted);
  if (static_cast<double>(mass) < wanted) ++mass;
  return mass < 1 ? 1 : mass < total ? mass : total;
}
// The mass that the chosen token is the first to exceed, of `total` > 0.
constexpr uint64_t share_of(uint64_t seed, int64_t position, uint64_t total) {
  const double u = random_uniform(seed, static_cast<uint64_t>(position));
  const auto share = static_cast<uint64_t>(u * static_cast<double>(total));
  return share < total ? share : total - 1;
}

constexpr float penalized(float logit, float penalty) {
  return logit > 0 ? logit / penalty : logit * penalty;
}
constexpr bool seen(const uint32_t* bits, int64_t id) {
  return (bits[id / 32] >> (id % 32) & 1) != 0;
}

// Draws over the whole vocabulary go in order of id, filtered ones from the best token on.
constexpr bool draws_from_all(const SampleParams& p) {
  return p.top_p >= 1 && p.top_k <= 0 && p.min_p == 0;
}

}  // namespace mantissa::sampling
