// UTF-8: reading, writing, and making any bytes valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mantissa {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the start of some bytes.
struct Utf8Head {
  enum class Kind : uint8_t { kCodePoint, kInvalid, kUnfinished };
  Kind kind;
  uint8_t bytes;        // of the character, or of the maximal invalid or unfinished part
  char32_t code_point;  // of a kCodePoint
};
// text must not be empty. kUnfinished: the text ends inside a character that is valid so far.
Utf8Head utf8_head(std::string_view text);

// The code point at text[pos] of valid UTF-8; moves pos behind it.
inline char32_t next_code_point(std::string_view text, size_t& pos) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[pos + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return ++pos, lead;
  const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t code_point = lead & (0x3Fu >> more);
  for (int i = 1; i <= more; ++i) {
    code_point = (code_point << 6) | (byte(static_cast<size_t>(i)) & 0x3Fu);
  }
  pos += static_cast<size_t>(more) + 1;
  return code_point;
}
// Bytes of the character that starts with this byte, in valid UTF-8.
inline size_t utf8_bytes(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
// Where the character that ends before text[end] starts; end > 0, valid UTF-8.
inline size_t previous_start(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

void append_utf8(std::string& out, char32_t code_point);

bool is_valid_utf8(std::string_view text);
// Appends text with each maximal invalid part as U+FFFD; returns how many bytes at the end are an
// unfinished character, which it leaves out.
size_t append_valid_utf8(std::string& out, std::string_view text);

// The property White_Space.
bool is_white_space(char32_t c);

}  // namespace mantissa
