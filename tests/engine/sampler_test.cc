// The sampler: exact filters on small vectors, distributions with fixed seeds, equality with a
// plain implementation on a real vocabulary's size.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "base/error.h"
#include "base/random.h"

namespace mantissa {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Known answers of Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds.
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                         {0xffffffff, 0xffffffff}) ==
              PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}) ==
              PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

SamplingParams plain(double temperature = 1) {
  SamplingParams p;
  p.temperature = temperature;
  return p;
}

int32_t pick(std::span<const float> logits, const SamplingParams& params, int64_t position,
             std::span<const int32_t> history = {}) {
  SamplerScratch scratch;
  return sample({logits, history, position, "test"}, params, scratch).id;
}

std::map<int32_t, int64_t> histogram(std::span<const float> logits, const SamplingParams& params,
                                     int64_t draws, std::span<const int32_t> history = {}) {
  std::map<int32_t, int64_t> counts;
  SamplerScratch scratch;
  for (int64_t i = 0; i < draws; ++i) {
    ++counts[sample({logits, history, i, "test"}, params, scratch).id];
  }
  return counts;
}

std::set<int32_t> support(std::span<const float> logits, const SamplingParams& params,
                          std::span<const int32_t> history = {}) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : histogram(logits, params, 4000, history)) ids.insert(id);
  return ids;
}

std::vector<float> logs(std::vector<double> probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

TEST(Random, UniformsCoverTheUnitInterval) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = random_uniform(7, i);
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 5 * 0.2887 / 100);
  EXPECT_NE(random_bits(1, 0), random_bits(0, 1));
}

TEST(Sampler, GreedyTakesTheLowestOfTies) {
  const std::vector<float> logits = {1, 3, 3, -kInfinity, 2, 3};
  EXPECT_EQ(pick(logits, plain(0), 0), 1);
  EXPECT_EQ(pick(logits, plain(1e-6), 5), 1);
  std::vector<float> longer(1000, -2.0f);
  longer[990] = longer[997] = 0.5f;
  EXPECT_EQ(pick(longer, plain(0), 0), 990);
}

TEST(Sampler, RepetitionPenaltyOncePerSeenToken) {
  const std::vector<float> logits = {2, 1.9f, -1, -1.5f};
  SamplingParams greedy = plain(0);
  EXPECT_EQ(pick(logits, greedy, 0, std::vector<int32_t>{0, 0, 0}), 0);
  greedy.repetition_penalty = 1.2;
  EXPECT_EQ(pick(logits, greedy, 0, std::vector<int32_t>{0}), 1);        // 2 / 1.2 < 1.9
  EXPECT_EQ(pick(logits, greedy, 0, std::vector<int32_t>{0, 1, 1}), 0);  // both once
  const std::vector<float> negative = {-1, -1.5f};
  greedy.repetition_penalty = 2;
  EXPECT_EQ(pick(negative, greedy, 0, std::vector<int32_t>{0, 0}), 1);  // -1 * 2 < -1.5
  greedy.repetition_penalty = 0.5;
  EXPECT_EQ(pick(negative, greedy, 0, std::vector<int32_t>{1}), 1);  // -1.5 * 0.5 > -1
}

TEST(Sampler, ExactFilters) {
  const std::vector<float> logits = logs({0.05, 0.4, 0.3, 0.05, 0.2});
  struct Row {
    const char* why;
    double min_p, top_p;
    int64_t top_k;
    std::set<int32_t> kept;
  };
  const Row rows[] = {
      {"no filter", 0, 1, 0, {0, 1, 2, 3, 4}},
      {"top-k", 0, 1, 2, {1, 2}},
      {"top-k keeps ties", 0, 1, 4, {0, 1, 2, 3, 4}},
      {"top-k above V", 0, 1, 50, {0, 1, 2, 3, 4}},
      {"top-p reaches p exactly within the second", 0, 0.65, 0, {1, 2}},
      {"top-p just above two", 0, 0.72, 0, {1, 2, 4}},
      {"tiny top-p keeps the best", 0, 1e-9, 0, {1}},
      {"top-p near 1 drops one of the ties: the higher id", 0, 0.94, 0, {0, 1, 2, 4}},
      {"min-p", 0.45, 1, 0, {1, 2, 4}},
      {"min-p 1", 1, 1, 0, {1}},
      {"top-p over what top-k left: 4/9 and 3/9 of it", 0, 0.5, 3, {1, 2}},
      {"top-p over what min-p left: 4/7", 0.7, 0.57, 0, {1}},
      {"all three", 0.2, 0.99, 3, {1, 2, 4}},
  };
  for (const Row& row : rows) {
    SamplingParams p = plain();
    p.min_p = row.min_p;
    p.top_p = row.top_p;
    p.top_k = row.top_k;
    EXPECT_EQ(support(logits, p), row.kept) << row.why;
  }
}

