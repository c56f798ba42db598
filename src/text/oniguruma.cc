// A recursive-descent reader of Oniguruma's syntax (its doc/RE, ONIG_SYNTAX_ONIGURUMA) that writes
// PCRE2's. Sets of characters are unions of PCRE2 class items and of whole matchers, because PCRE2
// classes can neither nest, nor intersect, nor hold a negated union.
#include "text/oniguruma.h"

#include <array>
#include <cctype>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "text/unicode_sets.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr size_t kPatternBytesMax = 1 << 16;
constexpr int kDepthMax = 64;
constexpr std::string_view kAnyCodePoint = "(?s:.)";
constexpr std::string_view kNothing = "(?!)";
constexpr std::string_view kBracketWord = "#bracket_word";  // \w in brackets: six code points less

// A set of code points.
struct Set {
  std::string items;                // PCRE2 class items
  std::vector<std::string> others;  // PCRE2 patterns, each matches one code point
  bool negated = false;

  std::string united() const {
    if (others.empty()) return items.empty() ? std::string(kNothing) : text("[", items, "]");
    std::string out = "(?:";
    if (!items.empty()) out += text("[", items, "]|");
    for (const std::string& other : others) out += other + "|";
    out.back() = ')';
    return out;
  }
  std::string matcher() const {
    if (!negated) return united();
    if (others.empty()) return items.empty() ? std::string(kAnyCodePoint) : text("[^", items, "]");
    return text("(?:(?!", united(), ")", kAnyCodePoint, ")");
  }
  void add(const Set& set) {
    if (set.negated) return others.push_back(set.matcher());
    items += set.items;
    others.insert(others.end(), set.others.begin(), set.others.end());
  }
};

Set set_of(const CharSet& row, bool negated) {
  const std::string items = std::string(row.items) + std::string(row.missing);
  if (row.extra.empty()) return {items, {}, negated};
  return {"", {text("(?:(?![", row.extra, "])[", items, "])")}, negated};
}

// Names of properties ignore case, spaces, '-' and '_'.
bool same_name(std::string_view a, std::string_view b) {
  const auto letters = [](std::string_view s) {
    std::string out;
    for (char c : s) {
      if (c != ' ' && c != '-' && c != '_') {
        out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      }
    }
    return out;
  };
  return letters(a) == letters(b);
}

