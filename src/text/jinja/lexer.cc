// The lexer: see lexer.h.
#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {

void fail_at(const std::string& name, int line, const std::string& what) {
  throw Error(text(name, ": line ", line, ": ", what),
              "correct the chat template, or use another one (--chat-template FILE)");
}

namespace {

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  Lexer(std::string source, const std::string& name) : source_(std::move(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) {
      const Tag tag = next_tag(pos_);
      add_data(tag);
      if (tag.begin == source_.npos) break;
      line_ += count_lines(tag.begin, tag.inside);
      pos_ = tag.inside;
      if (tag.raw) {
        raw();
      } else if (tag.kind == '#') {
        comment();
      } else {
        inside(tag.kind == '{');
      }
    }
    out_.push_back({.kind = TokenKind::kEnd, .line = line_});
    return std::move(out_);
  }

 private:
  struct Tag {
    size_t begin = std::string::npos;  // of "{%", "{{", "{#"
    size_t inside = 0;                 // behind it, its sign, and all of a raw tag
    char kind = 0, sign = 0;           // '%' '{' '#'; '-', '+' or 0
    bool raw = false;
  };

  [[noreturn]] void fail(const std::string& what) const { fail_at(name_, line_, what); }
  std::string_view rest(size_t from) const { return std::string_view(source_).substr(from); }
  int count_lines(size_t begin, size_t end) const {
    return static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                       source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
  }
  size_t skip_space(size_t at) const {
    const std::string_view text(source_);
    for (size_t next = at; at < text.size(); at = next) {
      if (!python::is_space(next_code_point(text, next))) break;
    }
    return at;
  }
  // Behind "WORD %}" where that stands here; npos where not. "-%}" takes white space along, as it
  // does everywhere; only the end of a raw block knows "+%}" and takes a newline.
  size_t tag_word(size_t at, std::string_view word, bool ends_raw) const {
    at = skip_space(at);
    if (!rest(at).starts_with(word)) return source_.npos;
    at = skip_space(at + word.size());
    if (rest(at).starts_with('+') && !ends_raw) return source_.npos;
    const bool sign = rest(at).starts_with('-') || rest(at).starts_with('+');
    return rest(at + (sign ? 1 : 0)).starts_with("%}") ? behind_end(at, "%}", ends_raw)
                                                       : source_.npos;
  }