TEST(Sampler, TemperatureComesBeforeTheFilters) {
  const std::vector<float> logits = logs({0.6, 0.3, 0.1});
  SamplingParams p = plain(0.5);  // squared: 0.78, 0.20, 0.02
  p.top_p = 0.7;
  EXPECT_EQ(support(logits, p), std::set<int32_t>{0});
  p = plain(0.5);
  p.min_p = 0.3;  // 0.3 / 0.6 squared is 0.25
  EXPECT_EQ(support(logits, p), std::set<int32_t>{0});
  p.temperature = 1;
  EXPECT_EQ(support(logits, p), (std::set<int32_t>{0, 1}));
}

TEST(Sampler, MinusInfinityIsNeverChosen) {
  std::vector<float> logits(600, -kInfinity);
  logits[3] = -50;
  logits[599] = -50;
  EXPECT_EQ(support(logits, plain()), (std::set<int32_t>{3, 599}));
  SamplingParams p = plain(100);
  p.top_k = 500;
  EXPECT_EQ(support(logits, p), (std::set<int32_t>{3, 599}));
}

// Pearson's statistic over cells of equal expectation; a fixed seed, so it cannot flicker.
TEST(Sampler, FollowsTheDistribution) {
  constexpr int kTokens = 400;
  constexpr int64_t kDraws = 60000;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(kTokens);
  for (float& l : logits) l = normal(random);
  struct Row {
    double temperature, top_p;
    int64_t top_k;
  };
  for (const Row& row : {Row{1, 1, 0}, Row{0.7, 1, 0}, Row{1, 0.9, 0}, Row{1.5, 1, 100}}) {
    SamplingParams p = plain(row.temperature);
    p.top_p = row.top_p;
    p.top_k = row.top_k;
    const auto counts = histogram(logits, p, kDraws);
    double total = 0;
    for (const auto& [id, count] : counts) {
      total += std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) / row.temperature);
    }
    double chi2 = 0, cells = 0, rest = 0, rest_expected = 0;
    for (const auto& [id, count] : counts) {
      const double expected =
          static_cast<double>(kDraws) / total *
          std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) / row.temperature);
      if (expected < 20) {
        rest += static_cast<double>(count);
        rest_expected += expected;
        continue;
      }
      chi2 += std::pow(static_cast<double>(count) - expected, 2) / expected;
      ++cells;
    }
    EXPECT_NEAR(rest, rest_expected, 5 * std::sqrt(rest_expected) + 1);
    EXPECT_LT(std::abs(chi2 - cells), 5 * std::sqrt(2 * cells)) << row.temperature;
    EXPECT_GT(cells, 20);
  }
}

// Sorts everything, sums in double, uses the library's exponential.
std::vector<std::pair<int32_t, double>> plain_filter(std::span<const float> logits,
                                                     const SamplingParams& p) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  });
  const double best = static_cast<double>(logit(ids[0]));
  std::vector<std::pair<int32_t, double>> kept;
  double total = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const double w = std::exp((static_cast<double>(logit(ids[i])) - best) / p.temperature);
    if (w < p.min_p) break;
    if (p.top_k > 0 && i >= static_cast<size_t>(p.top_k) &&
        logit(ids[i]) < logit(ids[static_cast<size_t>(p.top_k) - 1])) {
      break;
    }
    kept.emplace_back(ids[i], w);
    total += w;
  }
  double sum = 0;
  size_t count = 0;
  while (count < kept.size() && (count == 0 || sum < p.top_p * total)) sum += kept[count++].second;
  kept.resize(count);
  return kept;
}

