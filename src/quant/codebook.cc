#include "quant/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

constexpr int kLloydSteps = 20;

double middle(double low, double high) {
  return low + (high - low) / 2;
}

// Entries and how many of the sorted values lie below the middle after each.
struct Clusters {
  std::vector<double> entries;
  std::vector<size_t> ends;

  // Middles move little in a step, so walking from the old ends beats searching.
  void assign(std::span<const double> sorted) {
    for (size_t j = 0; j + 1 < entries.size(); ++j) {
      const double border = middle(entries[j], entries[j + 1]);
      size_t& end = ends[j];
      while (end > 0 && sorted[end - 1] > border) --end;
      while (end < sorted.size() && sorted[end] <= border) ++end;
    }
    ends.back() = sorted.size();
  }
  // Moves the entries to their clusters' means; sums[i] is the sum of the first i values. True when
  // none moved.
  bool settle(std::span<const double> sums) {
    bool settled = true;
    size_t first = 0;
    for (size_t j = 0; j < entries.size(); ++j) {
      if (ends[j] <= first) continue;  // nothing is nearest to it: it stays
      const double mean = (sums[ends[j]] - sums[first]) / static_cast<double>(ends[j] - first);
      settled = settled && mean == entries[j];
      entries[j] = mean;
      first = ends[j];
    }
    return settled;
  }
};

// The largest float that is not above `value`: x > value means the same as x > it, for a float x.
float float_below(double value) {
  const auto rounded = static_cast<float>(value);
  const bool above = static_cast<double>(rounded) > value;
  return above ? std::nextafter(rounded, -std::numeric_limits<float>::infinity()) : rounded;
}

}  // namespace

void fit_codebook(std::span<const float> x, std::span<float> entries, std::span<uint8_t> codes) {
  check(x.size() == codes.size() && !entries.empty(), "fit_codebook: one code a value");
  std::vector<double> sorted;
  for (const float v : x)
    if (std::isfinite(v)) sorted.push_back(v + 0.0);  // -0 becomes +0: sorting knows one zero
  std::ranges::sort(sorted);
  std::vector<double> sums(sorted.size() + 1, 0.0);
  Clusters clusters{std::vector<double>(entries.size(), 0.0), std::vector<size_t>(entries.size())};
  for (size_t i = 0; i < sorted.size(); ++i) sums[i + 1] = sums[i] + sorted[i];
  if (!sorted.empty()) {
    const size_t k = entries.size();
    for (size_t j = 0; j < k; ++j) {
      const size_t quantile = (2 * j + 1) * sorted.size() / (2 * k);
      clusters.entries[j] = sorted[quantile];
      clusters.ends[j] = quantile;
    }
    for (int i = 0; i < kLloydSteps; ++i) {
      clusters.assign(sorted);
      if (clusters.settle(sums)) break;
    }
    std::ranges::sort(clusters.entries);
  }
  std::ranges::fill(codes, uint8_t{0});
  for (size_t j = 0; j < entries.size(); ++j) {
    entries[j] = static_cast<float>(decode(kBF16, encode(kBF16, clusters.entries[j])));
    if (j == 0) continue;
    const float border = float_below(middle(entries[j - 1], entries[j]));
    for (size_t i = 0; i < x.size(); ++i)
      codes[i] = static_cast<uint8_t>(codes[i] + (x[i] > border));
  }
}

}  // namespace mantissa
