// Codes and scales of every scheme row and recipe, bit for bit, against tests/golden/schemes
// (tools/make_scheme_goldens.py: numpy and ml_dtypes).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "quant/quantize.h"

namespace mantissa {
namespace {

struct Input {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};
struct Case {
  std::string scheme, dtype, input, hash;
  int64_t rows = 0, cols = 0;
  std::vector<uint8_t> codes;
  std::vector<float> scales, codebook;
  std::vector<int32_t> zeros;
  float global = 1;
};

float from_hex(const std::string& hex) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex, nullptr, 16)));
}

std::ifstream open_golden(const std::string& name) {
  std::ifstream in(std::string(MANTISSA_SOURCE_DIR) + "/tests/golden/schemes/" + name);
  std::string head;
  std::getline(in, head);  // the versions that made it
  return in;
}

// Exact in any language: see inputs() of the script.
Input tall_input() {
  Input out{130, 136, {}};
  for (int64_t j = 0; j < out.rows * out.cols; ++j) {
    const double value = static_cast<double>(j * 7919 % 2003 - 1001) / 1024;
    out.values.push_back(f32_from_bf16(
        bf16_from_f32(static_cast<float>(std::ldexp(value, static_cast<int>(j / 997 % 7))))));
  }
  return out;
}

std::map<std::string, Input> read_inputs() {
  std::map<std::string, Input> out;
  std::ifstream in = open_golden("inputs.txt");
  std::string word, name;
  while (in >> word >> name) {
    Input& input = out[name];
    in >> input.rows >> input.cols;
    for (int64_t r = 0; r < input.rows; ++r) {
      in >> word;
      for (size_t i = 0; i < word.size(); i += 8) {
        input.values.push_back(from_hex(word.substr(i, 8)));
      }
    }
  }
  out["tall"] = tall_input();
  out["zeros"] = {2, 40, std::vector<float>(80, 0.0f)};
  return out;
}

std::vector<float> read_floats(std::istream& in) {
  std::string word;
  size_t count = 0;
  in >> word >> count;
  std::vector<float> out;
  for (size_t i = 0; i < count && in >> word; ++i) out.push_back(from_hex(word));
  return out;
}

std::vector<Case> read_cases(const std::string& file) {
  std::vector<Case> out;
  std::ifstream in = open_golden(file);
  std::string word;
  while (in >> word) {
    Case& c = out.emplace_back();
    size_t width = 0;
    in >> c.scheme >> c.dtype >> c.input >> c.rows >> c.cols >> width >> word;
    if (word == "hash") {
      in >> c.hash;
    } else {
      for (int64_t r = 0; r < c.rows; ++r) {
        in >> word;
        for (size_t i = 0; i < word.size(); i += width) {
          c.codes.push_back(static_cast<uint8_t>(std::stoul(word.substr(i, width), nullptr, 16)));
        }
      }
    }
    c.scales = read_floats(in);
    size_t zeros = 0;
    in >> word >> zeros;
    c.zeros.resize(zeros);
    for (int32_t& zero : c.zeros) in >> zero;
    c.codebook = read_floats(in);
    in >> word >> word;
    c.global = from_hex(word);
  }
  return out;
}

std::string fnv(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  std::ostringstream out;
  out << std::hex;
  out.width(16);
  out.fill('0');
  out << hash;
  return out.str();
}

void expect_equal_floats(const std::vector<float>& ours, const std::vector<float>& theirs,
                         const std::string& what) {
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(ours[i]), std::bit_cast<uint32_t>(theirs[i]))
        << what << " " << i << ": " << ours[i] << " instead of " << theirs[i];
  }
}

void expect_equal_codes(const std::vector<uint8_t>& ours, const Case& c) {
  if (!c.hash.empty()) {
    EXPECT_EQ(fnv(ours), c.hash) << c.scheme;
    return;
  }
  ASSERT_EQ(ours.size(), c.codes.size()) << c.scheme;
  for (size_t i = 0; i < ours.size(); ++i) {
    const auto cols = static_cast<size_t>(c.cols);
    ASSERT_EQ(ours[i], c.codes[i]) << c.scheme << " row " << i / cols << " column " << i % cols;
  }
}

TEST(SchemeGoldens, WeightsEqualBitForBit) {
  const auto inputs = read_inputs();
  const auto cases = read_cases("weights.txt");
  EXPECT_GE(cases.size(), 100u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.scheme + " " + c.dtype);
    const Scheme scheme = parse_scheme(c.scheme);
    const Matrix<const float> x(inputs.at(c.input).values.data(), c.rows, c.cols);
    WeightQuantizer quantizer(scheme.weight, c.rows, c.cols, *find_elem(c.dtype));
    if (quantizer.needs_observe()) quantizer.observe(x);
    QuantRows q;
    const QuantReport report = quantizer.quantize(0, x, q);
    EXPECT_EQ(report.values, c.rows * c.cols);
    EXPECT_EQ(report.nan + report.inf, 0);
    expect_equal_codes(q.codes, c);
    expect_equal_floats(q.scales, c.scales, "scale");
    expect_equal_floats(q.codebook, c.codebook, "codebook");
    EXPECT_EQ(q.zero_points, c.zeros);
    expect_equal_floats({q.global_scale}, {c.global}, "global scale");
  }
}

TEST(SchemeGoldens, ActivationsEqualBitForBit) {
  const auto inputs = read_inputs();
  const auto cases = read_cases("activations.txt");
  EXPECT_GE(cases.size(), 20u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.scheme + " " + c.dtype);
    const Spec spec = parse_scheme(c.scheme).activation;
    const Matrix<const float> x(inputs.at(c.input).values.data(), c.rows, c.cols);
    const int64_t scale_rows = spec.block.rows == kAll ? 1 : c.rows;
    const auto scale_cols = static_cast<int64_t>(c.scales.size()) / scale_rows;
    const bool given = spec.when == When::kStatic;
    std::vector<float> scales = given ? c.scales : std::vector<float>(c.scales.size(), -1);
    std::vector<int32_t> zeros = given ? c.zeros : std::vector<int32_t>(c.zeros.size(), 99);
    float global = given ? c.global : 1;
    std::vector<uint8_t> codes(static_cast<size_t>(c.rows * c.cols));
    quantize_activation(spec, x,
                        {.codes = {codes.data(), c.rows, c.cols},
                         .scales = {scales.data(), scale_rows, scale_cols},
                         .zero_points = {zeros.data(), scale_rows, scale_cols},
                         .global_scale = &global});
    expect_equal_codes(codes, c);
    expect_equal_floats(scales, c.scales, "scale");
    EXPECT_EQ(zeros, c.zeros);
    expect_equal_floats({global}, {c.global}, "global scale");
  }
}

// A row of the table whose weights or activations have no golden case fails here.
TEST(SchemeGoldens, EveryRowOfTheTableHasACase) {
  std::vector<Spec> weights, activations;
  for (const Case& c : read_cases("weights.txt")) weights.push_back(parse_scheme(c.scheme).weight);
  for (const Case& c : read_cases("activations.txt")) {
    activations.push_back(parse_scheme(c.scheme).activation);
  }
  for (const SchemeRow& row : scheme_rows()) {
    if (row.weight.quantized()) {
      EXPECT_TRUE(std::ranges::find(weights, row.weight) != weights.end()) << row.name;
    }
    if (row.activation.quantized()) {
      EXPECT_TRUE(std::ranges::find(activations, row.activation) != activations.end()) << row.name;
    }
  }
}

}  // namespace
}  // namespace mantissa
