// Patterns of tokenizer.json: a literal string or a regular expression in Oniguruma's syntax, which
// the reference library uses. Run by PCRE2 (JIT) under limits: reaching one is an Error.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa {

// A part of a text: a match of a pattern, or what lies between matches.
struct Part {
  size_t begin, end;  // bytes
  bool match;
};

struct CompiledRegex;  // shared, immutable
// What matching writes to; one for each thread, for any number of patterns.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

  struct Data;
  Data& get();  // made when first needed: literals need none

 private:
  std::unique_ptr<Data> data_;
};

class Pattern {
 public:
  // Throws Error naming `where`: an empty literal, a regex that is wrong or uses what is not
  // supported.
  static Pattern literal(std::string text, const std::string& where);
  static Pattern regex(std::string_view oniguruma, const std::string& where);
  // One code point of a set of unicode_sets.h, repeated as the quantifier says ("", "+").
  static Pattern char_set(std::string_view name, std::string_view quantifier = "");

  bool is_literal() const { return regex_ == nullptr; }
  const std::string& literal_text() const { return literal_; }

  // Appends the parts of valid UTF-8 `text`: matches from left to right, as the reference's
  // iterator finds them, and what lies between. No empty part that is no match.
  void split(std::string_view text, MatchScratch& scratch, std::vector<Part>& out) const;
  // text with every match replaced.
  std::string replace(std::string_view text, std::string_view content, MatchScratch& scratch) const;
  bool matches_at(std::string_view text, size_t pos, MatchScratch& scratch) const;

 private:
  Pattern() = default;
  std::string literal_;
  std::shared_ptr<const CompiledRegex> regex_;
};

}  // namespace mantissa
