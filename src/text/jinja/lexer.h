// From a template's text to tokens, as jinja2 with trim_blocks and lstrip_blocks cuts it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa::jinja {

enum class TokenKind : uint8_t {
  kData,           // text between tags
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 0;
  std::string text = {};  // data; a name; an operator; a string without quotes and escapes
  int64_t integer = 0;    // kInteger
  double real = 0;        // kFloat
};

// The last token is kEnd. Throws Error "NAME: line N: ...".
std::vector<Token> tokenize(std::string_view source, const std::string& name);

// The one form of an error about a place in a template.
[[noreturn]] void fail_at(const std::string& name, int line, const std::string& what);

}  // namespace mantissa::jinja
