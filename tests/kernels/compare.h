// Comparisons of computed matrices with float64 references: per-element bounds, RMS, bit equality.
// The bounds themselves are computed by each test from K, the unit roundoffs and the data.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/elem.h"
#include "base/view.h"

namespace mantissa::compare {

// Half the distance from 1 to the next value of a float format.
inline double unit_roundoff(const Elem& elem) {
  return std::ldexp(1.0, -(elem.man_bits + 1));
}

inline double value_at(ConstView m, int64_t r, int64_t c) {
  uint32_t code = 0;
  std::memcpy(&code, m.row(r) + c * m.elem_bytes(), static_cast<size_t>(m.elem_bytes()));
  return decode(*m.elem, code);
}

// `value` rounded once to nearest even; overflow becomes infinity.
inline double rounded(const Elem& elem, double value) {
  return decode(elem, encode(elem, value, /*saturate=*/false));
}

// The worst element: |got - want| / bound. A NaN is infinitely far; a bound of 0 asks for equality.
struct Worst {
  double ratio = 0;
  int64_t row = -1, col = -1;
  double got = 0, want = 0, bound = 0;
};
inline double ratio_of(double got, double want, double bound) {
  const double gap = std::abs(got - want);
  if (got == want) return 0;
  if (!(gap >= 0) || !(bound > 0)) return std::numeric_limits<double>::infinity();
  return gap / bound;
}
// want and bound: [rows, cols], dense.
inline Worst worst_of(ConstView got, const std::vector<double>& want,
                      const std::vector<double>& bound) {
  Worst worst;
  for (int64_t r = 0; r < got.rows; ++r) {
    for (int64_t c = 0; c < got.cols; ++c) {
      const auto i = static_cast<size_t>(r * got.cols + c);
      const double value = value_at(got, r, c);
      const double ratio = ratio_of(value, want[i], bound[i]);
      if (ratio > worst.ratio) worst = {ratio, r, c, value, want[i], bound[i]};
    }
  }
  return worst;
}
inline ::testing::AssertionResult within(ConstView got, const std::vector<double>& want,
                                         const std::vector<double>& bound) {
  const Worst w = worst_of(got, want, bound);
  if (w.ratio <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "row " << w.row << " col " << w.col << ": " << w.got << ", want " << w.want
         << " within " << w.bound << " (" << w.ratio << " times the bound)";
}

// Same elements, bit for bit.
inline ::testing::AssertionResult bit_equal(ConstView a, ConstView b) {
  if (a.rows != b.rows || a.cols != b.cols || !(*a.elem == *b.elem))
    return ::testing::AssertionFailure() << "shapes or formats differ";
  const auto bytes = static_cast<size_t>(a.elem_bytes());
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const int64_t at = c * a.elem_bytes();
      if (std::memcmp(a.row(r) + at, b.row(r) + at, bytes) == 0) continue;
      return ::testing::AssertionFailure() << "row " << r << " col " << c << ": "
                                           << value_at(a, r, c) << " and " << value_at(b, r, c);
    }
  }
  return ::testing::AssertionSuccess();
}

// Root mean square of got - want, and of want.
struct Rms {
  double error = 0, value = 0;
};
inline Rms rms_of(ConstView got, const std::vector<double>& want) {
  Rms rms;
  for (int64_t r = 0; r < got.rows; ++r) {
    for (int64_t c = 0; c < got.cols; ++c) {
      const double w = want[static_cast<size_t>(r * got.cols + c)];
      const double gap = value_at(got, r, c) - w;
      rms.error += gap * gap;
      rms.value += w * w;
    }
  }
  const double count = static_cast<double>(got.rows) * static_cast<double>(got.cols);
  return {std::sqrt(rms.error / count), std::sqrt(rms.value / count)};
}

}  // namespace mantissa::compare
