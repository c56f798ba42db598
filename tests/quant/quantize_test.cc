// What holds for every row of the scheme table: error bounds, NaN and infinities, zero blocks,
// short groups, banding and threads, round trips.
#include "quant/quantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/convert.h"

namespace mantissa {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Every row, and every row with each of its options.
std::vector<Scheme> all_schemes() {
  std::vector<Scheme> out;
  for (const SchemeRow& row : scheme_rows()) {
    out.push_back(parse_scheme(row.name));
    std::string_view options = row.options;
    while (!options.empty()) {
      const size_t comma = options.find(',');
      out.push_back(
          parse_scheme(std::string(row.name) + ":" + std::string(options.substr(0, comma))));
      options = comma == std::string_view::npos ? std::string_view() : options.substr(comma + 1);
    }
  }
  return out;
}

std::vector<float> random_values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) value = round_to(kBF16, normal(random));
  return out;
}

struct Quantized {
  QuantRows rows;
  QuantReport report;
};
Quantized quantize_whole(const Spec& spec, const std::vector<float>& w, int64_t rows,
                         const Elem& dtype = kBF16) {
  const int64_t cols = static_cast<int64_t>(w.size()) / rows;
  const Matrix<const float> x(w.data(), rows, cols);
  WeightQuantizer quantizer(spec, rows, cols, dtype);
  if (quantizer.needs_observe()) quantizer.observe(x);
  Quantized out;
  out.report = quantizer.quantize(0, x, out.rows);
  return out;
}

std::vector<float> dequantized(const QuantRows& q) {
  std::vector<float> out(static_cast<size_t>(q.rows * q.cols));
  dequantize(q, Matrix<float>(out.data(), q.rows, q.cols));
  return out;
}

void expect_same(const QuantRows& a, const QuantRows& b, const std::string& what) {
  EXPECT_EQ(a.codes, b.codes) << what;
  EXPECT_EQ(a.scales, b.scales) << what;
  EXPECT_EQ(a.zero_points, b.zero_points) << what;
  EXPECT_EQ(a.codebook, b.codebook) << what;
  EXPECT_EQ(a.global_scale, b.global_scale) << what;
}

void append(QuantRows& to, const QuantRows& band, bool shared_scale) {
  to.rows += band.rows;
  to.codes.insert(to.codes.end(), band.codes.begin(), band.codes.end());
  if (shared_scale) return;
  to.scales.insert(to.scales.end(), band.scales.begin(), band.scales.end());
  to.zero_points.insert(to.zero_points.end(), band.zero_points.begin(), band.zero_points.end());
  to.codebook.insert(to.codebook.end(), band.codebook.begin(), band.codebook.end());
}

// The step between the representable values around `value`, and what lies beyond the largest.
double step_at(const Elem& elem, double value) {
  if (!elem.is_float()) return 1;
  const double magnitude = std::min(std::fabs(value), max_value(elem));
  const int exponent =
      magnitude > 0 ? std::max(std::ilogb(magnitude), 1 - elem.bias) : 1 - elem.bias;
  return std::ldexp(1, exponent - elem.man_bits);
}

// |w - dequantized| <= half a step of the code's neighbourhood. Three rows may clamp by design:
// symmetric integers below 8 bits reach half a step beyond the top, MX's floor and even rules up to
// a factor 2, NVFP4's block scale is rounded (by up to 1/16).
TEST(Quantize, EveryErrorIsAtMostHalfAStep) {
  const auto w = random_values(130 * 200, 1);
  for (const Scheme& scheme : all_schemes()) {
    const Spec& spec = scheme.weight;
    if (!spec.quantized() || spec.codebook) continue;
    const Quantized q = quantize_whole(spec, w, 130);
    const auto back = dequantized(q.rows);
    const bool mx = *spec.scale == kE8M0;
    const bool down = spec.recipe == Recipe::kFloor || spec.recipe == Recipe::kEven;
    const bool ct = spec.recipe == Recipe::kCompressedTensors || spec.recipe == Recipe::kAutoFp8;
    const double rounding = ct ? 0x1p-8 : 0x1p-20;  // of value / scale to bf16, or float32
    for (size_t i = 0; i < w.size(); ++i) {
      const auto r = static_cast<int64_t>(i) / 200, c = static_cast<int64_t>(i) % 200;
      const int64_t block_rows = spec.block.rows == kAll ? 130 : spec.block.rows;
      const int64_t block_cols = spec.block.cols == kAll ? 200 : spec.block.cols;
      const auto block = static_cast<size_t>(r / block_rows * q.rows.scale_cols() + c / block_cols);
      const double unit = static_cast<double>(q.rows.scales[block]) * q.rows.global_scale;
      const double units = w[i] / unit;
      double bound = step_at(*spec.elem, units) / 2 + std::fabs(units) * rounding;
      if (mx && (down || ct)) bound = std::max(bound, std::fabs(units) - max_value(*spec.elem));
      if (spec.asymmetric || !spec.elem->is_float()) bound += 0.5 + rounding * 256;
      ASSERT_LE(std::fabs(w[i] - back[i]) / unit, bound)
          << scheme.name << ": " << w[i] << " became " << back[i] << ", step " << unit;
    }
    EXPECT_EQ(q.report.nan + q.report.inf + q.report.zero_blocks, 0) << scheme.name;
  }
}

