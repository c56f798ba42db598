// lm-eval's wikitext task: detokenizer and counts against lm-eval itself on crafted texts and on
// all pages; log-likelihoods of wiki-6m against lm-eval with transformers.
#include "eval/wikitext.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "golden.h"

namespace mantissa {
namespace {

const std::filesystem::path kPages =
    std::filesystem::path(MANTISSA_SOURCE_DIR) / "data" / kWikitextFile;

TEST(WikitextRules, TextsEqualLmEval) {
  const json::Document golden = eval_golden();
  const json::Value texts = golden.root().at("texts");
  ASSERT_GT(texts.size(), 15u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string_view page = texts[i].at("page").as_string();
    EXPECT_EQ(wikitext_detokenize(page), texts[i].at("detokenized").as_string());
    EXPECT_EQ(count_words(page), texts[i].at("words").as_int()) << page;
    EXPECT_EQ(std::ssize(page), texts[i].at("bytes").as_int()) << page;
  }
}

std::string fnv1a(std::string_view data) {
  uint64_t value = 0xCBF29CE484222325;
  for (char byte : data) value = (value ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
  std::string out(16, '0');
  for (size_t i = 0; i < 16; ++i) out[15 - i] = "0123456789abcdef"[value >> (4 * i) & 15];
  return out;
}

TEST(WikitextRules, AllPagesEqualLmEval) {
  const json::Document golden = eval_golden();
  const json::Value hashes = golden.root().at("pages");
  const std::vector<std::string> pages = read_wikitext_pages(kPages);
  ASSERT_EQ(pages.size(), 62u);
  ASSERT_EQ(hashes.size(), pages.size());
  for (size_t p = 0; p < pages.size(); ++p)
    EXPECT_EQ(fnv1a(wikitext_detokenize(pages[p])), hashes[p].as_string()) << "page " << p;
}

TEST(WikitextPages, NameTheLineThatIsWrong) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "pages.jsonl";
  const auto refused = [&](const char* content, const char* named) {
    std::ofstream(file) << content;
    try {
      read_wikitext_pages(file);
      FAIL() << content;
    } catch (const Error& e) {
      EXPECT_NE(e.found.find(named), std::string::npos) << e.found;
    }
  };
  refused("{\"page\": \"a\"}\n{\"text\": \"b\"}\n", "pages.jsonl:2");
  refused("{\"page\": \"a\"}\n{\"page\": 3}\n", "pages.jsonl:2");
  refused("{\"page\": \"a\"}\n{\"page\"\n", "pages.jsonl:2");
  refused("", "no pages");
  refused("\n\n", "no pages");
  std::filesystem::remove(file);
}

TEST(WikitextSummary, IsOverAllPagesTogether) {
  const PageScore pages[] = {{-10, 4, 20, 0}, {-30, 6, 30, 0}};
  const WikitextResult result = summarize(pages);
  EXPECT_DOUBLE_EQ(result.word_perplexity, std::exp(4.0));
  EXPECT_DOUBLE_EQ(result.byte_perplexity, std::exp(0.8));
  EXPECT_DOUBLE_EQ(result.bits_per_byte, 0.8 / std::log(2.0));
}

struct Setting {
  const char* name;  // of the golden
  bool add_special_tokens;
};

class WikitextModel : public testing::TestWithParam<Setting> {};

TEST_P(WikitextModel, PagesEqualLmEval) {
  constexpr size_t kPagesRun = 3;  // the others differ only in length
  const json::Document golden =
      json::parse_file(MANTISSA_SOURCE_DIR "/tests/golden/wikitext_lm_eval.json");
  const json::Value wanted = golden.root().at("models")[0];
  ASSERT_EQ(wanted.at("model").as_string(), "wiki-6m");
  const std::filesystem::path folder =
      std::filesystem::path(MANTISSA_SOURCE_DIR) / "models" / "wiki-6m";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  std::vector<std::string> pages = read_wikitext_pages(kPages);
  pages.resize(kPagesRun);
  const int64_t length = wanted.at("max_length").as_int();
  WikitextTask task =
      wikitext_task(tokenizer, pages,
                    {.prefix = static_cast<int32_t>(wanted.at("prefix_token_id").as_int()),
                     .length_max = length,
                     .add_special_tokens = GetParam().add_special_tokens});
  ModelOptions options;
  options.folder = folder;
  options.dtype = "float32";
  options.max_model_len = length;
  options.kv_tokens =
      window_kv_tokens(length, options.max_num_batched_tokens, options.max_num_seqs);
  Model model(options);
  model.load();
  ThreadPool pool;
  add_scores(task, window_nlls(engine_model(model), task.windows, pool));
  for (size_t p = 0; p < kPagesRun; ++p) {
    const json::Value page = wanted.at("pages")[p];
    EXPECT_EQ(task.pages[p].words, page.at("words").as_int());
    EXPECT_EQ(task.pages[p].bytes, page.at("bytes").as_int());
    EXPECT_EQ(task.pages[p].tokens, page.at("tokens").at(GetParam().name).as_int());
    const double likelihood = page.at(GetParam().name).as_number();
    EXPECT_NEAR(task.pages[p].log_likelihood, likelihood, 1e-4 * std::fabs(likelihood))
        << "page " << p;
  }
}
INSTANTIATE_TEST_SUITE_P(Settings, WikitextModel,
                         testing::Values(Setting{"default", true}, Setting{"no_bos", false}),
                         [](const auto& setting) { return std::string(setting.param.name); });

}  // namespace
}  // namespace mantissa
