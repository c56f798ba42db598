// Log-probabilities, perplexity and divergence against numpy in float64.
#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "eval/logprob.h"
#include "fake_model.h"
#include "golden.h"

namespace mantissa {
namespace {

std::vector<float> floats(const json::Value& array) {
  std::vector<float> out;
  for (size_t i = 0; i < array.size(); ++i) out.push_back(static_cast<float>(array[i].as_number()));
  return out;
}

TEST(LogProb, RowsEqualNumpy) {
  const json::Document golden = eval_golden();
  const json::Value rows = golden.root().at("rows");
  ASSERT_EQ(rows.size(), 12u);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<float> base = floats(rows[r].at("base")), x = floats(rows[r].at("logits"));
    const double base_lse = log_sum_exp(base), lse = log_sum_exp(x);
    const double wanted = rows[r].at("lse").as_number();
    // One float32 rounding of a logit is 2^-24 of it; sums are in float64.
    const double bound = 4e-7 * std::max(1.0, std::fabs(wanted));
    EXPECT_NEAR(base_lse, rows[r].at("base_lse").as_number(), bound);
    EXPECT_NEAR(lse, wanted, bound);
    const double kld = rows[r].at("kld").as_number();
    EXPECT_NEAR(kl_divergence(base, base_lse, x, lse), kld, 2e-6 * kld + 2e-8) << "row " << r;
    EXPECT_EQ(argmax(x) == argmax(base), rows[r].at("same_top").as_bool());
  }
}

TEST(LogProb, OfALargeVocabularyIsExact) {
  for (size_t vocab : {1u, 15u, 16u, 17u, 1024u, 1025u, 128256u}) {
    std::vector<float> x;
    long double sum = 0;
    for (size_t v = 0; v < vocab; ++v) {
      x.push_back(static_cast<float>(40 * random_uniform(7, v) - 30));
      sum += std::exp(static_cast<long double>(x.back()));
    }
    const double wanted = static_cast<double>(std::log(sum));
    EXPECT_NEAR(log_sum_exp(x), wanted, 1e-6) << vocab;
    EXPECT_EQ(kl_divergence(x, wanted, x, wanted), 0) << vocab;
  }
}

TEST(LogProb, FarLogitsCountAsNothingAndNanAsNan) {
  std::vector<float> x = {0, -1e30f, -200, -87.5f};
  EXPECT_NEAR(log_sum_exp(x), 0, 1e-12);
  EXPECT_EQ(log_sum_exp(std::vector<float>{-3e38f}), static_cast<double>(-3e38f));
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    x[2] = bad;
    EXPECT_TRUE(std::isnan(log_sum_exp(x))) << bad;
  }
}

TEST(LogProb, ArgmaxIsTheFirstOfTheLargest) {
  std::vector<float> x(40, 1.0f);
  EXPECT_EQ(argmax(x), 0);
  x[17] = x[33] = 2;
  EXPECT_EQ(argmax(x), 17);
}

TEST(Summary, EqualsNumpy) {
  const json::Document golden = eval_golden();
  const json::Value rows = golden.root().at("rows"), wanted = golden.root().at("summary");
  std::vector<float> nlls;
  std::vector<TokenDivergence> tokens;
  for (size_t r = 0; r < rows.size(); ++r) {
    nlls.push_back(static_cast<float>(rows[r].at("nll").as_number()));
    tokens.push_back({static_cast<float>(rows[r].at("kld").as_number()),
                      static_cast<float>(rows[r].at("delta_p").as_number()),
                      rows[r].at("same_top").as_bool()});
  }
  const PerplexityResult perplexity = summarize(nlls);
  const DivergenceResult divergence = summarize(std::span<const TokenDivergence>(tokens));
  const auto near = [&](double value, const char* name) {
    const double golden_value = wanted.at(name).as_number();
    EXPECT_NEAR(value, golden_value, 1e-6 * golden_value) << name;
  };
  EXPECT_EQ(perplexity.tokens, 12);
  near(perplexity.nll, "nll");
  near(perplexity.perplexity, "perplexity");
  near(perplexity.stderr_ppl, "stderr");
  near(divergence.kld_mean, "kld_mean");
  near(divergence.kld_median, "kld_median");
  near(divergence.kld_p999, "kld_p999");
  near(divergence.top1_agreement, "top1_agreement");
  near(divergence.rms_delta_p, "rms_delta_p");
}

TEST(LogProb, MarginAndGapAreOfTheLargest) {
  std::vector<float> a(37, -1.0f), b(37, -1.0f);
  a[3] = 5;
  a[36] = 4.5f;
  b[36] = 7;
  EXPECT_EQ(top_margin(a), 0.5f);
  EXPECT_EQ(top_margin(std::vector<float>{2, 2, 1}), 0.0f);
  EXPECT_EQ(largest_gap(a, b), 6.0f);
  EXPECT_EQ(largest_gap(b, b), 0.0f);
}