// Relative RMS errors of normally distributed weights: a wrong scale, a swapped block or a lost bit
// is far outside.
TEST(Quantize, RmsErrorsAreThoseOfTheFormats) {
  const auto w = random_values(64 * 1024, 2);
  const struct {
    const char* scheme;
    double least, most;
  } kCases[] = {
      {"bf16", 0, 0},
      {"ptpc_fp8", 0.024, 0.029},
      {"fp8", 0.024, 0.029},
      {"fp8_block", 0.024, 0.029},
      {"int8", 0.006, 0.010},
      {"int4_weight_only", 0.09, 0.13},
      {"int4_weight_only:g32", 0.08, 0.11},
      {"int4_weight_only:asym", 0.08, 0.12},
      {"int6_weight_only", 0.02, 0.03},
      {"mxfp8", 0.024, 0.035},
      {"mxfp6:e2m3", 0.02, 0.04},
      {"mxfp4", 0.09, 0.14},
      {"nvfp4", 0.08, 0.11},
      {"codebook4", 0.08, 0.11},
      {"codebook2", 0.28, 0.36},
  };
  for (const auto& c : kCases) {
    const auto back = dequantized(quantize_whole(parse_scheme(c.scheme).weight, w, 64).rows);
    double error = 0, norm = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      error += (w[i] - back[i]) * (w[i] - back[i]);
      norm += w[i] * w[i];
    }
    const double relative = std::sqrt(error / norm);
    EXPECT_GE(relative, c.least) << c.scheme;
    EXPECT_LE(relative, c.most) << c.scheme;
  }
}

TEST(Quantize, ResultsDoNotDependOnBandsOrThreads) {
  const int64_t rows = 300, cols = 200;
  const auto w = random_values(rows * cols, 3);
  for (const Scheme& scheme : all_schemes()) {
    const Spec& spec = scheme.weight;
    const Quantized whole = quantize_whole(spec, w, rows);
    WeightQuantizer quantizer(spec, rows, cols, kBF16);
    const int64_t band_rows = quantizer.band_multiple() == 1 ? 7 : quantizer.band_multiple();
    const auto band = [&](int64_t row0) {
      return Matrix<const float>(w.data() + row0 * cols, std::min(band_rows, rows - row0), cols);
    };
    const int64_t bands = (rows + band_rows - 1) / band_rows;
    const auto on_threads = [&](auto fn) {
      std::vector<std::thread> threads;
      for (int64_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
          for (int64_t b = t; b < bands; b += 3) fn(b);
        });
      }
      for (std::thread& thread : threads) thread.join();
    };
    if (quantizer.needs_observe()) {
      on_threads([&](int64_t b) { quantizer.observe(band(b * band_rows)); });
    }
    std::vector<QuantRows> parts(static_cast<size_t>(bands));
    on_threads([&](int64_t b) {
      quantizer.quantize(b * band_rows, band(b * band_rows), parts[static_cast<size_t>(b)]);
    });
    QuantRows joined = parts[0];
    const bool shared = spec.quantized() && spec.block.rows == kAll;
    for (size_t b = 1; b < parts.size(); ++b) append(joined, parts[b], shared);
    expect_same(joined, whole.rows, scheme.name);
  }
}

