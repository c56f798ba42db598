// The engine over real models: published greedy text and logits, and prompts in one batch equal to
// prompts one at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "mantissa/llm.h"

namespace mantissa {
namespace {

const std::filesystem::path kStories =
    std::filesystem::path(MANTISSA_SHARED_DIR) / "models" / "stories260K";
const std::filesystem::path kWiki =
    std::filesystem::path(MANTISSA_SOURCE_DIR) / "models" / "wiki-6m";

#define SKIP_WITHOUT_STORIES()                                          \
  if (!std::filesystem::exists(kStories / "config.json")) {             \
    GTEST_SKIP() << "needs stories260K of the shared folder's models/"; \
  }

struct DeviceRow {
  const char* device;
  double logits_gap_max;  // over the largest |logit|: issue 2, check 3
};
constexpr DeviceRow kDevices[] = {{"ref", 1e-5}, {"cpu", 1e-4}};

TEST(Stories, GreedyTextIsThePublishedOne) {
  SKIP_WITHOUT_STORIES();
  std::string expected = read_file(kStories / "expected_greedy.txt", 1 << 20);
  ASSERT_TRUE(expected.ends_with('\n'));
  expected.pop_back();
  for (const DeviceRow& row : kDevices) {
    Llm llm(kStories, {.device = row.device, .dtype = "float32", .threads = 2});
    std::string streamed;
    const Completion answer =
        llm.generate("", {.max_tokens = 256, .temperature = 0}, [&](const StreamChunk& chunk) {
          streamed += chunk.text;
          return true;
        });
    EXPECT_EQ(answer.text, expected) << row.device;
    EXPECT_EQ(streamed, expected) << row.device;
    EXPECT_EQ(answer.prompt_tokens, 1);
  }
}

TEST(Stories, LogitsAreThePublishedOnes) {
  SKIP_WITHOUT_STORIES();
  const json::Document document = json::parse_file(kStories / "golden_greedy.json");
  std::vector<int32_t> ids;
  for (size_t i = 0; i < document.root().at("ids").size(); ++i) {
    ids.push_back(static_cast<int32_t>(document.root().at("ids")[i].as_int()));
  }
  const json::Value golden = document.root().at("logits");
  ASSERT_GE(golden.size(), 6u);
  for (const DeviceRow& row : kDevices) {
    Model model(ModelOptions{.folder = kStories,
                             .device = row.device,
                             .dtype = "float32",
                             .ignore = {},
                             .max_num_seqs = 1,
                             .kv_tokens = 512,
                             .input_ranges = {}});
    model.load();
    Model::Step step;
    std::vector<int32_t> pages;
    for (int32_t i = 0; i < static_cast<int32_t>(ids.size()); ++i) {
      step.token_ids.push_back(ids[static_cast<size_t>(i)]);
      step.positions.push_back(i);
      step.slots.push_back(i);
      if (i % model.limits().kv_page_tokens == 0) {
        pages.push_back(static_cast<int32_t>(i / model.limits().kv_page_tokens));
      }
    }
    step.query_start = {0, static_cast<int32_t>(ids.size())};
    step.context_len = {static_cast<int32_t>(ids.size())};
    step.block_tables = {pages};
    model.forward(step);
    for (size_t i = 0; i < golden.size(); ++i) {
      const auto [position, values] = golden.member(i);
      const int32_t at = std::stoi(std::string(position));
      const std::span<const float> got = model.logits(std::span(&at, 1)).row(0);
      ASSERT_EQ(values.size(), got.size());
      double largest = 0, gap = 0;
      for (size_t v = 0; v < got.size(); ++v) {
        const double expected = values[v].as_number();
        largest = std::max(largest, std::abs(expected));
        gap = std::max(gap, std::abs(static_cast<double>(got[v]) - expected));
      }
      EXPECT_LE(gap / largest, row.logits_gap_max) << row.device << " position " << position;
    }
  }
}

constexpr const char* kParagraph =
    "The history of the city begins in the early thirteenth century, when a small group of "
    "fishermen settled on the northern bank of the river. In 1342 the town received its charter, "
    "and within two generations it had become one of the most important ports of the region. "
    "Trade with the islands brought salt, timber and wool; a cathedral was built between 1390 and "
    "1451, and its two towers can still be seen from the sea. The war of 1618 destroyed most of "
    "the houses, but the walls were repaired and the population grew again.";

std::vector<std::string> prompts_of_all_lengths(size_t count) {
  const std::string paragraph = kParagraph;
  std::vector<std::string> prompts;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = (i * 37) % 200, length = i == 0 ? 0 : 1 + (i * i * 7) % 300;
    prompts.push_back(paragraph.substr(begin, length));
  }
  return prompts;
}

struct SchemeCase {
  const char* name;
  const char* kv_cache_dtype = "auto";
};
// Without fp8: its activation scale spans the batch.
constexpr SchemeCase kSchemes[] = {{"bf16"},
                                   {"ptpc_fp8"},
                                   {"fp8_weight_only"},
                                   {"int8"},
                                   {"int8_weight_only"},
                                   {"int4_weight_only:g32"},
                                   {"int4_weight_only:g64"},
                                   {"int4_weight_only:g128"},
                                   {"int4_weight_only:g256"},
                                   {"ptpc_fp8", "fp8"}};

class Batch64 : public testing::TestWithParam<SchemeCase> {};

// The batch runs in chunks of at most 192 tokens over a cache that is too small for all: prefill,
// decode, chunks and preemption meet. Sampled with the model's own temperature and top-p.
TEST_P(Batch64, EqualsOneAtATime) {
  Llm llm(kWiki, {.quantization = GetParam().name,
                  .threads = 2,
                  .kv_cache_dtype = GetParam().kv_cache_dtype,
                  .max_num_batched_tokens = 192,
                  .kv_cache_tokens = 2048});
  const std::vector<std::string> prompts = prompts_of_all_lengths(64);
  const GenerateOptions options{.max_tokens = 16, .seed = 5};
  const std::vector<Completion> together = llm.generate(prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Completion alone = llm.generate(prompts[i], options);
    ASSERT_EQ(together[i].token_ids, alone.token_ids) << "prompt " << i;
    ASSERT_EQ(together[i].text, alone.text);
    ASSERT_EQ(together[i].finish_reason, alone.finish_reason);
  }
}

std::string case_name(const testing::TestParamInfo<SchemeCase>& info) {
  std::string name = text(info.param.name, "_kv_", info.param.kv_cache_dtype);
  std::replace(name.begin(), name.end(), ':', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Schemes, Batch64, testing::ValuesIn(kSchemes), case_name);

TEST(Llm, RefusesAPromptThatDoesNotFitBeforeAnythingRuns) {
  Llm llm(kWiki, {.threads = 2, .max_model_len = 40});
  try {
    llm.generate({"short", kParagraph}, {.max_tokens = 10});
    FAIL() << "must be refused";
  } catch (const Error& e) {
    EXPECT_TRUE(e.found.starts_with("prompt 1: the prompt has ")) << e.found;
    EXPECT_NE(e.found.find("tokens, and the context ends at 40"), std::string::npos) << e.found;
  }
  EXPECT_EQ(llm.generate("short", {.max_tokens = 3, .ignore_eos = true}).completion_tokens, 3);
}

TEST(Llm, TheStreamCanEndAnAnswer) {
  Llm llm(kWiki, {.threads = 2});
  size_t chunks = 0;
  const auto answers =
      llm.generate({"The city", "The river"}, {.max_tokens = 12, .ignore_eos = true},
                   [&](const StreamChunk& chunk) {
                     chunks += chunk.prompt == 0 ? 1 : 0;
                     return chunk.prompt != 0 || chunks < 3;
                   });
  EXPECT_EQ(answers[0].finish_reason, "cancelled");
  EXPECT_EQ(answers[0].completion_tokens, 3);
  EXPECT_EQ(answers[1].finish_reason, "length");
  EXPECT_EQ(answers[1].completion_tokens, 12);
}

TEST(Llm, SaysWhatItUses) {
  Llm llm(kWiki, {.threads = 2});
  EXPECT_NE(llm.describe().find("temperature 0.8 (generation_config.json)"), std::string::npos);
  EXPECT_NE(llm.describe({.temperature = 0.5}).find("temperature 0.5,"), std::string::npos);
  EXPECT_EQ(llm.info().quantization, "bf16");
  EXPECT_EQ(llm.info().max_model_len, 512);
  EXPECT_GT(llm.info().parameters, 6'000'000);
  EXPECT_EQ(llm.decode(llm.encode("The city")), "The city");
  EXPECT_THROW(Llm(kWiki, {.quantization = "no_such_scheme"}), Error);
  EXPECT_THROW(Llm(kWiki / "nowhere"), Error);
}

}  // namespace
}  // namespace mantissa