TEST(Sampler, EqualsAPlainImplementationOnABigVocabulary) {
  constexpr size_t kTokens = 128256;
  std::mt19937 random(6);
  std::vector<float> logits(kTokens);
  SamplerScratch scratch;
  int different = 0, draws = 0;
  for (const float spread : {0.05f, 1.0f, 3.0f}) {
    std::normal_distribution<float> normal(0, spread);
    for (float& l : logits) l = normal(random);
    std::vector<SamplingParams> cases(6, plain());
    cases[0].top_p = 0.95;
    cases[1].top_k = 50;
    cases[2].min_p = 0.05;
    cases[3].top_k = 1000;
    cases[3].top_p = 0.8;
    cases[4].min_p = 0.01;
    cases[4].top_p = 0.9;
    cases[5].temperature = 0.3;
    cases[5].top_p = 0.999;
    for (const SamplingParams& p : cases) {
      const auto kept = plain_filter(logits, p);
      double total = 0;
      for (const auto& [id, w] : kept) total += w;
      for (int64_t position = 0; position < 20; ++position) {
        double left = random_uniform(p.seed, static_cast<uint64_t>(position)) * total;
        int32_t expected = kept.back().first;
        for (const auto& [id, w] : kept) {
          left -= w;
          if (left < 0) {
            expected = id;
            break;
          }
        }
        const int32_t got = sample({logits, {}, position, "test"}, p, scratch).id;
        different += got == expected ? 0 : 1;
        ++draws;
      }
    }
  }
  // A draw differs where float32 weights move a boundary of the sum over u: at most of the order of
  // 1e-7 times the number of kept tokens before it.
  EXPECT_LE(different, draws / 50);
}

TEST(Sampler, DependsOnSeedAndPositionOnly) {
  std::mt19937 random(8);
  std::vector<float> logits(5000);
  for (float& l : logits) l = std::normal_distribution<float>(0, 1)(random);
  SamplerScratch used;
  sample({std::vector<float>(9, 1.0f), {}, 0, "other"}, plain(), used);
  SamplingParams p = plain();
  p.top_p = 0.9;
  const SampleInput input{logits, {}, 42, "test"};
  EXPECT_EQ(sample(input, p, used).id, pick(logits, p, 42));
  std::set<int32_t> by_seed, by_position;
  for (uint64_t i = 0; i < 20; ++i) {
    p.seed = i;
    by_seed.insert(pick(logits, p, 42));
    p.seed = 0;
    by_position.insert(pick(logits, p, static_cast<int64_t>(i)));
  }
  EXPECT_GT(by_seed.size(), 10u);
  EXPECT_GT(by_position.size(), 10u);
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  std::mt19937 random(9);
  std::vector<float> logits(3001);
  for (float& l : logits) l = std::normal_distribution<float>(0, 3)(random);
  double sum = 0;
  for (const float l : logits) sum += std::exp(static_cast<double>(l));
  SamplingParams p = plain(0.3);
  p.top_k = 5;
  p.repetition_penalty = 2;
  p.logprobs = 7;
  SamplerScratch scratch;
  const std::vector<int32_t> history = {4, 5, 6};
  const SampledToken token = sample({logits, history, 3, "test"}, p, scratch);
  const auto expected = [&](int32_t id) {
    return static_cast<double>(logits[static_cast<size_t>(id)]) - std::log(sum);
  };
  EXPECT_EQ(token.chosen.id, token.id);
  EXPECT_NEAR(static_cast<double>(token.chosen.logprob), expected(token.id), 2e-6);
  ASSERT_EQ(token.top.size(), 7u);
  for (size_t i = 0; i < token.top.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(token.top[i].logprob), expected(token.top[i].id), 2e-6);
    if (i > 0) {
      EXPECT_GE(token.top[i - 1].logprob, token.top[i].logprob);
    }
    if (token.top[i].id == token.id) {
      EXPECT_EQ(token.top[i].logprob, token.chosen.logprob);
    }
  }
  EXPECT_EQ(token.top[0].id, std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(Sampler, LogprobsMayOutnumberTheVocabulary) {
  SamplingParams p = plain(0);
  p.logprobs = 20;
  SamplerScratch scratch;
  const SampledToken token = sample({logs({0.25, 0.5, 0.25}), {}, 0, "test"}, p, scratch);
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_EQ(token.top[1].id, 0);  // ties to the lowest id
  EXPECT_NEAR(token.top[1].logprob, std::log(0.25), 1e-6);
}

TEST(Sampler, BadLogitsAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    for (const size_t at : {size_t{0}, size_t{7}, size_t{16}}) {
      std::vector<float> logits(17, 1.0f);
      logits[at] = bad;
      try {
        SamplerScratch scratch;
        sample({logits, {}, 12, "sequence 3"}, plain(), scratch);
        ADD_FAILURE() << "must be refused";
      } catch (const Error& e) {
        EXPECT_EQ(e.found, text("sequence 3, position 12: logit ", at, " is ", bad));
        EXPECT_EQ(e.kind, Error::Kind::kRuntime);
      }
    }
  }
  EXPECT_THROW(pick(std::vector<float>(5, -kInfinity), plain(), 0), Error);
}

}  // namespace
}  // namespace mantissa
