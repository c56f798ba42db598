// Python's str: see python_text.h.
#include "text/python_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>

#include "text/python_tables.h"
#include "text/utf8.h"

namespace mantissa::python {
namespace {

template <size_t N>
bool contains(const PointRange (&ranges)[N], char32_t c) {
  const auto next = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                     [](char32_t v, const PointRange& r) { return v < r.first; });
  return next != std::begin(ranges) && c <= std::prev(next)->last;
}

utf8proc_category_t category(char32_t c) {
  if (contains(kUnassigned, c)) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

using Simple = utf8proc_int32_t (*)(utf8proc_int32_t);
struct Mapping {
  std::span<const SpecialCase> special;
  Simple simple;
};
const Mapping kToUpper{kSpecialUpper, utf8proc_toupper};
const Mapping kToLower{kSpecialLower, utf8proc_tolower};
const Mapping kToTitle{kSpecialTitle, utf8proc_totitle};
const Mapping kToFold{kSpecialFold, utf8proc_tolower};

void append_mapped(std::string& out, char32_t c, const Mapping& mapping) {
  if (c >= 0x80) {
    const auto row = std::lower_bound(mapping.special.begin(), mapping.special.end(), c,
                                      [](const SpecialCase& r, char32_t v) { return r.from < v; });
    if (row != mapping.special.end() && row->from == c) {
      out += row->to;
      return;
    }
    if (contains(kUnassigned, c)) return append_utf8(out, c);
  }
  append_utf8(out, static_cast<char32_t>(mapping.simple(static_cast<utf8proc_int32_t>(c))));
}

std::string mapped(std::string_view text, const Mapping& mapping) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) append_mapped(out, next_code_point(text, pos), mapping);
  return out;
}

bool is_cased(char32_t c) {
  return is_lower(c) || is_upper(c) || is_title(c);
}
// The property Case_Ignorable.
bool is_case_ignorable(char32_t c) {
  constexpr char32_t kWithinWords[] = {'\'',   '.',    ':',    0xB7,   0x387,  0x55F,
                                       0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                       0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  const utf8proc_category_t k = category(c);
  return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK ||
         std::find(std::begin(kWithinWords), std::end(kWithinWords), c) != std::end(kWithinWords);
}

constexpr char32_t kSigma = 0x3A3;
// SpecialCasing.txt's Final_Sigma: a cased character before, none behind, ignorable ones between.
// `begin` is where the sigma starts. `cased_before`: of the last character before that is not
// ignorable.
bool is_final_sigma(std::string_view text, size_t begin, bool cased_before) {
  if (!cased_before) return false;
  size_t pos = begin;
  next_code_point(text, pos);
  while (pos < text.size()) {
    const char32_t c = next_code_point(text, pos);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

// Lower case from `begin` on; a run of sigmas and ignorables is looked at once for each sigma.
void append_lower(std::string& out, std::string_view text, size_t begin) {
  bool cased_before = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (start >= begin) {
      if (c == kSigma) {
        append_utf8(out, is_final_sigma(text, start, cased_before) ? 0x3C2 : 0x3C3);
      } else {
        append_mapped(out, c, kToLower);
      }
    }
    if (c < 0x80 ? (c | 0x20) >= 'a' && (c | 0x20) <= 'z' : !is_case_ignorable(c) && is_cased(c)) {
      cased_before = true;
    } else if (!is_case_ignorable(c)) {
      cased_before = false;
    }
  }
}

}  // namespace

bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}
bool is_alpha(char32_t c) {
  const utf8proc_category_t k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_ND;
}
bool is_digit(char32_t c) {
  return is_decimal(c) || contains(kDigit, c);
}
bool is_numeric(char32_t c) {
  return is_digit(c) || contains(kNumeric, c);
}
bool is_alnum(char32_t c) {
  return is_alpha(c) || is_numeric(c);
}
bool is_lower(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LL || contains(kLower, c);
}
bool is_upper(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LU || contains(kUpper, c);
}
bool is_title(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LT;
}
bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= ' ';
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string upper(std::string_view text) {
  return mapped(text, kToUpper);
}
std::string casefold(std::string_view text) {
  return mapped(text, kToFold);
}
std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  append_lower(out, text, 0);
  return out;
}
std::string capitalize(std::string_view text) {
  std::string out;
  if (text.empty()) return out;
  size_t pos = 0;
  append_mapped(out, next_code_point(text, pos), kToTitle);
  append_lower(out, text, pos);
  return out;
}
std::string title(std::string_view text) {
  std::string out;
  bool inside = false;  // of a word
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (c == kSigma && inside) {
      append_utf8(out, is_final_sigma(text, start, true) ? 0x3C2 : 0x3C3);
    } else {
      append_mapped(out, c, inside ? kToLower : kToTitle);
    }
    inside = is_cased(c);
  }
  return out;
}
std::string swapcase(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (is_upper(c)) {
      append_mapped(out, c, kToLower);
    } else if (is_lower(c)) {
      append_mapped(out, c, kToUpper);
    } else {
      append_utf8(out, c);
    }
  }
  return out;
}

