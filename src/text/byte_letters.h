// The byte-level alphabet of GPT-2: every byte has a printable letter, so that vocabularies can
// hold bytes as text. '!'..'~', 0xA1..0xAC and 0xAE..0xFF stand for themselves, the others for
// U+0100, U+0101, ... in ascending order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace mantissa {

inline constexpr char32_t kByteLetterEnd = 0x144;

consteval std::array<char32_t, 256> make_byte_letters() {
  std::array<char32_t, 256> out{};
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    out[b] = itself ? b : next++;
  }
  return out;
}
inline constexpr std::array<char32_t, 256> kByteLetters = make_byte_letters();
static_assert(kByteLetters[' '] == 0x120 && kByteLetters[0xAD] == kByteLetterEnd - 1);

// Appends the letters of the bytes.
void append_byte_letters(std::string& out, std::string_view bytes);
// Appends the bytes that the letters of valid UTF-8 stand for; false, and nothing appended, where a
// character is no such letter.
bool append_letter_bytes(std::string& out, std::string_view letters);

}  // namespace mantissa
