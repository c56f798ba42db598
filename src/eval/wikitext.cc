#include "eval/wikitext.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace mantissa {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 30;

// One of Python's str.isspace() characters at text[at]: its bytes in UTF-8, or 0.
size_t space_bytes(std::string_view text, size_t at) {
  constexpr std::string_view kWide[] = {"\u0085", "\u00a0", "\u1680", "\u2000", "\u2001",
                                        "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
                                        "\u2007", "\u2008", "\u2009", "\u200a", "\u2028",
                                        "\u2029", "\u202f", "\u205f", "\u3000"};
  const unsigned char byte = static_cast<unsigned char>(text[at]);
  if (byte == ' ' || (byte >= 0x09 && byte <= 0x0d) || (byte >= 0x1c && byte <= 0x1f)) return 1;
  if (byte < 0x80) return 0;
  for (std::string_view wide : kWide)
    if (text.substr(at).starts_with(wide)) return wide.size();
  return 0;
}

std::string_view stripped(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = space_bytes(text, 0);
    if (bytes == 0) break;
    text.remove_prefix(bytes);
  }
  for (size_t bytes = 1; bytes <= std::min<size_t>(3, text.size());) {
    if (space_bytes(text, text.size() - bytes) == bytes) {
      text.remove_suffix(bytes);
      bytes = 1;
    } else {
      ++bytes;
    }
  }
  return text;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    out += to;
    at = found + from.size();
  }
}

// open, anything but close, close -> the same without whitespace just inside the pair.
std::string tightened(std::string_view text, char open, char close) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0;;) {
    const size_t begin = text.find(open, at);
    const size_t end = begin == std::string_view::npos ? begin : text.find(close, begin + 1);
    if (end == std::string_view::npos) {
      out += text.substr(at);
      return out;
    }
    out += text.substr(at, begin + 1 - at);
    out += stripped(text.substr(begin + 1, end - begin - 1));
    out += close;
    at = end + 1;
  }
}

// lm-eval's re.sub(r"/' [0-9]/", r"/'[0-9]/", s): its replacement is that literal text.
std::string number_quotes_replaced(std::string_view text) {
  constexpr std::string_view kHead = "/' ", kReplacement = "/'[0-9]/";
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0;;) {
    const size_t found = text.find(kHead, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    const std::string_view rest = text.substr(found + kHead.size());
    const bool matches = rest.size() >= 2 && rest[0] >= '0' && rest[0] <= '9' && rest[1] == '/';
    out += matches ? kReplacement : kHead;
    at = found + kHead.size() + (matches ? 2 : 0);
  }
}

struct Rule {
  std::string_view from, to;
};
constexpr Rule kSeparators[] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},
                                {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
struct Pair {
  char open, close;
};
constexpr Pair kPairs[] = {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}};
constexpr Rule kLast[] = {{"= = = =", "===="},    {"= = =", "==="}, {"= =", "=="},
                          {" \u00b0 ", "\u00b0"}, {" \n", "\n"},    {"\n ", "\n"},
                          {" N ", " 1 "},         {" 's", "'s"}};

}  // namespace

std::vector<std::string> read_wikitext_pages(const std::filesystem::path& file) {
  const std::string all = read_file(file, kFileBytesMax);
  std::vector<std::string> pages;
  int64_t line = 1;
  for (std::string_view rest = all; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view json = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (stripped(json).empty()) continue;
    const json::Document document = json::parse(json, text(file.string(), ":", line));
    pages.emplace_back(document.root().at("page").as_string());
  }
  if (pages.empty())
    throw Error(text(file.string(), " has no pages"), "give a file of {\"page\": ...} lines");
  return pages;
}

std::string wikitext_detokenize(std::string_view page) {
  std::string out = number_quotes_replaced(replaced(page, "s '", "s'"));
  for (const Rule& rule : kSeparators) out = replaced(out, rule.from, rule.to);
  for (const Pair& pair : kPairs) out = tightened(out, pair.open, pair.close);
  for (const Rule& rule : kLast) out = replaced(out, rule.from, rule.to);
  return out;
}

int64_t count_words(std::string_view page) {
  int64_t words = 1;
  bool in_space = false;
  for (size_t at = 0; at < page.size();) {
    const size_t bytes = space_bytes(page, at);
    if (bytes > 0 && !in_space) ++words;
    in_space = bytes > 0;
    at += std::max<size_t>(bytes, 1);
  }
  return words;
}

WikitextResult summarize(std::span<const PageScore> pages) {
  double log_likelihood = 0, words = 0, bytes = 0;
  for (const PageScore& page : pages) {
    log_likelihood += page.log_likelihood;
    words += static_cast<double>(page.words);
    bytes += static_cast<double>(page.bytes);
  }
  return {.word_perplexity = std::exp(-log_likelihood / words),
          .byte_perplexity = std::exp(-log_likelihood / bytes),
          .bits_per_byte = -log_likelihood / bytes / std::numbers::ln2};
}

WikitextTask wikitext_task(const Tokenizer& tokenizer, std::span<const std::string> pages,
                           const WikitextOptions& options) {
  const std::string_view prefix = tokenizer.token(options.prefix);
  WikitextTask out;
  for (const std::string& page : pages) {
    const std::string plain = wikitext_detokenize(page);
    const bool has_prefix = !prefix.empty() && plain.starts_with(prefix);
    const std::vector<int32_t> ids =
        tokenizer.encode(plain, options.add_special_tokens && !has_prefix);
    out.pages.push_back({0, count_words(page), std::ssize(page), std::ssize(ids)});
    for (Window& window : rolling_windows(ids, options.prefix, options.length_max))
      out.windows.push_back(std::move(window));
  }
  return out;
}

void add_scores(WikitextTask& task, std::span<const float> nlls) {
  size_t at = 0;
  for (PageScore& page : task.pages) {
    check(at + static_cast<size_t>(page.tokens) <= nlls.size(), "add_scores: a score a token");
    for (int64_t t = 0; t < page.tokens; ++t)
      page.log_likelihood -= static_cast<double>(nlls[at++]);
  }
  check(at == nlls.size(), "add_scores: a token a score");
}

}  // namespace mantissa
