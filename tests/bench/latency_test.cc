// bench's arithmetic, and the passes it runs, on a model made of a formula.
#include "bench/latency.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../eval/fake_model.h"
#include "bench/throughput.h"

namespace mantissa {
namespace {

constexpr Model::Limits kLimits{.tokens = 16,
                                .sequences = 4,
                                .logits_rows = 4,
                                .model_len = 16,
                                .vocab = 50,
                                .kv_pages = 64,
                                .kv_page_tokens = 4};

TEST(MeanStd, IsOfTheSample) {
  EXPECT_EQ(mean_std({}).mean, 0);
  EXPECT_EQ(mean_std({3}).mean, 3);
  EXPECT_TRUE(std::isnan(mean_std({3}).std));
  const MeanStd result = mean_std({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(result.mean, 5);
  EXPECT_DOUBLE_EQ(result.std, std::sqrt(32.0 / 7));
}

TEST(Rates, CountTheTokensOfEachPhase) {
  const LatencyOptions options{.batch_size = 3, .input_len = 10, .output_len = 5};
  const std::vector<LatencyIteration> iterations = {{0.5, 2}, {0.25, 1}};
  EXPECT_EQ(prefill_rates(options, iterations), (std::vector<double>{60, 120}));
  EXPECT_EQ(decode_rates(options, iterations), (std::vector<double>{6, 12}));
  EXPECT_TRUE(
      decode_rates({.batch_size = 3, .input_len = 10, .output_len = 1}, iterations).empty());
}

TEST(Latency, RunsPrefillInFullPassesThenOneStepAToken) {
  FakeModel fake(kLimits);
  const LatencyOptions options{
      .batch_size = 3, .input_len = 10, .output_len = 4, .iterations = 1, .warmup = 0};
  const std::vector<LatencyIteration> iterations = measure_latency(fake.engine_model(), options);
  ASSERT_EQ(iterations.size(), 1u);
  EXPECT_GT(iterations[0].prefill_seconds, 0);
  EXPECT_GT(iterations[0].decode_seconds, 0);
  EXPECT_EQ(fake.step_tokens, (std::vector<int64_t>{16, 14, 3, 3, 3}));
}

TEST(Latency, SaysWhenPhasesBeginAndEnd) {
  FakeModel fake(kLimits);
  std::vector<std::string> events;
  const auto note = [&](const char* what) {
    return [&events, what](LatencyPhase phase, bool warmup) {
      events.push_back(std::string(what) +
                       (phase == LatencyPhase::kPrefill ? " prefill" : " decode") +
                       (warmup ? " warmup" : ""));
    };
  };
  const LatencyOptions options{
      .batch_size = 1, .input_len = 2, .output_len = 2, .iterations = 1, .warmup = 1};
  measure_latency(fake.engine_model(), options,
                  {.progress = {}, .begins = note("begin"), .ended = note("end")});
  EXPECT_EQ(events,
            (std::vector<std::string>{"begin prefill warmup", "end prefill warmup",
                                      "begin decode warmup", "end decode warmup", "begin prefill",
                                      "end prefill", "begin decode", "end decode"}));
}

TEST(Latency, LeavesWarmupOut) {
  FakeModel fake(kLimits);
  std::vector<int64_t> progress;
  const LatencyOptions options{
      .batch_size = 1, .input_len = 2, .output_len = 2, .iterations = 2, .warmup = 3};
  const auto iterations = measure_latency(fake.engine_model(), options,
                                          {.progress =
                                               [&](int64_t done, int64_t total) {
                                                 EXPECT_EQ(total, 5);
                                                 progress.push_back(done);
                                               },
                                           .begins = {},
                                           .ended = {}});
  EXPECT_EQ(iterations.size(), 2u);
  EXPECT_EQ(progress, (std::vector<int64_t>{1, 2, 3, 4, 5}));
}

TEST(Latency, TakesTurns) {
  FakeModel a(kLimits), b(kLimits);
  const EngineModel first = a.engine_model(), second = b.engine_model();
  std::string order;
  const auto subject = [&](const EngineModel& model, char name) {
    return LatencySubject{model,
                          {.progress = [&order, name](int64_t, int64_t) { order += name; },
                           .begins = {},
                           .ended = {}}};
  };
  const LatencySubject subjects[] = {subject(first, 'a'), subject(second, 'b')};
  const auto iterations = measure_by_turns(
      subjects, {.batch_size = 1, .input_len = 2, .output_len = 2, .iterations = 2, .warmup = 1});
  EXPECT_EQ(order, "ababab");
  ASSERT_EQ(iterations.size(), 2u);
  EXPECT_EQ(iterations[0].size(), 2u);
  EXPECT_EQ(iterations[1].size(), 2u);
  EXPECT_EQ(a.step_tokens, b.step_tokens);
}

TEST(Throughput, AnswersEveryRequestInFull) {
  FakeModel fake(kLimits);
  const ThroughputResult result =
      measure_throughput(fake.engine_model(), {.num_prompts = 7, .input_len = 6, .output_len = 5});
  EXPECT_EQ(result.requests, 7);
  EXPECT_EQ(result.input_tokens, 42);
  EXPECT_EQ(result.output_tokens, 35);
  EXPECT_DOUBLE_EQ(result.total_tok_s() / result.output_tok_s(), 77.0 / 35);
}

}  // namespace
}  // namespace mantissa
