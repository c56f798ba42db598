#include "eval/logprob.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr size_t kLanes = 16;           // independent sums, so that the compiler may use vectors
constexpr size_t kFlush = 64 * kLanes;  // elements that float32 lanes sum before float64 takes over

// exp(x) for x <= 0, relative error below 2e-7 down to x = -87; 2^-126 or so below that. Cephes'
// scheme: x = n ln 2 + r, exp(r) by a polynomial (coefficients of Cephes expf), times 2^n.
inline float exp_negative(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t power = std::bit_cast<uint32_t>(shifted) << 23;  // n in the exponent's place
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + power);
}

// term(i) summed over [0, n): float32 in lanes, float64 between blocks. Terms are stored first, so
// that both loops become vector code.
template <class Term>
double sum_over(size_t n, Term term) {
  double total = 0;
  float terms[kFlush];
  for (size_t begin = 0; begin < n; begin += kFlush) {
    const size_t count = std::min(n - begin, kFlush);
    for (size_t i = 0; i < count; ++i) terms[i] = term(begin + i);
    const size_t whole = (count + kLanes - 1) / kLanes * kLanes;
    std::fill(terms + count, terms + whole, 0.0f);
    float lanes[kLanes] = {};
    for (size_t i = 0; i < whole; i += kLanes)
      for (size_t j = 0; j < kLanes; ++j) lanes[j] += terms[i + j];
    for (float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

float max_of(std::span<const float> logits) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t j = 0; j < kLanes; ++j)
      lanes[j] = lanes[j] < logits[i + j] ? logits[i + j] : lanes[j];
  for (size_t j = 0; i < logits.size(); ++i, ++j)
    lanes[j] = lanes[j] < logits[i] ? logits[i] : lanes[j];
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const float* x = logits.data();
  // 0 * infinity and 0 * NaN are NaN, which no sum loses.
  const double finite = sum_over(logits.size(), [x](size_t i) { return x[i] * 0.0f; });
  if (std::isnan(finite)) return std::numeric_limits<double>::quiet_NaN();
  const float max = max_of(logits);
  const double sum =
      sum_over(logits.size(), [x, max](size_t i) { return exp_negative(x[i] - max); });
  return static_cast<double>(max) + std::log(sum);
}

int32_t argmax(std::span<const float> logits) {
  const float max = max_of(logits);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

float top_margin(std::span<const float> logits) {
  float first = -std::numeric_limits<float>::infinity(), second = first;
  for (float x : logits) {
    second = std::max(second, std::min(first, x));
    first = std::max(first, x);
  }
  return first - second;
}

float largest_gap(std::span<const float> a, std::span<const float> b) {
  check(a.size() == b.size(), "largest_gap: rows of one length");
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float gap = std::fabs(a[i + j] - b[i + j]);
      lanes[j] = lanes[j] < gap ? gap : lanes[j];
    }
  }
  float most = *std::max_element(lanes, lanes + kLanes);
  for (; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

double kl_divergence(std::span<const float> base, double base_lse, std::span<const float> logits,
                     double lse) {
  check(base.size() == logits.size(), "kl_divergence: rows of one vocabulary");
  const float *b = base.data(), *x = logits.data();
  const float max = max_of(base);
  // A common offset of the two rows would cancel only at the end; taken off each term, it costs no
  // digits.
  const float offset = static_cast<float>(base_lse - lse);
  const double sum = sum_over(
      base.size(), [=](size_t i) { return exp_negative(b[i] - max) * ((b[i] - x[i]) - offset); });
  const double scale = std::exp(static_cast<double>(max) - base_lse);
  return sum * scale - ((base_lse - lse) - static_cast<double>(offset));
}

}  // namespace mantissa
