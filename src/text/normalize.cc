// Normalization over utf8proc's tables. Reordering is ours: utf8proc's own is quadratic in the
// length of a run of combining marks.
#include "text/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/unicode_sets.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

bool is_opaque(char32_t c) {
  const auto ranges = opaque_to_normalization();
  const auto next =
      std::upper_bound(ranges.begin(), ranges.end(), c,
                       [](char32_t v, const CodePointRange& r) { return v < r.first; });
  return next != ranges.begin() && c <= std::prev(next)->last;
}

int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// Canonical ordering: runs of marks sorted by their class, stable.
void reorder(std::vector<utf8proc_int32_t>& points) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto run = points.begin(); run != points.end();) {
    run = std::find_if(run, points.end(), is_mark);
    const auto end = std::find_if_not(run, points.end(), is_mark);
    std::stable_sort(run, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    run = end;
  }
}

// Appends what has gathered, in the form asked for.
void flush(std::vector<utf8proc_int32_t>& points, UnicodeForm form, std::string& out) {
  reorder(points);
  auto count = static_cast<utf8proc_ssize_t>(points.size());
  if (form.composed) {
    count = utf8proc_normalize_utf32(
        points.data(), count, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    check(count >= 0, "utf8proc composes what it decomposed");
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_utf8(out, static_cast<char32_t>(points[static_cast<size_t>(i)]));
  }
  points.clear();
}

}  // namespace

std::string normalized(std::string_view text, UnicodeForm form) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (form.compatible ? UTF8PROC_COMPAT : 0));
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> points;
  for (size_t pos = 0; pos < text.size();) {
    // ASCII characters start anew: what was before them is done. The last one before others waits,
    // marks may follow it.
    size_t plain = pos;
    while (plain < text.size() && static_cast<uint8_t>(text[plain]) < 0x80) ++plain;
    if (plain > pos) {
      flush(points, form, out);
      const bool waits = plain < text.size();
      out.append(text.substr(pos, plain - pos - (waits ? 1 : 0)));
      if (waits) points.push_back(text[plain - 1]);
      pos = plain;
      continue;
    }
    const char32_t c = next_code_point(text, pos);
    if (is_opaque(c)) {
      flush(points, form, out);
      append_utf8(out, c);
      continue;
    }
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int boundary = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32, options, &boundary);
    check(n >= 0 && n <= 32, "a decomposition of at most 32 code points");
    points.insert(points.end(), parts, parts + n);
  }
  flush(points, form, out);
  return out;
}

std::string lower_case(std::string_view text) {
  const auto special = special_lower_case();
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    const auto row = std::lower_bound(special.begin(), special.end(), c,
                                      [](const LowerCase& r, char32_t v) { return r.upper < v; });
    if (c >= 0x80 && row != special.end() && row->upper == c) {
      out += row->lower;
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

}  // namespace mantissa
