// Calibration: which samples, which ranges, and static scales whose perplexity is near the dynamic
// scheme's.
#include "eval/calibrate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "eval/perplexity.h"
#include "text/tokenizer.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

const fs::path kModel = fs::path(MANTISSA_SOURCE_DIR) / "models/wiki-6m";
const fs::path kText = fs::path(MANTISSA_SOURCE_DIR) / "data/wikitext-2-test-4-articles.txt";

TEST(CalibrationWindows, AreSpreadEvenlyAndHoldTheirTokens) {
  std::vector<int32_t> tokens(103);
  std::iota(tokens.begin(), tokens.end(), 100);
  const auto starts = [&](int64_t samples) {
    std::vector<int32_t> out;
    for (const Window& w : calibration_windows(tokens, 1, samples, 11, false)) {
      EXPECT_EQ(w.inputs[0], 1);
      EXPECT_TRUE(w.targets.empty());
      out.push_back(w.inputs[1]);
    }
    return out;
  };
  EXPECT_EQ(starts(3), (std::vector<int32_t>{100, 130, 170}));
  EXPECT_EQ(starts(500).size(), 11u);
  const std::vector<Window> all = calibration_windows(tokens, 1, 500, 11, true);
  EXPECT_EQ(all.back().inputs.size(), 4u) << "BOS and the last three";
  EXPECT_EQ(all.back().targets.size(), 4u) << "for the head";
}

ModelOptions options_of(const char* device, const char* scheme) {
  ModelOptions options;
  options.folder = kModel;
  options.device = device;
  options.scheme = scheme;
  options.threads = 2;
  options.max_model_len = 128;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 256;
  return options;
}

std::vector<int32_t> text_tokens(size_t count) {
  std::vector<int32_t> tokens = Tokenizer::load(kModel).encode(read_file(kText, 1 << 20), false);
  tokens.resize(std::min(tokens.size(), count));
  return tokens;
}

Calibration ranges_of(ModelOptions options, std::span<const Window> windows) {
  options.observe_inputs = true;
  Model model(options);
  model.load();
  return calibrate(model, windows);
}

TEST(Calibrate, RangesAreThoseOfTheReferenceAndDoNotDependOnBatches) {
  const std::vector<Window> windows = calibration_windows(text_tokens(300), 0, 8, 64, false);
  const Calibration cpu = ranges_of(options_of("cpu", "fp8_static"), windows);
  const Calibration ref = ranges_of(options_of("ref", "fp8_static"), windows);
  ModelOptions small = options_of("cpu", "fp8_static");
  small.max_num_batched_tokens = 17;
  const Calibration pieces = ranges_of(small, windows);
  ASSERT_EQ(cpu.ranges.size(), ref.ranges.size());
  EXPECT_EQ(cpu.tokens, 300 + std::ssize(windows));
  for (size_t i = 0; i < cpu.ranges.size(); ++i) {
    SCOPED_TRACE(cpu.ranges[i].module);
    EXPECT_EQ(cpu.ranges[i].min, pieces.ranges[i].min);
    EXPECT_EQ(cpu.ranges[i].max, pieces.ranges[i].max);
    if (cpu.ranges[i].module == "lm_head") continue;  // not asked for
    EXPECT_LT(cpu.ranges[i].min, 0);
    EXPECT_NEAR(cpu.ranges[i].max / ref.ranges[i].max, 1, 0.05);  // bf16 sums in another order
    EXPECT_NEAR(cpu.ranges[i].min / ref.ranges[i].min, 1, 0.05);
  }
}

double perplexity_of(const ModelOptions& options, std::span<const Window> windows) {
  Model model(options);
  model.load();
  ThreadPool pool(2);
  return summarize(window_nlls(engine_model(model), windows, pool)).perplexity;
}

struct Pair {
  const char *device, *fixed, *dynamic;
  double most;  // of the static scheme's perplexity / the dynamic one's
};

TEST(Calibrate, StaticSchemesAreNearTheirDynamicOnes) {
  const std::vector<int32_t> tokens = text_tokens(1400);
  const auto half = std::span(tokens).first(700), other = std::span(tokens).subspan(700);
  const std::vector<Window> seen = calibration_windows(half, 0, 100, 128, false);
  const std::vector<Window> scored = perplexity_windows(other, 0, 127);
  for (const Pair& pair :
       {Pair{"cpu", "fp8_static", "fp8", 1.01}, Pair{"cpu", "int8:static", "int8", 1.15},
        Pair{"cpu", "int8:asym:static", "int8:asym", 1.12}}) {
    SCOPED_TRACE(pair.fixed);
    ModelOptions options = options_of(pair.device, pair.fixed);
    const Calibration found = ranges_of(options, seen);
    EXPECT_GE(found.growth_most, 1);
    options.input_ranges = found.ranges;
    const double fixed = perplexity_of(options, scored);
    const double dynamic = perplexity_of(options_of(pair.device, pair.dynamic), scored);
    EXPECT_LT(fixed / dynamic, pair.most);
    EXPECT_GT(fixed / dynamic, 0.97);
  }
}

TEST(Calibrate, StaticSchemesWithoutItAreRefusedWithTheOption) {
  try {
    const Model model(options_of("cpu", "fp8_static"));
    FAIL() << "there are no scales";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("--calibrate FILE"), std::string::npos);
  }
}

}  // namespace
}  // namespace mantissa
