// Text as Python's str sees it (CPython 3.11, Unicode 14), over valid UTF-8: what chat templates
// were written for. Positions are bytes unless a name says points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa::python {

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_printable(char32_t c);  // repr() escapes the others

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title
std::string swapcase(std::string_view text);
// Whether there is a cased character, and none of the other case.
bool all_lower(std::string_view text);
bool all_upper(std::string_view text);
bool all_title(std::string_view text);

enum class Side : uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };
// Without white space, or without the characters of `characters`, at the side.
std::string_view strip(std::string_view text, Side side);
std::string_view strip(std::string_view text, Side side, std::string_view characters);

// At white space; at most `most` cuts (negative: any number), from the left or from the right.
std::vector<std::string_view> split(std::string_view text, int64_t most, bool from_right);
// At each `separator`, which must not be empty.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most,
                                    bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t most);

// The byte where the code point of this index starts; text.size() beyond the last.
size_t byte_of_point(std::string_view text, size_t index);

}  // namespace mantissa::python
