// Steps that sample where the model runs: the sizes of graphs, and tokens equal to those of forward
// and logits with the sampler applied to them.
#include "model/steps.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"

namespace mantissa {
namespace {

TEST(GraphSizes, AscendToTheMostSequences) {
  EXPECT_EQ(graph_sizes(1), std::vector<int32_t>{1});
  EXPECT_EQ(graph_sizes(3), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(graph_sizes(20), (std::vector<int32_t>{1, 2, 4, 8, 16, 20}));
  for (const int64_t most : {5, 64, 100, 256, 300, 512, 1000}) {
    const std::vector<int32_t> sizes = graph_sizes(most);
    EXPECT_EQ(sizes.front(), 1);
    EXPECT_EQ(sizes.back(), std::min(most, kGraphRowsMax));
    for (size_t i = 1; i < sizes.size(); ++i) EXPECT_LT(sizes[i - 1], sizes[i]);
    EXPECT_LE(sizes.size(), 24u);
  }
}

Model wiki() {
  return Model(
      ModelOptions{.folder = std::filesystem::path(MANTISSA_SOURCE_DIR) / "models" / "wiki-6m",
                   .device = "cpu",
                   .ignore = {},
                   .threads = 2,
                   .max_model_len = 64,
                   .max_num_seqs = 3,
                   .input_ranges = {}});
}

// A prompt in seat 2, in two chunks, then its own samples, six in flight at most three.
TEST(Steps, FollowTheirOwnSamples) {
  Model model = wiki();
  model.load();
  const std::vector<int32_t> prompt = {5, 17, 300, 42, 9, 1000, 77, 8};
  const SampleParams params{.seed = 9, .top_p = 0.9, .temperature = 1, .repetition_penalty = 1.3f};
  std::vector<int32_t> all = prompt;
  Model::StepRequest request;
  const auto launch = [&](std::vector<int32_t> ids, int32_t position, bool samples) {
    request = {};
    const auto count = static_cast<int32_t>(ids.size());
    const int32_t held = (position + 15) / 16, needed = (position + count + 15) / 16;
    request.sequences.push_back({.seat = 2,
                                 .first_token = 0,
                                 .tokens = count,
                                 .position = position,
                                 .page_col = held,
                                 .pages = needed - held,
                                 .page_at = 0,
                                 .sampling = params});
    request.token_ids = std::move(ids);
    for (int32_t page = held; page < needed; ++page) request.pages.push_back(7 - page);
    if (samples) request.sampling = {0};
    return model.launch(request);
  };
  launch({prompt.begin(), prompt.begin() + 5}, 0, false);
  std::vector<int64_t> tickets = {launch({prompt.begin() + 5, prompt.end()}, 5, true)};
  for (int32_t i = 0; i < 11; ++i) {
    tickets.push_back(launch({kSampledId}, 8 + i, true));
    all.push_back(model.wait(tickets[static_cast<size_t>(i)]).rows[0].id);
  }
  EXPECT_THROW(launch({8192}, 19, true), Error);

  std::vector<uint32_t> seen(8192 / 32);
  SamplerScratch scratch;
  for (int32_t n = 0; n + 1 < static_cast<int32_t>(all.size()); ++n) {
    Model::Step step{.token_ids = {all[static_cast<size_t>(n)]},
                     .positions = {n},
                     .slots = {n},
                     .query_start = {0, 1},
                     .context_len = {n + 1},
                     .block_tables = {{0, 1}}};
    model.forward(step);
    seen[static_cast<size_t>(step.token_ids[0]) / 32] |= 1u << (step.token_ids[0] % 32);
    if (n + 1 < static_cast<int32_t>(prompt.size())) continue;
    const int32_t row = 0;
    const SampledRow want =
        sample_row(model.logits({&row, 1}).row(0), seen.data(), n + 1, params, scratch);
    EXPECT_EQ(all[static_cast<size_t>(n) + 1], want.id) << n;
  }
}

}  // namespace
}  // namespace mantissa