  Tag next_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != source_.npos; at = source_.find('{', at + 1)) {
      const std::string_view here = rest(at);
      if (here.size() < 2 || (here[1] != '%' && here[1] != '{' && here[1] != '#')) continue;
      Tag tag{.begin = at, .inside = at + 2, .kind = here[1]};
      if (here.size() > 2 && (here[2] == '-' || here[2] == '+')) {
        tag.sign = here[2];
        ++tag.inside;
      }
      if (tag.kind == '%') {
        const size_t behind = tag_word(tag.inside, "raw", false);
        tag.raw = behind != source_.npos;
        if (tag.raw) tag.inside = behind;
      }
      return tag;
    }
    return {};
  }

  // The text before a tag, less what the tag strips. A line's indentation goes with a tag that is
  // first on it (lstrip_blocks).
  std::string_view stripped(std::string_view data, const Tag& tag, bool at_line_start) const {
    if (tag.sign == '-') return python::strip(data, python::Side::kRight);
    if (tag.sign == '+' || tag.kind == '{') return data;
    const size_t newline = data.rfind('\n');
    const size_t line = newline == data.npos ? 0 : newline + 1;
    if (line == 0 && !at_line_start) return data;
    // What is empty is no white space to the reference, and nothing changes.
    return python::strip(data.substr(line), python::Side::kLeft).empty() ? data.substr(0, line)
                                                                         : data;
  }
  void add_data(const Tag& tag) {
    const size_t end = std::min(tag.begin, source_.size());
    std::string_view data = std::string_view(source_).substr(pos_, end - pos_);
    const int lines = count_lines(pos_, end);
    if (tag.begin != source_.npos) data = stripped(data, tag, line_starting_);
    if (!data.empty()) {
      out_.push_back({.kind = TokenKind::kData, .line = line_, .text = std::string(data)});
    }
    line_ += lines;
  }
  void advance(size_t to) {
    line_ += count_lines(pos_, to);
    line_starting_ = to > 0 && source_[to - 1] == '\n';
    pos_ = to;
  }
  // Behind the end of a tag that starts at `at` with its sign: "-%}" takes white space, "%}" one
  // newline (trim_blocks).
  size_t behind_end(size_t at, std::string_view end, bool trims) const {
    if (rest(at).starts_with('-')) return skip_space(at + 1 + end.size());
    if (rest(at).starts_with('+')) return at + 1 + end.size();
    at += end.size();
    return trims && rest(at).starts_with('\n') ? at + 1 : at;
  }

  void comment() {
    const size_t end = source_.find("#}", pos_);
    if (end == source_.npos) fail("a comment does not end: \"#}\" is missing");
    const bool sign = end > pos_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    advance(behind_end(sign ? end - 1 : end, "#}", true));
  }

  void raw() {
    for (size_t at = source_.find("{%", pos_); at != source_.npos;
         at = source_.find("{%", at + 1)) {
      Tag tag{.begin = at, .inside = at + 2, .kind = '%'};
      const char sign = rest(tag.inside).empty() ? '\0' : rest(tag.inside)[0];
      if (sign == '-' || sign == '+') {
        tag.sign = sign;
        ++tag.inside;
      }
      const size_t behind = tag_word(tag.inside, "endraw", true);
      if (behind == source_.npos) continue;
      line_starting_ = pos_ > 0 && source_[pos_ - 1] == '\n';
      add_data(tag);
      const int lines = count_lines(pos_, at);
      line_ -= lines;  // advance() counts them again
      return advance(behind);
    }
    fail("{% raw %} does not end: {% endraw %} is missing");
  }

  // The tokens of a {{ }} or {% %}.
  void inside(bool variable) {
    out_.push_back(
        {.kind = variable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, .line = line_});
    const std::string_view end = variable ? "}}" : "%}";
    std::string open;  // brackets
    for (;;) {
      const size_t at = skip_space(pos_);
      line_ += count_lines(pos_, at);
      pos_ = at;
      if (pos_ >= source_.size())
        fail(text("the template ends inside of a tag: \"", end, "\" is missing"));
      const bool sign = rest(pos_)[0] == '-' || (!variable && rest(pos_)[0] == '+');
      if (open.empty() && rest(pos_ + (sign ? 1 : 0)).starts_with(end)) {
        out_.push_back(
            {.kind = variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, .line = line_});
        return advance(behind_end(pos_, end, !variable));
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = source_[pos_];
    if (c == '\'' || c == '"') return string(c);
    if (is_digit(c)) return number();
    if (is_name_start(c)) return word();
    for (std::string_view op : kOperators) {
      if (!rest(pos_).starts_with(op)) continue;
      balance(op[0], open);
      out_.push_back({.kind = TokenKind::kOperator, .line = line_, .text = std::string(op)});
      pos_ += op.size();
      return;
    }
    size_t end = pos_;
    next_code_point(source_, end);
    fail(text("unexpected character ", quoted(rest(pos_).substr(0, end - pos_))));
  }

  void balance(char c, std::string& open) const {
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (kOpen.find(c) != kOpen.npos) return open.push_back(c);
    const size_t closes = kClose.find(c);
    if (closes == kClose.npos) return;
    if (open.empty()) fail(text("unexpected '", c, "'"));
    const char want = kClose[kOpen.find(open.back())];
    if (want != c) fail(text("unexpected '", c, "', expected '", want, "'"));
    open.pop_back();
  }

  void word() {
    size_t end = pos_;
    const std::string_view text(source_);
    for (size_t next = end; end < text.size(); end = next) {
      const char32_t c = next_code_point(text, next);
      if (c < 0x80 ? !(is_name_start(text[end]) || is_digit(text[end])) : !python::is_alnum(c))
        break;
    }
    if (end == pos_) fail("a character that no name may have");
    out_.push_back({.kind = TokenKind::kName,
                    .line = line_,
                    .text = std::string(text.substr(pos_, end - pos_))});
    pos_ = end;
  }

  // Digits with single underscores between them; npos where there is none.
  size_t digits(size_t at, std::string_view allowed) const {
    const auto is_one = [&](size_t i) {
      return i < source_.size() && allowed.find(source_[i]) != allowed.npos;
    };
    if (!is_one(at)) return source_.npos;
    for (;;) {
      if (is_one(at + 1)) {
        ++at;
      } else if (at + 1 < source_.size() && source_[at + 1] == '_' && is_one(at + 2)) {
        at += 2;
      } else {
        return at + 1;
      }
    }
  }
  void number() {
    constexpr std::string_view kTen = "0123456789";
    struct Base {
      char letter;
      std::string_view digits;
      int base;
    };
    constexpr Base kBases[] = {
        {'x', "0123456789abcdefABCDEF", 16}, {'o', "01234567", 8}, {'b', "01", 2}};
    for (const Base& base : kBases) {
      if (source_[pos_] != '0' || rest(pos_).size() < 3 || (rest(pos_)[1] | 0x20) != base.letter)
        continue;
      const size_t first = pos_ + 2 + (rest(pos_)[2] == '_' ? 1 : 0);
      const size_t end = digits(first, base.digits);
      if (end != source_.npos) return add_integer(first, end, base.base);
    }
    size_t end = digits(pos_, kTen);
    bool real = false;
    if (rest(end).starts_with('.')) {
      const size_t fraction = digits(end + 1, kTen);
      if (fraction != source_.npos) end = fraction, real = true;
    }
    if (!rest(end).empty() && (rest(end)[0] | 0x20) == 'e') {
      const size_t sign =
          !rest(end + 1).empty() && (rest(end)[1] == '+' || rest(end)[1] == '-') ? 1 : 0;
      const size_t exponent = digits(end + 1 + sign, kTen);
      if (exponent != source_.npos) end = exponent, real = true;
    }
    if (!real) return add_integer(pos_, end, 10);
    std::string plain = source_.substr(pos_, end - pos_);
    std::erase(plain, '_');
    Token token{.kind = TokenKind::kFloat, .line = line_};
    std::from_chars(plain.data(), plain.data() + plain.size(), token.real);
    out_.push_back(std::move(token));
    pos_ = end;
  }
  void add_integer(size_t first, size_t end, int base) {
    std::string plain = source_.substr(first, end - first);
    std::erase(plain, '_');
    Token token{.kind = TokenKind::kInteger, .line = line_};
    const auto [at, error] =
        std::from_chars(plain.data(), plain.data() + plain.size(), token.integer, base);
    if (error != std::errc{}) fail(text("the number ", plain, " needs more than 64 bits"));
    out_.push_back(std::move(token));
    pos_ = end;
  }

  void string(char quote) {
    Token token{.kind = TokenKind::kString, .line = line_};
    size_t at = pos_ + 1;
    for (;; ++at) {
      if (at >= source_.size()) fail("a string does not end");
      if (source_[at] == quote) break;
      if (source_[at] == '\\') {
        at = escape(at + 1, token.text);
      } else {
        token.text.push_back(source_[at]);
      }
    }
    line_ += count_lines(pos_, at);
    pos_ = at + 1;
    out_.push_back(std::move(token));
  }
  // The escape whose letter is at `at`; returns its last byte. An unknown one stays as it is.
  size_t escape(size_t at, std::string& out) const {
    if (at >= source_.size()) fail("a string does not end");
    constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeant = "\a\b\f\n\r\t\v\\'\"";
    const char c = source_[at];
    if (const size_t i = kLetters.find(c); i != kLetters.npos) return out.push_back(kMeant[i]), at;
    if (c == '\n') return at;
    if (c >= '0' && c <= '7') {
      uint32_t value = 0;
      size_t end = at;
      while (end < source_.size() && end < at + 3 && source_[end] >= '0' && source_[end] <= '7') {
        value = value * 8 + static_cast<uint32_t>(source_[end++] - '0');
      }
      append_utf8(out, value);
      return end - 1;
    }
    const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == 'N') fail("a character by name (\\N{...}) in a string is not supported");
    if (count == 0) {
      out.push_back('\\');
      if (static_cast<uint8_t>(c) < 0x80) return out.push_back(c), at;
      return at - 1;  // read again: it has several bytes
    }
    uint32_t value = 0;
    const char* first = source_.data() + at + 1;
    const char* last = source_.data() + std::min(at + 1 + count, source_.size());
    const auto [end, error] = std::from_chars(first, last, value, 16);
    if (error != std::errc{} || end != first + count)
      fail(text("the escape \\", c, " needs ", count, " hexadecimal digits"));
    if (value > 0x10FFFF) fail("an escape beyond the last character");
    if (value >= 0xD800 && value < 0xE000)
      fail("a half of a surrogate pair in a string is not supported");
    append_utf8(out, value);
    return at + count;
  }

  const std::string source_;
  const std::string& name_;
  std::vector<Token> out_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

// "\r\n" and "\r" are newlines; one newline at the end of the text goes.
std::string with_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
      out.push_back('\n');
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  if (!is_valid_utf8(source)) {
    throw Error(text(name, ": the chat template is no valid UTF-8"), "save it as UTF-8");
  }
  return Lexer(with_newlines(source), name).run();
}

}  // namespace mantissa::jinja