TEST(Quantize, NanAndInfinityAreCountedAndSpoilNothing) {
  const int64_t rows = 4, cols = 160;
  const auto clean = random_values(rows * cols, 4);
  auto dirty = clean;
  auto expected = clean;  // what dirty is quantized like: NaN as 0
  const auto set = [&](size_t at, float value, float like) {
    dirty[at] = value;
    expected[at] = like;
  };
  set(5, kNan, 0);
  set(40, -kNan, 0);
  set(160 + 159, kNan, 0);
  for (size_t c = 0; c < 160; ++c) set(320 + c, kNan, 0);  // a whole row
  for (const Scheme& scheme : all_schemes()) {
    const Spec& spec = scheme.weight;
    const Quantized q = quantize_whole(spec, dirty, rows);
    EXPECT_EQ(q.report.nan, 163) << scheme.name;
    EXPECT_FALSE(q.report.clean());
    if (!spec.quantized()) continue;  // the run dtype keeps NaN
    expect_same(q.rows, quantize_whole(spec, expected, rows).rows, scheme.name);
  }
  dirty = clean;
  dirty[7] = kInfinity;
  dirty[8] = -kInfinity;
  for (const Scheme& scheme : all_schemes()) {
    const Spec& spec = scheme.weight;
    const Quantized q = quantize_whole(spec, dirty, rows);
    EXPECT_EQ(q.report.inf, 2) << scheme.name;
    if (!spec.quantized()) continue;
    auto finite = clean;
    finite[7] = finite[8] = 0;
    const Quantized like = quantize_whole(spec, finite, rows);
    EXPECT_EQ(q.rows.scales, like.rows.scales) << scheme.name << ": infinity is not in the scale";
    if (spec.codebook) continue;
    const uint32_t most = max_code(*spec.elem);
    EXPECT_EQ(q.rows.codes[7], most) << scheme.name;
    EXPECT_EQ(q.rows.codes[8], encode(*spec.elem, min_value(*spec.elem))) << scheme.name;
  }
}

TEST(Quantize, ZeroRowsKeepAFiniteScaleAboveZero) {
  auto w = random_values(3 * 200, 5);
  for (size_t i = 200; i < 400; ++i) w[i] = i % 2 == 0 ? 0.0f : -0.0f;
  std::vector<float> zeros(w.size(), 0.0f);
  for (const Scheme& scheme : all_schemes()) {
    if (!scheme.weight.quantized()) continue;
    const bool own_scale = scheme.weight.block.rows == 1;  // each row
    for (std::vector<float>* input : {&w, &zeros}) {
      const Quantized q = quantize_whole(scheme.weight, *input, 3);
      for (const float scale : q.rows.scales) {
        EXPECT_GT(scale, 0) << scheme.name;
        EXPECT_TRUE(std::isfinite(scale)) << scheme.name;
      }
      const auto back = dequantized(q.rows);
      for (size_t i = 200; i < 400; ++i) EXPECT_EQ(back[i], 0) << scheme.name << " at " << i;
      if (own_scale) {
        EXPECT_EQ(q.report.zero_blocks, (input == &w ? 1 : 3) * q.rows.scale_cols()) << scheme.name;
      } else {
        EXPECT_EQ(q.report.zero_blocks > 0, input == &zeros) << scheme.name;
      }
    }
  }
}

TEST(Quantize, ExtremeMagnitudesStayFinite) {
  const float most = std::numeric_limits<float>::max();
  const float least = std::numeric_limits<float>::denorm_min();
  for (const float magnitude : {most, least, 1e-37f, 1e-30f, 1e30f}) {
    std::vector<float> w(2 * 48);
    for (size_t i = 0; i < w.size(); ++i) w[i] = (i % 2 == 0 ? magnitude : -magnitude);
    for (const Scheme& scheme : all_schemes()) {
      if (!scheme.weight.quantized()) continue;
      for (const Elem* dtype : {&kF32, &kBF16, &kF16}) {
        if (*dtype == kF16 && magnitude > 65504) continue;
        const Quantized q = quantize_whole(scheme.weight, w, 2, *dtype);
        for (const float scale : q.rows.scales) {
          ASSERT_TRUE(scale > 0 && std::isfinite(scale)) << scheme.name << " " << magnitude;
        }
        ASSERT_TRUE(q.rows.global_scale > 0 && std::isfinite(q.rows.global_scale)) << scheme.name;
        for (const uint8_t code : q.rows.codes) {
          ASSERT_FALSE(is_nan_code(*scheme.weight.elem, code)) << scheme.name << " " << magnitude;
        }
      }
    }
  }
}

