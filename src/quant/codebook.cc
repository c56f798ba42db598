#include "quant/codebook.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

constexpr int kLloydSteps = 20;

// The index of the first value above the middle between two neighbouring entries.
size_t boundary(std::span<const double> sorted, double low, double high) {
  const double middle = low + (high - low) / 2;
  return static_cast<size_t>(std::ranges::upper_bound(sorted, middle) - sorted.begin());
}

// One Lloyd step over sorted values; sums[i] is the sum of the first i. True when nothing moved.
bool step(std::span<const double> sorted, std::span<const double> sums, std::span<double> entries) {
  bool settled = true;
  size_t first = 0;
  std::vector<double> next(entries.begin(), entries.end());
  for (size_t j = 0; j < entries.size(); ++j) {
    const bool last = j + 1 == entries.size();
    const size_t end = last ? sorted.size() : boundary(sorted, entries[j], entries[j + 1]);
    if (end > first) {
      next[j] = (sums[end] - sums[first]) / static_cast<double>(end - first);
      first = end;
    }
    settled = settled && next[j] == entries[j];
  }
  std::ranges::copy(next, entries.begin());
  return settled;
}

}  // namespace

void fit_codebook(std::span<const float> x, std::span<float> entries, std::span<uint8_t> codes) {
  check(x.size() == codes.size() && !entries.empty(), "fit_codebook: one code a value");
  std::vector<double> sorted;
  for (const float v : x)
    if (std::isfinite(v)) sorted.push_back(v + 0.0);  // -0 becomes +0: sorting knows one zero
  std::ranges::sort(sorted);
  std::vector<double> sums(sorted.size() + 1, 0.0), exact(entries.size(), 0.0);
  for (size_t i = 0; i < sorted.size(); ++i) sums[i + 1] = sums[i] + sorted[i];
  if (!sorted.empty()) {
    for (size_t j = 0; j < exact.size(); ++j) {
      exact[j] = sorted[(2 * j + 1) * sorted.size() / (2 * exact.size())];
    }
    for (int i = 0; i < kLloydSteps && !step(sorted, sums, exact); ++i) {
    }
    std::ranges::sort(exact);
  }
  for (size_t j = 0; j < entries.size(); ++j) {
    entries[j] = static_cast<float>(decode(kBF16, encode(kBF16, exact[j])));
  }
  for (size_t i = 0; i < x.size(); ++i) {
    size_t code = 0;  // counts the middles below x[i]
    for (size_t j = 0; j + 1 < entries.size(); ++j) {
      const double low = entries[j], high = entries[j + 1];
      code += static_cast<double>(x[i]) > low + (high - low) / 2 ? 1 : 0;
    }
    codes[i] = static_cast<uint8_t>(code);
  }
}

}  // namespace mantissa
