// What character properties mean to the reference tokenizers: its Unicode tables are not those of
// the installed PCRE2 and utf8proc, and ids must not depend on them. The tables were found by
// asking the reference about every code point (tools/make_unicode_sets.py).
#pragma once

#include <span>
#include <string_view>

namespace mantissa {

struct CharSet {
  std::string_view names;    // as patterns spell it, separated by spaces; "#..." : no pattern can
  std::string_view items;    // PCRE2 class items
  std::string_view missing;  // code points that the items lack in PCRE2 10.42
  std::string_view extra;    // code points that they must not match
};
std::span<const CharSet> char_sets();

struct CodePointRange {
  char32_t first, last;
};
// Code points that the reference's normalization, made for an older Unicode, neither decomposes nor
// reorders while utf8proc does. Ascending.
std::span<const CodePointRange> opaque_to_normalization();

struct LowerCase {
  char32_t upper;
  std::string_view lower;
};
// Where the reference's lower case is not utf8proc_tolower. Ascending.
std::span<const LowerCase> special_lower_case();

}  // namespace mantissa