const CharSet* find_set(std::string_view name) {
  for (const CharSet& row : char_sets()) {
    for (std::string_view rest = row.names; !rest.empty();) {
      const size_t space = std::min(rest.find(' '), rest.size());
      if (same_name(rest.substr(0, space), name)) return &row;
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
  }
  return nullptr;
}

const CharSet& known_set(std::string_view name) {
  const CharSet* row = find_set(name);
  check(row != nullptr, "a character set of unicode_sets.cc");
  return *row;
}

// Escapes that stand for a set, inside and outside of brackets.
struct SetEscape {
  char letter;
  std::string_view name;
  bool negated;
};
constexpr std::array<SetEscape, 8> kSetEscapes = {{{'d', "Digit", false},
                                                   {'D', "Digit", true},
                                                   {'s', "White_Space", false},
                                                   {'S', "White_Space", true},
                                                   {'w', "Word", false},
                                                   {'W', "Word", true},
                                                   {'h', "XDigit", false},
                                                   {'H', "XDigit", true}}};

struct CharEscape {
  char letter;
  char32_t code_point;
};
constexpr std::array<CharEscape, 7> kCharEscapes = {
    {{'n', 0x0A}, {'t', 0x09}, {'r', 0x0D}, {'f', 0x0C}, {'v', 0x0B}, {'a', 0x07}, {'e', 0x1B}}};

// Groups that are the same in both.
constexpr std::array<std::string_view, 6> kSameGroups = {"(?:", "(?=",  "(?!",
                                                         "(?>", "(?<=", "(?<!"};

std::string literal(char32_t c) {
  if (c < 0x80 && std::isalnum(static_cast<int>(c))) return std::string(1, static_cast<char>(c));
  if (c < 0x80 && std::ispunct(static_cast<int>(c))) return {'\\', static_cast<char>(c)};
  std::ostringstream hex;
  hex << "\\x{" << std::hex << static_cast<uint32_t>(c) << "}";
  return hex.str();
}

class Translator {
 public:
  Translator(std::string_view in, const std::string& where) : in_(in), where_(where) {}

  std::string run() {
    std::string out = alternatives();
    if (pos_ < in_.size()) fail("a ')' without '('");
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& found) const {
    throw Error(
        text(where_, ": ", found, " at byte ", pos_, " of the pattern ", mantissa::quoted(in_)),
        "use a pattern without it; back references, calls, conditionals, callouts, \\X, \\K "
        "and (?x) are not supported");
  }
  bool at(std::string_view s) const { return in_.substr(pos_).starts_with(s); }
  bool take(std::string_view s) {
    const bool found = at(s);
    if (found) pos_ += s.size();
    return found;
  }
  char32_t take_code_point() {
    if (pos_ >= in_.size()) fail("the end where a character must be");
    return next_code_point(in_, pos_);
  }

  // Up to the end or a ')' that belongs to a group outside.
  std::string alternatives() {
    if (++depth_ > kDepthMax) fail(text("more than ", kDepthMax, " nested groups"));
    std::string out;
    size_t atom_start = out.npos;  // in out, of what a quantifier would repeat
    bool quantified = false;
    while (pos_ < in_.size() && in_[pos_] != ')') {
      if (take("|")) {
        out += '|';
        atom_start = out.npos;
        continue;
      }
      if (const std::optional<std::string> repeat = quantifier()) {
        if (atom_start == out.npos) fail("a quantifier that has nothing to repeat");
        if (quantified) out.insert(atom_start, "(?:").append(")");
        out += *repeat;
        quantified = true;
        continue;
      }
      atom_start = out.size();
      quantified = false;
      out += atom();
    }
    --depth_;
    return out;
  }

  // nullopt where there is none ('{' may be a literal).
  std::optional<std::string> quantifier() {
    for (char c : {'*', '+', '?'}) {
      if (!take(std::string_view(&c, 1))) continue;
      if (take("?")) return std::string{c, '?'};
      if (take("+")) return std::string{c, '+'};
      return std::string{c};
    }
    if (!at("{")) return std::nullopt;
    const size_t start = pos_++;
    const std::string least = digits();
    const bool comma = take(",");
    const std::string most = comma ? digits() : least;
    if (!take("}") || (least.empty() && most.empty())) return pos_ = start, std::nullopt;
    if (!comma) {
      // Of {n}, '?' is a second quantifier to Oniguruma, not "lazy".
      return text("{", least, "}");
    }
    return text("{", least.empty() ? "0" : least, ",", most, "}", take("?") ? "?" : "");
  }
  std::string digits() {
    const size_t start = pos_;
    while (pos_ < in_.size() && in_[pos_] >= '0' && in_[pos_] <= '9') ++pos_;
    if (pos_ - start > 5) fail("a repeat count of more than five digits");
    return std::string(in_.substr(start, pos_ - start));
  }

  std::string atom() {
    if (at("(")) return group();
    if (at("[")) return bracket().matcher();
    if (take("\\")) return escape();
    if (take(".")) return ".";
    if (take("^")) return "(?m:^)";  // both are about lines in Oniguruma
    if (take("$")) return "(?m:$)";
    return literal(take_code_point());
  }

  std::string group() {
    for (std::string_view same : kSameGroups) {
      if (take(same)) return closed_group(std::string(same));
    }
    if (take("(?<") || take("(?'")) {
      const size_t end = in_.find_first_of(">'", pos_);
      if (end == in_.npos) fail("a group name without end");
      pos_ = end + 1;
      return closed_group("(?:");
    }
    if (at("(*")) fail("a callout or verb");
    if (!take("(?")) return take("("), closed_group("(?:");
    std::string on, off;
    for (std::string* side = &on; !at(":") && !at(")");) {
      const char32_t c = take_code_point();
      if (c == '-' && side == &on) {
        side = &off;
      } else if (c == 'i') {
        *side += 'i';
      } else if (c == 'm') {
        *side += 's';  // "multi-line" is what PCRE2 calls dot-all
      } else if (c != 'x' || side == &on) {
        --pos_, fail("an unknown group option");
      }
    }
    const std::string open = text("(?", on, off.empty() ? "" : "-", off, ":");
    if (take(":")) return closed_group(open);
    take(")");
    // Alone, it holds to the end of the group around it, alternatives included.
    return text(open, alternatives(), ")");
  }
  std::string closed_group(const std::string& open) {
    std::string inside = alternatives();
    if (!take(")")) fail("a '(' without ')'");
    return text(open, inside, ")");
  }

  // Behind a backslash, outside of brackets.
  std::string escape() {
    if (const std::optional<Set> set = set_escape(false)) return set->matcher();
    const std::string word = known_word();
    if (take("b")) return text("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))");
    if (take("B")) return text("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))");
    if (take("R")) return "(?>\\x0D\\x0A|[\\x0A-\\x0D\\x{85}\\x{2028}\\x{2029}])";
    for (const char* same : {"A", "z", "Z", "G"}) {
      if (take(same)) return std::string("\\") + same;
    }
    return literal(char_escape());
  }
  static std::string known_word() { return set_of(known_set("Word"), false).matcher(); }

  std::optional<Set> set_escape(bool bracketed) {
    for (const SetEscape& row : kSetEscapes) {
      if (!take(std::string_view(&row.letter, 1))) continue;
      if (bracketed && row.letter == 'S') return set_of(known_set("#not_space"), false);
      const bool word = row.name == "Word" && bracketed;
      return set_of(known_set(word ? kBracketWord : row.name), row.negated);
    }
    if (!at("p{") && !at("P{")) return std::nullopt;
    bool negated = at("P");
    pos_ += 2;
    if (take("^")) negated = !negated;
    const size_t end = in_.find('}', pos_);
    if (end == in_.npos) fail("\\p{ without }");
    const std::string_view name = in_.substr(pos_, end - pos_);
    const CharSet* row = find_set(name);
    if (row == nullptr || name.starts_with('#')) fail("an unknown or unsupported property");
    pos_ = end + 1;
    return set_of(bracketed && row == find_set("Word") ? known_set(kBracketWord) : *row, negated);
  }

  // An escape that stands for one code point.
  char32_t char_escape() {
    for (const CharEscape& row : kCharEscapes) {
      if (take(std::string_view(&row.letter, 1))) return row.code_point;
    }
    if (take("x{")) return hex(8, "}");
    if (take("x")) {
      const char32_t c = hex(2, "");
      if (c >= 0x80) fail("\\x of a byte that is no character (write \\x{...})");
      return c;
    }
    if (take("u")) return hex(4, "");
    const char32_t c = take_code_point();
    if (c < 0x80 && std::isalnum(static_cast<int>(c))) --pos_, fail("an unsupported escape");
    return c;
  }
  char32_t hex(int digits_max, std::string_view close) {
    uint64_t value = 0;
    int digits = 0;
    for (; digits < digits_max && pos_ < in_.size() &&
           std::isxdigit(static_cast<unsigned char>(in_[pos_]));
         ++digits, ++pos_) {
      const int c = std::tolower(static_cast<unsigned char>(in_[pos_]));
      value = value * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    const bool wanted = close.empty() ? digits == digits_max : digits > 0 && take(close);
    if (!wanted || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail("a hexadecimal escape that is no code point");
    }
    return static_cast<char32_t>(value);
  }

  // [...]: a union of items, or several with && between them.
  Set bracket() {
    if (++depth_ > kDepthMax) fail(text("more than ", kDepthMax, " nested brackets"));
    take("[");
    const bool negated = take("^");
    if (at("]")) fail("an empty bracket, or one that starts with ']'");
    Set set;
    std::string intersection;  // a pattern; empty: none yet
    while (!take("]")) {
      if (pos_ >= in_.size()) fail("a '[' without ']'");
      if (take("&&")) {
        intersection = intersected(intersection, set);
        set = {};
      } else {
        bracket_item(set);
      }
    }
    if (!intersection.empty()) set = {"", {intersected(intersection, set)}, false};
    set.negated = negated;
    --depth_;
    return set;
  }
  static std::string intersected(const std::string& left, const Set& right) {
    return left.empty() ? right.matcher() : text("(?:(?=", left, ")", right.matcher(), ")");
  }

  void bracket_item(Set& set) {
    if (at("[:") && posix(set)) return;
    if (at("[")) return set.add(bracket());
    if (take("\\")) {
      if (const std::optional<Set> escaped = set_escape(true)) return set.add(*escaped);
      return range(set, take("b") ? 0x08 : char_escape());
    }
    range(set, take_code_point());
  }
  // first, or first-last where a '-' follows that is not the bracket's last character.
  void range(Set& set, char32_t first) {
    set.items += literal(first);
    if (!at("-") || at("-]") || at("-[") || at("-&&")) return;
    take("-");
    char32_t last = 0;
    if (take("\\")) {
      if (set_escape(true)) fail("a range that ends with a set");
      last = take("b") ? 0x08 : char_escape();
    } else {
      last = take_code_point();
    }
    if (last < first) fail("a range that ends before it starts");
    set.items += '-';
    set.items += literal(last);
  }
  // [:name:] and [:^name:]; false where it is none, only an inner bracket that starts with ':'.
  bool posix(Set& set) {
    const size_t end = in_.find(":]", pos_ + 2);
    if (end == in_.npos) return false;
    std::string_view name = in_.substr(pos_ + 2, end - pos_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    constexpr std::pair<std::string_view, std::string_view> kNames[] = {
        {"alnum", "Alnum"}, {"alpha", "Alpha"},     {"ascii", "ASCII"},  {"cntrl", "Cc"},
        {"digit", "Digit"}, {"lower", "Lower"},     {"punct", "Punct"},  {"space", "Space"},
        {"upper", "Upper"}, {"word", kBracketWord}, {"xdigit", "XDigit"}};
    for (const auto& [known, set_name] : kNames) {
      if (name != known) continue;
      set.add(set_of(known_set(set_name), negated));
      pos_ = end + 2;
      return true;
    }
    if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == name.npos) {
      fail("an unknown or unsupported POSIX bracket");
    }
    return false;
  }

  std::string_view in_;
  const std::string& where_;
  size_t pos_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kPatternBytesMax) {
    throw Error(text(where, ": a pattern of ", pattern.size(), " bytes"),
                text("use one of at most ", kPatternBytesMax));
  }
  return Translator(pattern, where).run();
}

std::string char_set_to_pcre2(std::string_view name) {
  return set_of(known_set(name), false).matcher();
}

}  // namespace mantissa
