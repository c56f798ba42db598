// Windows, and the loop that runs them: every rule of docs/evaluation.md on token ids that tell
// where they came from, and batches under tight limits against contexts computed one by one.
#include "eval/windows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "eval/logprob.h"
#include "eval/perplexity.h"
#include "fake_model.h"

namespace mantissa {
namespace {

constexpr int32_t kBos = 1000;
using Ids = std::vector<int32_t>;

Ids first_ids(int n) {
  Ids ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(PerplexityWindows, AreDisjointAndTheLastIsShort) {
  const std::vector<Window> windows = perplexity_windows(first_ids(7), kBos, 3);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].inputs, (Ids{kBos, 0, 1}));
  EXPECT_EQ(windows[0].targets, (Ids{0, 1, 2}));
  EXPECT_EQ(windows[1].inputs, (Ids{kBos, 3, 4}));
  EXPECT_EQ(windows[1].targets, (Ids{3, 4, 5}));
  EXPECT_EQ(windows[2].inputs, (Ids{kBos}));
  EXPECT_EQ(windows[2].targets, (Ids{6}));
}

TEST(PerplexityWindows, WithAStrideScoreTheLastTargetsOnly) {
  const std::vector<Window> windows = perplexity_windows(first_ids(9), kBos, 4, 2);
  ASSERT_EQ(windows.size(), 4u);
  EXPECT_EQ(windows[0].inputs, (Ids{kBos, 0, 1, 2}));
  EXPECT_EQ(windows[0].targets, (Ids{0, 1, 2, 3}));
  EXPECT_EQ(windows[1].inputs, (Ids{kBos, 2, 3, 4}));
  EXPECT_EQ(windows[1].targets, (Ids{4, 5}));
  EXPECT_EQ(windows[2].targets, (Ids{6, 7}));
  EXPECT_EQ(windows[3].inputs, (Ids{kBos, 6, 7}));  // short, and one target is left
  EXPECT_EQ(windows[3].targets, (Ids{8}));
}

TEST(PerplexityWindows, ScoreEveryTokenOnce) {
  for (int n : {1, 2, 5, 16, 17, 33}) {
    for (int ctx : {1, 2, 7, 16}) {
      for (int stride = 1; stride <= ctx; ++stride) {
        Ids scored;
        for (const Window& w : perplexity_windows(first_ids(n), kBos, ctx, stride)) {
          EXPECT_LE(w.inputs.size(), static_cast<size_t>(ctx));
          EXPECT_LE(w.targets.size(), w.inputs.size());
          scored.insert(scored.end(), w.targets.begin(), w.targets.end());
        }
        EXPECT_EQ(scored, first_ids(n)) << n << " " << ctx << " " << stride;
      }
    }
  }
}

TEST(PerplexityWindows, RefuseAStrideThatLeavesTokensOut) {
  EXPECT_THROW(perplexity_windows(first_ids(9), kBos, 4, 5), Error);
  EXPECT_THROW(perplexity_windows(first_ids(9), kBos, 4, -1), Error);
  EXPECT_THROW(perplexity_windows(first_ids(9), kBos, 0), Error);
}

TEST(RollingWindows, SeeOneTokenOfContextAndTheLastIsFilledUp) {
  const std::vector<Window> windows = rolling_windows(first_ids(10), kBos, 4);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].inputs, (Ids{kBos, 0, 1, 2}));
  EXPECT_EQ(windows[0].targets, (Ids{0, 1, 2, 3}));
  EXPECT_EQ(windows[1].inputs, (Ids{3, 4, 5, 6}));
  EXPECT_EQ(windows[1].targets, (Ids{4, 5, 6, 7}));
  EXPECT_EQ(windows[2].inputs, (Ids{5, 6, 7, 8}));  // four inputs for two targets
  EXPECT_EQ(windows[2].targets, (Ids{8, 9}));
}

TEST(RollingWindows, OfShortAndEmptyTexts) {
  const std::vector<Window> windows = rolling_windows(first_ids(2), kBos, 4);
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].inputs, (Ids{kBos, 0}));
  EXPECT_TRUE(rolling_windows({}, kBos, 4).empty());
}

struct LimitsCase {
  int64_t tokens, sequences, logits_rows, pages;
  const char* why;
};
constexpr LimitsCase kLimits[] = {
    {64, 16, 64, 64, "several windows a step"},
    {7, 16, 3, 64, "windows are split between steps, logits into chunks"},
    {64, 2, 64, 64, "sequences run out first"},
    {64, 16, 64, 4, "pages run out first"},
    {1, 1, 1, 3, "one token a step"},
};