namespace {
bool all_of_case(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (other(c) || is_title(c)) return false;
    any = any || wanted(c);
  }
  return any;
}
}  // namespace

bool all_lower(std::string_view text) {
  return all_of_case(text, is_lower, is_upper);
}
bool all_upper(std::string_view text) {
  return all_of_case(text, is_upper, is_lower);
}
bool all_title(std::string_view text) {
  bool any = false, inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (is_upper(c) || is_title(c)) {
      if (inside) return false;
      inside = any = true;
    } else if (is_lower(c)) {
      if (!inside) return false;
      any = true;
    } else {
      inside = false;
    }
  }
  return any;
}

namespace {
template <class Drop>
std::string_view strip_if(std::string_view text, Side side, Drop drop) {
  const auto at = [&](Side s) { return (static_cast<int>(side) & static_cast<int>(s)) != 0; };
  size_t begin = 0, end = text.size();
  for (size_t next = 0; at(Side::kLeft) && begin < end; begin = next) {
    if (!drop(next_code_point(text, next))) break;
  }
  while (at(Side::kRight) && end > begin) {
    const size_t last = previous_start(text, end);
    size_t pos = last;
    if (!drop(next_code_point(text, pos))) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}
}  // namespace

std::string_view strip(std::string_view text, Side side) {
  return strip_if(text, side, is_space);
}
std::string_view strip(std::string_view text, Side side, std::string_view characters) {
  std::vector<char32_t> set;
  for (size_t pos = 0; pos < characters.size();) set.push_back(next_code_point(characters, pos));
  std::sort(set.begin(), set.end());
  return strip_if(text, side,
                  [&](char32_t c) { return std::binary_search(set.begin(), set.end(), c); });
}

std::vector<std::string_view> split(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string_view> out;
  const Side outer = from_right ? Side::kRight : Side::kLeft;
  text = strip(text, outer);
  while (!text.empty()) {
    if (most >= 0 && std::ssize(out) == most) {
      out.push_back(text);  // with the white space at its far end, as in Python
      break;
    }
    size_t cut = from_right ? text.size() : 0;
    while (from_right ? cut > 0 : cut < text.size()) {
      size_t next = from_right ? previous_start(text, cut) : cut;
      size_t behind = next;
      if (is_space(next_code_point(text, behind))) break;
      cut = from_right ? next : behind;
    }
    out.push_back(from_right ? text.substr(cut) : text.substr(0, cut));
    text = strip(from_right ? text.substr(0, cut) : text.substr(cut), outer);
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most,
                                    bool from_right) {
  std::vector<std::string_view> out;
  while (most < 0 || std::ssize(out) < most) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == text.npos) break;
    const std::string_view before = text.substr(0, at), behind = text.substr(at + separator.size());
    out.push_back(from_right ? behind : before);
    text = from_right ? before : behind;
  }
  out.push_back(text);
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  const auto ends_line = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (!ends_line(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    out.push_back(text.substr(begin, (keep_ends ? pos : start) - begin));
    begin = pos;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t most) {
  std::string out;
  size_t pos = 0;
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    if (from.empty()) {  // between all characters, and around them
      out += to;
      if (pos == text.size()) break;
      const size_t next = pos + utf8_bytes(text[pos]);
      out += text.substr(pos, next - pos);
      pos = next;
      continue;
    }
    const size_t at = text.find(from, pos);
    if (at == text.npos) break;
    out.append(text.substr(pos, at - pos)).append(to);
    pos = at + from.size();
  }
  return out.append(text.substr(pos));
}

size_t byte_of_point(std::string_view text, size_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < text.size(); --index) pos += utf8_bytes(text[pos]);
  return pos;
}

}  // namespace mantissa::python
