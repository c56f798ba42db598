// Patterns over PCRE2: see pattern.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#include "base/error.h"
#include "base/file.h"
#include "text/oniguruma.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000;  // steps of one search; about a second
constexpr uint32_t kHeapLimitKib = 256 << 10;
constexpr size_t kJitStackBytes = size_t{256} << 20;  // reserved, touched as far as needed
constexpr size_t kPatternBytesMax = size_t{1} << 22;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;

std::string pcre2_message(int code) {
  PCRE2_UCHAR message[256];
  pcre2_get_error_message(code, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

template <class T>
T* owned(T* p) {
  if (p == nullptr)
    throw Error("no memory for a regular expression", "free some memory", Error::Kind::kRuntime);
  return p;
}

}  // namespace

struct CompiledRegex {
  std::unique_ptr<pcre2_code, Freed<pcre2_code_free>> code;
  std::string where, pattern;  // for errors
};

struct MatchScratch::Data {
  std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>> match;
  std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>> stack;
  std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>> context;
};

MatchScratch::MatchScratch() = default;
MatchScratch::Data& MatchScratch::get() {
  if (!data_) {
    auto data = std::make_unique<Data>();
    data->match.reset(owned(pcre2_match_data_create(1, nullptr)));
    data->context.reset(owned(pcre2_match_context_create(nullptr)));
    data->stack.reset(owned(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)));
    pcre2_jit_stack_assign(data->context.get(), nullptr, data->stack.get());
    pcre2_set_match_limit(data->context.get(), kMatchLimit);
    pcre2_set_heap_limit(data->context.get(), kHeapLimitKib);
    data_ = std::move(data);
  }
  return *data_;
}
MatchScratch::~MatchScratch() = default;

namespace {

std::shared_ptr<const CompiledRegex> compile(const std::string& pcre2, std::string_view shown,
                                             const std::string& where) {
  CompileContext context(owned(pcre2_compile_context_create(nullptr)));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), kPatternBytesMax);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto out = std::make_shared<CompiledRegex>();
  out->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pcre2.data()), pcre2.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                context.get()));
  if (!out->code) {
    throw Error(
        text(where, ": the pattern ", mantissa::quoted(shown), " is wrong: ", pcre2_message(error)),
        "correct the pattern");
  }
  out->where = where;
  out->pattern = shown;
  // Without a JIT for this machine or pattern, the interpreter gives the same matches.
  pcre2_jit_compile(out->code.get(), PCRE2_JIT_COMPLETE);
  return out;
}

// The first match at or behind `start`; false where there is none.
bool search(const CompiledRegex& regex, std::string_view text, size_t start, uint32_t options,
            MatchScratch& scratch, Part& found) {
  MatchScratch::Data& data = scratch.get();
  const int rc =
      pcre2_match(regex.code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                  PCRE2_NO_UTF_CHECK | options, data.match.get(), data.context.get());
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    throw Error(
        mantissa::text(regex.where, ": the pattern ", mantissa::quoted(regex.pattern),
                       " gave up on a text of ", text.size(), " bytes: ", pcre2_message(rc)),
        "shorten the text or split it", Error::Kind::kRuntime);
  }
  const PCRE2_SIZE* pair = pcre2_get_ovector_pointer(data.match.get());
  found = {pair[0], pair[1], true};
  return true;
}

}  // namespace

Pattern Pattern::literal(std::string text, const std::string& where) {
  if (text.empty()) throw Error(where + ": an empty pattern", "give it a text to look for");
  Pattern out;
  out.literal_ = std::move(text);
  return out;
}

Pattern Pattern::regex(std::string_view oniguruma, const std::string& where) {
  Pattern out;
  out.regex_ = compile(oniguruma_to_pcre2(oniguruma, where), oniguruma, where);
  return out;
}

Pattern Pattern::char_set(std::string_view name, std::string_view quantifier) {
  Pattern out;
  out.regex_ = compile(char_set_to_pcre2(name) + std::string(quantifier), name, "built-in set");
  return out;
}

void Pattern::split(std::string_view text, MatchScratch& scratch, std::vector<Part>& out) const {
  size_t end = 0;  // of what out covers
  const auto add = [&](Part match) {
    if (end != match.begin) out.push_back({end, match.begin, false});
    out.push_back(match);
    end = match.end;
  };
  if (is_literal()) {
    for (size_t at; (at = text.find(literal_, end)) != text.npos;) {
      add({at, at + literal_.size(), true});
    }
  } else {
    Part found;
    bool any = false;  // whether there was a match; an empty one right behind it does not count
    for (size_t start = 0; start <= text.size() && !text.empty();) {
      if (!search(*regex_, text, start, 0, scratch, found)) break;
      if (found.begin == found.end && any && found.end == end) {
        start = start < text.size() ? start + utf8_bytes(text[start]) : start + 1;
        continue;
      }
      add(found);
      any = true;
      start = found.end;
    }
  }
  if (end != text.size()) out.push_back({end, text.size(), false});
}

std::string Pattern::replace(std::string_view text, std::string_view content,
                             MatchScratch& scratch) const {
  std::vector<Part> parts;
  split(text, scratch, parts);
  std::string out;
  for (const Part& part : parts) {
    out += part.match ? content : text.substr(part.begin, part.end - part.begin);
  }
  return out;
}

bool Pattern::matches_at(std::string_view text, size_t pos, MatchScratch& scratch) const {
  if (is_literal()) return text.substr(pos).starts_with(literal_);
  Part found;
  return search(*regex_, text, pos, PCRE2_ANCHORED, scratch, found);
}

}  // namespace mantissa