class ScoreWindows : public testing::TestWithParam<LimitsCase> {};

TEST_P(ScoreWindows, EqualsContextsOneByOne) {
  const LimitsCase c = GetParam();
  FakeModel fake({.tokens = c.tokens,
                  .sequences = c.sequences,
                  .logits_rows = c.logits_rows,
                  .model_len = 12,
                  .vocab = 50,
                  .kv_pages = c.pages,
                  .kv_page_tokens = 4});
  Ids tokens;
  for (uint64_t i = 0; i < 77; ++i) tokens.push_back(static_cast<int32_t>(random_bits(3, i) % 50));
  const std::vector<Window> windows = perplexity_windows(tokens, 0, 12, 5);
  ThreadPool pool(2);
  int64_t reported = 0;
  const std::vector<float> nlls =
      window_nlls(fake.engine_model(), windows, pool, [&](int64_t done, int64_t total) {
        EXPECT_EQ(total, 77);
        reported = done;
      });
  EXPECT_EQ(reported, 77);
  ASSERT_EQ(nlls.size(), 77u);
  size_t at = 0;
  for (const Window& window : windows) {
    for (size_t t = 0; t < window.targets.size(); ++t, ++at) {
      const size_t seen = window.inputs.size() - window.targets.size() + t + 1;
      const std::vector<float> logits = fake.logits_after(std::span(window.inputs).first(seen));
      double sum = 0;
      for (float logit : logits) sum += std::exp(static_cast<double>(logit));
      const double nll =
          std::log(sum) - static_cast<double>(logits[static_cast<size_t>(window.targets[t])]);
      EXPECT_NEAR(static_cast<double>(nlls[at]), nll, 1e-6) << c.why << ", token " << at;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Limits, ScoreWindows, testing::ValuesIn(kLimits));

TEST(ScoreWindowsLimits, FillThePass) {
  FakeModel fake({.tokens = 20,
                  .sequences = 16,
                  .logits_rows = 20,
                  .model_len = 8,
                  .vocab = 50,
                  .kv_pages = 16,
                  .kv_page_tokens = 4});
  ThreadPool pool(1);
  window_nlls(fake.engine_model(), perplexity_windows(first_ids(48), 0, 8), pool);
  EXPECT_EQ(fake.step_tokens, (std::vector<int64_t>{20, 20, 8}));
}

TEST(ScoreWindowsLimits, RefuseAWindowBeyondContextOrCache) {
  const Model::Limits limits{.tokens = 64,
                             .sequences = 4,
                             .logits_rows = 64,
                             .model_len = 16,
                             .vocab = 50,
                             .kv_pages = 2,
                             .kv_page_tokens = 4};
  FakeModel fake(limits);
  ThreadPool pool(1);
  EXPECT_THROW(window_nlls(fake.engine_model(), perplexity_windows(first_ids(40), 0, 20), pool),
               Error);
  EXPECT_THROW(window_nlls(fake.engine_model(), perplexity_windows(first_ids(40), 0, 10), pool),
               Error);
}

TEST(ScoreWindowsLimits, KvTokensKeepPassesFull) {
  for (int64_t length : {1, 5, 100, 512, 4096}) {
    for (int64_t tokens : {1, 64, 2048}) {
      const int64_t pages = window_kv_tokens(length, tokens, 256) / 16;
      const int64_t whole = tokens / length + (tokens % length > 0 ? 2 : 1);
      EXPECT_GE(pages, std::min<int64_t>(whole, 256) * ((length + 15) / 16));
    }
  }
}

TEST(ScoreWindowsLimits, NamesLogitsThatAreNotFinite) {
  FakeModel fake({.tokens = 64,
                  .sequences = 4,
                  .logits_rows = 64,
                  .model_len = 16,
                  .vocab = 50,
                  .kv_pages = 16,
                  .kv_page_tokens = 4},
                 std::nanf(""));
  ThreadPool pool(2);
  try {
    window_nlls(fake.engine_model(), perplexity_windows(first_ids(8), 0, 8), pool);
    FAIL() << "NaN logits gave a perplexity";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind, Error::Kind::kRuntime);
    EXPECT_NE(e.found.find("not finite"), std::string::npos);
  }
}

}  // namespace
}  // namespace mantissa
