#include "io/name_pattern.h"

#include "base/error.h"
#include "base/file.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace mantissa {
namespace {

constexpr size_t kPatternBytesMax = 2000;
constexpr uint32_t kMatchLimit = 100'000, kHeapLimitKib = 4096;

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string message_of(int code) {
  PCRE2_UCHAR message[256] = {};
  pcre2_get_error_message(code, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

}  // namespace

struct NameRegex {
  std::unique_ptr<pcre2_code, FreeCode> code;
  std::unique_ptr<pcre2_match_data, FreeMatch> match;
  std::unique_ptr<pcre2_match_context, FreeContext> context;
};

NamePattern::NamePattern(std::string source, const std::string& where)
    : source_(std::move(source)) {
  if (!source_.starts_with("re:")) return;
  const std::string_view pattern = std::string_view(source_).substr(3);
  const std::string fix = "give re:PATTERN in Perl's syntax, or a module's whole name";
  if (pattern.size() > kPatternBytesMax) {
    throw Error(text(where, ": a pattern of ", pattern.size(), " bytes"),
                text("use at most ", kPatternBytesMax));
  }
  int error = 0;
  PCRE2_SIZE at = 0;
  auto regex = std::make_shared<NameRegex>();
  regex->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_ANCHORED | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C,
                                  &error, &at, nullptr));
  if (regex->code == nullptr) {
    throw Error(
        text(where, " ", quoted(source_), ": not a regular expression (", message_of(error), ")"),
        fix);
  }
  regex->match.reset(pcre2_match_data_create(1, nullptr));
  regex->context.reset(pcre2_match_context_create(nullptr));
  check(regex->match != nullptr && regex->context != nullptr, "memory for a pattern");
  pcre2_set_match_limit(regex->context.get(), kMatchLimit);
  pcre2_set_heap_limit(regex->context.get(), kHeapLimitKib);
  regex_ = std::move(regex);
}

bool NamePattern::matches(const std::string& name) const {
  if (regex_ == nullptr) return name == source_;
  const int rc = pcre2_match(regex_->code.get(), reinterpret_cast<PCRE2_SPTR>(name.data()),
                             name.size(), 0, 0, regex_->match.get(), regex_->context.get());
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc >= 0) return true;
  throw Error(text("pattern ", quoted(source_), " gave up on the name ", quoted(name), ": ",
                   message_of(rc)),
              "write a pattern without nested repetitions");
}

}  // namespace mantissa
