// UTF-8: see utf8.h. Limits of the second byte are those of table 3-7 of the Unicode standard; an
// invalid part is a "maximal subpart" of its section 3.9.
#include "text/utf8.h"

#include <cstring>

namespace mantissa {

Utf8Head utf8_head(std::string_view text) {
  using Kind = Utf8Head::Kind;
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return {Kind::kCodePoint, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Kind::kInvalid, 1, 0};
  const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  uint8_t least = 0x80, most = 0xBF;
  if (lead == 0xE0) least = 0xA0;
  if (lead == 0xED) most = 0x9F;  // surrogates
  if (lead == 0xF0) least = 0x90;
  if (lead == 0xF4) most = 0x8F;
  char32_t code_point = lead & (0x3Fu >> more);
  for (int i = 1; i <= more; ++i) {
    if (static_cast<size_t>(i) >= text.size()) {
      return {Kind::kUnfinished, static_cast<uint8_t>(i), 0};
    }
    const auto byte = static_cast<uint8_t>(text[static_cast<size_t>(i)]);
    if (byte < least || byte > most) return {Kind::kInvalid, static_cast<uint8_t>(i), 0};
    code_point = (code_point << 6) | (byte & 0x3Fu);
    least = 0x80, most = 0xBF;
  }
  return {Kind::kCodePoint, static_cast<uint8_t>(more + 1), code_point};
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xC0 | (c >> 6)), put(0x80 | (c & 0x3F));
  if (c < 0x10000) {
    return put(0xE0 | (c >> 12)), put(0x80 | ((c >> 6) & 0x3F)), put(0x80 | (c & 0x3F));
  }
  put(0xF0 | (c >> 18)), put(0x80 | ((c >> 12) & 0x3F));
  put(0x80 | ((c >> 6) & 0x3F)), put(0x80 | (c & 0x3F));
}

namespace {
// First byte at or after pos that is not ASCII.
size_t skip_ascii(std::string_view text, size_t pos) {
  for (uint64_t word; pos + sizeof word <= text.size(); pos += sizeof word) {
    std::memcpy(&word, text.data() + pos, sizeof word);
    if (word & 0x8080808080808080u) break;
  }
  while (pos < text.size() && static_cast<uint8_t>(text[pos]) < 0x80) ++pos;
  return pos;
}
}  // namespace

bool is_valid_utf8(std::string_view text) {
  for (size_t pos = skip_ascii(text, 0); pos < text.size(); pos = skip_ascii(text, pos)) {
    const Utf8Head head = utf8_head(text.substr(pos));
    if (head.kind != Utf8Head::Kind::kCodePoint) return false;
    pos += head.bytes;
  }
  return true;
}

size_t append_valid_utf8(std::string& out, std::string_view text) {
  size_t copied = 0;
  for (size_t pos = skip_ascii(text, 0); pos < text.size(); pos = skip_ascii(text, pos)) {
    const Utf8Head head = utf8_head(text.substr(pos));
    if (head.kind != Utf8Head::Kind::kCodePoint) {
      out.append(text.substr(copied, pos - copied));
      if (head.kind == Utf8Head::Kind::kUnfinished) return head.bytes;
      out.append(kReplacement);
      copied = pos + head.bytes;
    }
    pos += head.bytes;
  }
  out.append(text.substr(copied));
  return 0;
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace mantissa
