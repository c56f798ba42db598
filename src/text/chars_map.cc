// The layout is darts-clone's: see chars_map.h. A unit holds a label (8 bits and the highest), an
// offset to its children and whether a value stands there.
#include "text/chars_map.h"

#include <utf8proc.h>

#include <cstring>

#include "base/error.h"
#include "text/utf8.h"

namespace mantissa {

CharsMap::CharsMap(std::string_view bytes, const std::string& where) {
  uint32_t size = 0;  // of the double array, little endian
  if (bytes.size() >= 4) std::memcpy(&size, bytes.data(), 4);
  if (bytes.size() < 4 || size == 0 || size % 4 != 0 || size > bytes.size() - 4) {
    throw Error(where + ": a precompiled_charsmap that is cut or no such map", "get the file anew");
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data() + 4, size);
  texts_ = bytes.substr(4 + size);
  if (!is_valid_utf8(texts_)) {
    throw Error(where + ": a precompiled_charsmap whose texts are no UTF-8", "get the file anew");
  }
}

std::optional<CharsMap::Match> CharsMap::find(std::string_view text, bool longest) const {
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  std::optional<Match> found;
  uint32_t at = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size() || (units_[at] & 0x800000FFu) != byte) break;
    const bool has_value = ((units_[at] >> 8) & 1) != 0;
    at ^= offset(units_[at]);
    if (at >= units_.size()) break;
    if (!has_value) continue;
    const uint32_t begin = units_[at] & 0x7FFFFFFFu;
    if (begin > texts_.size()) break;
    const std::string_view rest = std::string_view(texts_).substr(begin);
    found = Match{i + 1, rest.substr(0, rest.find('\0'))};
    if (!longest) break;
  }
  return found;
}

std::string precompiled_text(const CharsMap& map, std::string_view text) {
  constexpr size_t kGraphemeBytesMax = 6;  // longer ones go character by character
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    auto previous = static_cast<utf8proc_int32_t>(next_code_point(text, end));
    for (utf8proc_int32_t state = 0; end < text.size();) {
      size_t next = end;
      const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, next));
      if (utf8proc_grapheme_break_stateful(previous, c, &state)) break;
      previous = c;
      end = next;
    }
    const std::string_view grapheme = text.substr(begin, end - begin);
    const auto whole = grapheme.size() < kGraphemeBytesMax ? map.shortest(grapheme) : std::nullopt;
    if (whole) {
      out += whole->to;
    } else {
      for (size_t pos = 0; pos < grapheme.size();) {
        const size_t start = pos;
        next_code_point(grapheme, pos);
        const std::string_view one = grapheme.substr(start, pos - start);
        const auto part = map.shortest(one);
        out += part ? part->to : one;
      }
    }
    begin = end;
  }
  return out;
}

}  // namespace mantissa
