#include "base/units.h"

#include <cmath>
#include <cstdio>
#include <span>

#include "base/error.h"

namespace mantissa {

std::string fixed(double value, int digits) {
  char buffer[64];
  const int length = std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  if (length >= 0 && static_cast<size_t>(length) < sizeof buffer)
    return {buffer, static_cast<size_t>(length)};
  return text(value);
}

namespace {

struct Scale {
  double factor;
  std::string_view unit;
};

std::string scaled(double value, std::span<const Scale> scales, int digits) {
  for (const Scale& scale : scales)
    if (value >= scale.factor) return text(fixed(value / scale.factor, digits), scale.unit);
  return text(fixed(value, 0), scales.back().unit);
}

}  // namespace

std::string human_bytes(int64_t bytes) {
  constexpr Scale kScales[] = {{1e12, " TB"}, {1e9, " GB"}, {1e6, " MB"}, {1e3, " kB"}, {1, " B"}};
  return scaled(static_cast<double>(bytes), kScales, bytes < 1000 ? 0 : 1);
}

std::string counted(int64_t count, std::string_view what) {
  return text(count, " ", what, count == 1 ? "" : "s");
}

std::string human_count(int64_t count) {
  constexpr Scale kScales[] = {{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}, {1, ""}};
  return scaled(static_cast<double>(count), kScales, count < 1000 ? 0 : 1);
}

std::string human_seconds(double seconds) {
  if (seconds < 60) return text(fixed(seconds, seconds < 10 ? 2 : 1), " s");
  const int64_t whole = std::llround(seconds);
  const std::string rest = text(whole % 60 < 10 ? "0" : "", whole % 60, " s");
  if (whole < 3600) return text(whole / 60, " min ", rest);
  return text(whole / 3600, " h ", whole / 60 % 60, " min");
}

}  // namespace mantissa