// Two tokens: everything follows by hand.
TEST(Paired, DifferenceAndItsError) {
  const std::vector<float> nlls = {1, 3}, base = {0.5f, 1.5f};
  const PairedDifference d = paired_difference(nlls, base);
  EXPECT_NEAR(d.ln_ratio, 1, 1e-12);
  EXPECT_NEAR(d.ln_ratio_stderr, 0.5, 1e-12);  // differences 0.5 and 1.5: s / sqrt(2) = 0.5
  EXPECT_NEAR(d.delta, std::exp(2) - std::exp(1), 1e-12);
  // e^2 (nll - 2) - e (base - 1) is -e^2 + e / 2 and its negative.
  EXPECT_NEAR(d.delta_stderr, std::exp(2) - std::exp(1) / 2, 1e-9);
  EXPECT_EQ(paired_difference(nlls, nlls).delta_stderr, 0);
}

TEST(Summary, CountsDisagreementsThatDifferencesDoNotExplain) {
  const std::vector<TokenDivergence> tokens = {
      {.kld = 0, .same_top = true, .logit_gap = 0.1f},
      {.kld = 1, .same_top = false, .margin = 0.2f, .logit_gap = 0.3f},
      {.kld = 2, .same_top = false, .margin = 0.5f, .logit_gap = 0.4f}};
  const DivergenceResult d = summarize(std::span<const TokenDivergence>(tokens));
  EXPECT_EQ(d.disagreements, 2);
  EXPECT_EQ(d.disagreements_beyond, 1);
  EXPECT_EQ(d.margin_max, static_cast<double>(0.5f));
  EXPECT_EQ(d.logit_gap_max, static_cast<double>(0.4f));
  EXPECT_EQ(d.logit_gap_median, static_cast<double>(0.3f));
  EXPECT_NEAR(d.kld_stderr, 1 / std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(d.top1_stderr, std::sqrt(1.0 / 3 * 2 / 3 / 2), 1e-12);
}

TEST(Summary, OfNothingAndOfOneToken) {
  EXPECT_EQ(summarize(std::span<const float>{}).tokens, 0);
  const float one[] = {2};
  EXPECT_EQ(summarize(one).perplexity, std::exp(2.0));
  EXPECT_EQ(summarize(one).stderr_ppl, 0);
  EXPECT_EQ(summarize(std::span<const TokenDivergence>{}).kld_mean, 0);
}

constexpr Model::Limits kLimits{.tokens = 9,
                                .sequences = 4,
                                .logits_rows = 4,
                                .model_len = 8,
                                .vocab = 50,
                                .kv_pages = 16,
                                .kv_page_tokens = 4};

TEST(CompareWindows, OfAModelWithItselfIsZero) {
  FakeModel a(kLimits), b(kLimits);
  ThreadPool pool(2);
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const std::vector<Window> windows = perplexity_windows(tokens, 0, 5);
  const ComparedScores scores = compare_windows(a.engine_model(), b.engine_model(), windows, pool);
  const DivergenceResult result = summarize(std::span<const TokenDivergence>(scores.tokens));
  EXPECT_EQ(result.kld_mean, 0);
  EXPECT_EQ(result.kld_p999, 0);
  EXPECT_EQ(result.top1_agreement, 1);
  EXPECT_EQ(result.rms_delta_p, 0);
  EXPECT_EQ(scores.nlls, scores.base_nlls);
  EXPECT_EQ(scores.nlls, window_nlls(a.engine_model(), windows, pool));
}

TEST(CompareWindows, TakesTheBaseAsTheTruth) {
  FakeModel model(kLimits, 4), base(kLimits, 9);
  ThreadPool pool(1);
  const std::vector<int32_t> tokens = {1, 2, 3};
  const ComparedScores scores = compare_windows(model.engine_model(), base.engine_model(),
                                                perplexity_windows(tokens, 0, 3), pool);
  std::vector<int32_t> context = {0};
  for (size_t t = 0; t < 3; ++t) {
    const std::vector<float> x = model.logits_after(context), b = base.logits_after(context);
    double sum_x = 0, sum_b = 0, kld = 0;
    for (size_t v = 0; v < 50; ++v) {
      sum_x += std::exp(static_cast<double>(x[v]));
      sum_b += std::exp(static_cast<double>(b[v]));
    }
    const auto p = [&](const std::vector<float>& row, double sum, size_t v) {
      return std::exp(static_cast<double>(row[v])) / sum;
    };
    for (size_t v = 0; v < 50; ++v)
      kld += p(b, sum_b, v) * std::log(p(b, sum_b, v) / p(x, sum_x, v));
    const size_t target = static_cast<size_t>(tokens[t]);
    EXPECT_NEAR(static_cast<double>(scores.tokens[t].kld), kld, 1e-6);
    EXPECT_NEAR(static_cast<double>(scores.tokens[t].delta_p),
                p(x, sum_x, target) - p(b, sum_b, target), 1e-6);
    EXPECT_EQ(scores.tokens[t].same_top, argmax(x) == argmax(b));
    context.push_back(tokens[t]);
  }
}

}  // namespace
}  // namespace mantissa