TEST(Quantize, AShortLastGroupHasItsOwnScale) {
  auto w = random_values(2 * 72, 6);
  for (size_t i = 64; i < 72; ++i) w[i] *= 1000;  // row 0's last group of 8
  const Quantized q = quantize_whole(parse_scheme("int4_weight_only:g32").weight, w, 2);
  ASSERT_EQ(q.rows.scales.size(), 6u);
  EXPECT_EQ(q.rows.scale_cols(), 3);
  EXPECT_GT(q.rows.scales[2], 100 * q.rows.scales[1]);
  EXPECT_LT(q.rows.scales[5], 2 * q.rows.scales[4]);
}

TEST(Quantize, EmptyShapesAreNoError) {
  for (const Scheme& scheme : all_schemes()) {
    WeightQuantizer quantizer(scheme.weight, 0, 64, kBF16);
    QuantRows q;
    EXPECT_EQ(quantizer.quantize(0, Matrix<const float>(nullptr, 0, 64), q).values, 0);
    EXPECT_TRUE(q.codes.empty());
  }
}

TEST(Quantize, RunDtypesKeepTheirValuesAndSayWhatOverflowed) {
  const std::vector<float> w = {1.5f, -0.0f, kNan, kInfinity, 70000.0f, 1e-8f};
  const Quantized q = quantize_whole(parse_scheme("bf16").weight, w, 1, kF16);
  EXPECT_EQ(q.report.nan, 1);
  EXPECT_EQ(q.report.inf, 1);
  EXPECT_EQ(q.report.saturated, 1);
  EXPECT_EQ(q.rows.codes.size(), 12u);
  const auto back = dequantized(q.rows);
  EXPECT_EQ(back[0], 1.5f);
  EXPECT_TRUE(std::signbit(back[1]));
  EXPECT_TRUE(std::isnan(back[2]));
  EXPECT_EQ(back[4], kInfinity);
  EXPECT_EQ(back[5], 0.0f);
}

// OCP's floor rule lets e4m3 blocks reach 511 / 448 of the largest code.
TEST(Quantize, SaturationIsCounted) {
  std::vector<float> w(32, 1.0f);
  w[3] = 511;
  w[4] = -500;
  w[5] = 464;  // less than a step (32) beyond 448
  const Quantized q = quantize_whole(parse_scheme("mxfp8").weight, w, 1);
  EXPECT_EQ(q.rows.scales[0], 1.0f);
  EXPECT_EQ(q.report.saturated, 2);
  EXPECT_EQ(dequantized(q.rows)[3], 448.0f);
}

TEST(QuantizeActivation, CountsAndScalesOfTokensGroupsAndTensors) {
  const auto values = random_values(3 * 200, 8);
  auto x = values;
  x[10] = kNan;
  x[250] = kInfinity;
  for (const Scheme& scheme : all_schemes()) {
    const Spec& spec = scheme.activation;
    if (!spec.quantized() || spec.when == When::kStatic) continue;
    const int64_t scale_rows = spec.block.rows == kAll ? 1 : 3;
    const int64_t scale_cols =
        spec.block.cols == kAll ? 1 : (200 + spec.block.cols - 1) / spec.block.cols;
    std::vector<uint8_t> codes(600);
    std::vector<float> scales(static_cast<size_t>(scale_rows * scale_cols), -1);
    std::vector<int32_t> zeros(scales.size(), 1 << 30);
    float global = 1;
    const QuantReport report =
        quantize_activation(spec, Matrix<const float>(x.data(), 3, 200),
                            {.codes = {codes.data(), 3, 200},
                             .scales = {scales.data(), scale_rows, scale_cols},
                             .zero_points = {zeros.data(), scale_rows, scale_cols},
                             .global_scale = &global});
    EXPECT_EQ(report.nan, 1) << scheme.name;
    EXPECT_EQ(report.inf, 1) << scheme.name;
    QuantRows q{.elem = spec.elem,
                .block = spec.block,
                .rows = 3,
                .cols = 200,
                .codes = codes,
                .scales = scales,
                .zero_points = {},
                .codebook = {},
                .global_scale = global};
    if (spec.asymmetric) q.zero_points = zeros;
    const auto back = dequantized(q);
    double error = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (!std::isfinite(x[i])) continue;
      error += (x[i] - back[i]) * (x[i] - back[i]);
      norm += x[i] * x[i];
    }
    EXPECT_LT(std::sqrt(error / norm), spec.elem->bits() == 8 ? 0.04 : 0.15) << scheme.name;
    EXPECT_EQ(back[10], 0) << scheme.name;
  }
}

}  // namespace
}  // namespace mantissa
