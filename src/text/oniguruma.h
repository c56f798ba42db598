// Oniguruma's regular expressions, as tokenizer.json files use them, rewritten for PCRE2 with UTF
// and UCP so that they match the same text: the meaning of \s \w \h \p{...} ^ $ (?m) (?i), of
// {n}+ and of set operations differs between the two.
#pragma once

#include <string>
#include <string_view>

namespace mantissa {

// `where` names the place in errors. Throws Error for syntax that is wrong or not supported:
// backreferences, calls, conditionals, callouts, \X, \K, extended mode.
std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& where);

// The set of unicode_sets.h as PCRE2 text that matches one code point; the name must be there.
std::string char_set_to_pcre2(std::string_view name);

}  // namespace mantissa
