// UTF-8: validity, maximal invalid parts, unfinished ends.
#include "text/utf8.h"

#include <gtest/gtest.h>

namespace mantissa {
namespace {

struct Case {
  std::string_view bytes, corrected;
  size_t unfinished;
  const char* why;
};
using namespace std::string_view_literals;
constexpr std::string_view kR = kReplacement;

TEST(Utf8, InvalidPartsBecomeReplacementCharacters) {
  const std::string two = std::string(kR) + std::string(kR);
  const std::string r(kR);
  const Case cases[] = {
      {"plain", "plain", 0, "ASCII"},
      {"a\xC3\xA9z", "a\xC3\xA9z", 0, "two bytes"},
      {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF", 0, "the last code point"},
      {"\xFFx", "\xEF\xBF\xBDx", 0, "a byte that never occurs"},
      {"\x80x", "\xEF\xBF\xBDx", 0, "a continuation without lead"},
      {"\xC0\xAF", two, 0, "an overlong form: each byte alone"},
      {"\xE0\x80", two, 0, "the second byte is out of range for this lead"},
      {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 0, "a surrogate"},
      {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 0, "too large"},
      {"\xE4\xB8x", "\xEF\xBF\xBDx", 0, "two bytes of three are one part"},
      {"\xF0\x9F\x9A\xE4", r, 1, "three bytes of four, then an unfinished end"},
      {"x\xF0\x9F\x9A", "x", 3, "unfinished"},
      {"\xC3", "", 1, "unfinished"},
      {""sv, ""sv, 0, "empty"},
  };
  for (const Case& c : cases) {
    std::string out;
    EXPECT_EQ(append_valid_utf8(out, c.bytes), c.unfinished) << c.why;
    EXPECT_EQ(out, c.corrected) << c.why;
    EXPECT_TRUE(is_valid_utf8(out));
    EXPECT_EQ(is_valid_utf8(c.bytes), c.bytes == c.corrected) << c.why;
  }
}

TEST(Utf8, EveryCodePointThereAndBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string bytes;
    append_utf8(bytes, c);
    ASSERT_TRUE(is_valid_utf8(bytes)) << static_cast<uint32_t>(c);
    size_t pos = 0;
    ASSERT_EQ(next_code_point(bytes, pos), c);
    ASSERT_EQ(pos, bytes.size());
    ASSERT_EQ(utf8_bytes(bytes[0]), bytes.size());
    ASSERT_EQ(previous_start(bytes, bytes.size()), 0u);
  }
}

}  // namespace
}  // namespace mantissa
