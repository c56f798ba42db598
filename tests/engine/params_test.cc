// Options over generation_config.json over vLLM's defaults.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/engine.h"

namespace mantissa {
namespace {

EngineDefaults file_defaults() {
  EngineDefaults defaults;
  defaults.generation = {.do_sample = true,
                         .temperature = 0.8,
                         .top_p = 0.95,
                         .top_k = 50,
                         .min_p = std::nullopt,
                         .repetition_penalty = std::nullopt,
                         .max_new_tokens = 99};
  defaults.eos_ids = {1, 4};
  return defaults;
}

TEST(Params, NothingSaidIsVllmsDefault) {
  const EffectiveParams p = effective_params({}, {});
  EXPECT_EQ(p.sampling.temperature, 1);
  EXPECT_EQ(p.sampling.top_p, 1);
  EXPECT_EQ(p.sampling.top_k, 0);
  EXPECT_EQ(p.sampling.min_p, 0);
  EXPECT_EQ(p.sampling.repetition_penalty, 1);
  EXPECT_EQ(p.sampling.logprobs, -1);
  EXPECT_FALSE(p.max_tokens.has_value());
}

TEST(Params, TheFileOverDefaultsAndOptionsOverTheFile) {
  EffectiveParams p = effective_params({}, file_defaults());
  EXPECT_EQ(p.sampling.temperature, 0.8);
  EXPECT_EQ(p.sampling.top_p, 0.95);
  EXPECT_EQ(p.sampling.top_k, 50);
  EXPECT_EQ(p.max_tokens, 99);
  EXPECT_EQ(p.stop_token_ids, (std::vector<int32_t>{1, 4}));

  SamplingOptions options;
  options.temperature = 0.5;
  options.top_k = 0;
  options.max_tokens = 7;
  options.seed = 3;
  options.stop_token_ids = {9};
  options.ignore_eos = true;
  p = effective_params(options, file_defaults());
  EXPECT_EQ(p.sampling.temperature, 0.5);
  EXPECT_EQ(p.sampling.top_p, 0.95);
  EXPECT_EQ(p.sampling.top_k, 0);
  EXPECT_EQ(p.sampling.seed, 3u);
  EXPECT_EQ(p.max_tokens, 7);
  EXPECT_EQ(p.stop_token_ids, std::vector<int32_t>{9});
}

TEST(Params, DoSampleFalseIsGreedyUnlessAsked) {
  EngineDefaults defaults = file_defaults();
  defaults.generation.do_sample = false;
  EXPECT_EQ(effective_params({}, defaults).sampling.temperature, 0);
  SamplingOptions options;
  options.temperature = 0.7;
  EXPECT_EQ(effective_params(options, defaults).sampling.temperature, 0.7);
}

TEST(Params, TheDescriptionNamesEverySource) {
  SamplingOptions options;
  options.top_p = 0.5;
  options.stop = {"END"};
  const std::string text = describe_params(options, file_defaults());
  EXPECT_EQ(text,
            "temperature 0.8 (generation_config.json), top_p 0.5, min_p 0 (default), "
            "repetition_penalty 1 (default), top_k 50 (generation_config.json), seed 0 (default), "
            "max_tokens 99 (generation_config.json), fewer where the context ends before, stop "
            "\"END\"");
  EngineDefaults greedy;
  greedy.generation.do_sample = false;
  EXPECT_TRUE(describe_params({}, greedy)
                  .starts_with("temperature 0 (do_sample is false in generation_config.json), "));
}

TEST(Params, RangesAreCheckedByName) {
  struct Row {
    const char* name;
    void (*set)(SamplingOptions&);
  };
  const Row rows[] = {
      {"temperature is -1", [](SamplingOptions& o) { o.temperature = -1; }},
      {"temperature is nan", [](SamplingOptions& o) { o.temperature = NAN; }},
      {"temperature is inf", [](SamplingOptions& o) { o.temperature = INFINITY; }},
      {"top_p is 0", [](SamplingOptions& o) { o.top_p = 0; }},
      {"top_p is 1.5", [](SamplingOptions& o) { o.top_p = 1.5; }},
      {"top_k is -2", [](SamplingOptions& o) { o.top_k = -2; }},
      {"min_p is 2", [](SamplingOptions& o) { o.min_p = 2; }},
      {"repetition_penalty is 0", [](SamplingOptions& o) { o.repetition_penalty = 0; }},
      {"logprobs is 21", [](SamplingOptions& o) { o.logprobs = 21; }},
      {"max_tokens is 0", [](SamplingOptions& o) { o.max_tokens = 0; }},
  };
  for (const Row& row : rows) {
    SamplingOptions options;
    row.set(options);
    try {
      effective_params(options, {});
      ADD_FAILURE() << row.name << " must be refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.found, row.name);
    }
  }
}

}  // namespace
}  // namespace mantissa
