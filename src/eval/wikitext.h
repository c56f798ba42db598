// lm-eval's task `wikitext`: pages, its detokenizer, what it counts, its metrics. Equal to lm-eval
// 0.4 (tests/golden/wikitext_lm_eval.json); the rules stand in docs/evaluation.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/perplexity.h"
#include "text/tokenizer.h"

namespace mantissa {

// Where the task's pages lie in a data folder.
inline constexpr std::string_view kWikitextFile =
    "wikitext-2-raw/wikitext_document_level_test.jsonl";

// The texts of {"page": ...} lines. Throws Error naming the line.
std::vector<std::string> read_wikitext_pages(const std::filesystem::path& file);

// Undoes WikiText's tokenization (" @-@ ", spaces before punctuation and inside brackets). Rule by
// rule what lm-eval does, its slips included.
std::string wikitext_detokenize(std::string_view page);

// len(re.split(r"\s+", page)): whitespace at either end counts one more.
int64_t count_words(std::string_view page);

struct PageScore {
  double log_likelihood = 0;                 // natural
  int64_t words = 0, bytes = 0, tokens = 0;  // words and bytes of the page as it was
};
struct WikitextResult {
  double word_perplexity = 0, byte_perplexity = 0, bits_per_byte = 0;
};
// Of all pages together.
WikitextResult summarize(std::span<const PageScore> pages);

struct WikitextOptions {
  int32_t prefix = 0;      // BOS, or EOS where there is none
  int64_t length_max = 0;  // of a window
  // lm-eval's default is true; its add_bos_token=False is false. A text that begins with the
  // prefix token's own text gets none added.
  bool add_special_tokens = true;
};
// The pages' windows, one after the other, and their counts; log-likelihoods are still 0.
struct WikitextTask {
  std::vector<Window> windows;
  std::vector<PageScore> pages;
};
WikitextTask wikitext_task(const Tokenizer& tokenizer, std::span<const std::string> pages,
                           const WikitextOptions& options);
// Adds up each page's part of window_nlls().
void add_scores(WikitextTask& task, std::span<const float> nlls);

}  // namespace mantissa
