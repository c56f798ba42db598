#include "report/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/error.h"
#include "report/axis.h"
#include "report/markup.h"

namespace mantissa::report {
namespace {

constexpr double kWidth = 1000, kCellsLeft = 296, kCellsRight = 990;
constexpr double kNumberedCell = 34;  // wide enough for its value
constexpr double kRow = 13, kStripGap = 13, kHeader = 62, kNoteRow = 14;

// matplotlib's cividis at nine equal steps.
constexpr std::array<std::array<int, 3>, 9> kCividis = {{{0, 34, 78},
                                                         {28, 52, 109},
                                                         {67, 73, 108},
                                                         {95, 94, 112},
                                                         {124, 123, 120},
                                                         {151, 143, 119},
                                                         {186, 173, 105},
                                                         {220, 203, 81},
                                                         {254, 232, 56}}};

struct Range {
  double low, high;
};
// Of all finite values, to whole tens, so that reports can be compared. It starts at 0 where values
// are below: less than nothing of the signal is no information.
Range range_of(const HeatMap& map) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const HeatStrip& strip : map.strips) {
    for (const std::vector<double>& row : strip.values) {
      for (double value : row) {
        if (!std::isfinite(value)) continue;
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
  }
  if (low > high) return {0, 10};
  low = std::max(0.0, std::floor(low / 10) * 10);
  high = std::ceil(std::max(high, 0.0) / 10) * 10;
  return {low, high > low ? high : low + 10};
}

std::string fixed_one(double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

std::string value_text(double value, const std::string& unit) {
  if (std::isnan(value)) return "not known";
  if (std::isinf(value)) return value > 0 ? "exact" : "nothing of it left";
  return fixed_one(value) + " " + unit;
}

void draw_scale(Markup& svg, const HeatMap& map, Range range) {
  constexpr int kSteps = 60;
  constexpr double kLeft = kCellsLeft, kScaleWidth = 360, kStep = kScaleWidth / kSteps;
  for (int i = 0; i < kSteps; ++i)
    svg.leaf("rect", {{"x", kLeft + i * kStep},
                      {"y", 4},
                      {"width", kStep + 0.4},
                      {"height", 10},
                      {"fill", heat_colour((i + 0.5) / kSteps)}});
  for (double value : linear_ticks(range.low, range.high, 6)) {
    const double x = kLeft + (value - range.low) / (range.high - range.low) * kScaleWidth;
    svg.leaf("line", {{"class", "frame"}, {"x1", x}, {"y1", 14}, {"x2", x}, {"y2", 18}});
    svg.leaf("text", {{"class", "tick mid"}, {"x", x}, {"y", 29}},
             text(value == 0 ? "\u2264 " : "", tick_label(value, 1)));
  }
  svg.leaf("text", {{"class", "axis"}, {"x", kLeft + kScaleWidth + 20}, {"y", 14}},
           map.unit + ", higher is better");
}

// The columns' numbers, as many as have room.
void draw_columns(Markup& svg, const HeatMap& map, size_t layers, double cell) {
  const int every = static_cast<int>(std::ceil(26 / cell));
  svg.leaf("text", {{"class", "tick end"}, {"x", kCellsLeft - 8}, {"y", kHeader - 6}}, map.column);
  for (size_t l = 0; l < layers; l += static_cast<size_t>(every))
    svg.leaf("text",
             {{"class", "tick mid"},
              {"x", kCellsLeft + (static_cast<double>(l) + 0.5) * cell},
              {"y", kHeader - 6}},
             text(l));
}

void draw_strip(Markup& svg, const HeatMap& map, const HeatStrip& strip, double top, double cell,
                Range range) {
  svg.leaf("text", {{"class", "label"}, {"x", 4}, {"y", top + 11}}, strip.label);
  for (size_t i = 0; i < strip.notes.size(); ++i)
    svg.leaf("text",
             {{"class", "tick"}, {"x", 4}, {"y", top + 11 + kNoteRow * static_cast<double>(i + 1)}},
             strip.notes[i]);
  for (size_t k = 0; k < strip.values.size(); ++k) {
    const double y = top + static_cast<double>(k) * kRow;
    svg.leaf("text", {{"class", "small end"}, {"x", kCellsLeft - 8}, {"y", y + kRow - 2.4}},
             map.kinds[k]);
    for (size_t l = 0; l < strip.values[k].size(); ++l) {
      const double value = strip.values[k][l];
      if (std::isnan(value)) continue;
      const double part = std::clamp((value - range.low) / (range.high - range.low), 0.0, 1.0);
      svg.open("rect", {{"x", kCellsLeft + static_cast<double>(l) * cell},
                        {"y", y},
                        {"width", cell - std::min(1.0, cell / 8)},
                        {"height", kRow - 1},
                        {"fill", heat_colour(part)}});
      svg.leaf("title", {},
               text(strip.label, ", ", map.column, " ", l, ", ", map.kinds[k], ": ",
                    value_text(value, map.unit)));
      svg.close();
      if (cell < kNumberedCell || std::isinf(value)) continue;
      svg.leaf("text",
               {{"class", part < 0.5 ? "on-dark mid" : "on-light mid"},
                {"x", kCellsLeft + (static_cast<double>(l) + 0.5) * cell},
                {"y", y + kRow - 3.4}},
               fixed_one(value));
    }
  }
}

}  // namespace

std::string heat_colour(double part) {
  const double at = std::clamp(part, 0.0, 1.0) * (kCividis.size() - 1);
  const size_t low = std::min(static_cast<size_t>(at), kCividis.size() - 2);
  const double f = at - static_cast<double>(low);
  std::array<int, 3> colour{};
  for (size_t c = 0; c < 3; ++c)
    colour[c] =
        static_cast<int>(std::lround((1 - f) * kCividis[low][c] + f * kCividis[low + 1][c]));
  char buffer[8];
  std::snprintf(buffer, sizeof buffer, "#%02x%02x%02x", colour[0] & 255, colour[1] & 255,
                colour[2] & 255);
  return buffer;
}

std::string heat_map_svg(const HeatMap& map) {
  size_t layers = 0;
  for (const HeatStrip& strip : map.strips) {
    check(strip.values.size() == map.kinds.size(), "heat_map_svg: a row for each kind");
    for (const std::vector<double>& row : strip.values) layers = std::max(layers, row.size());
  }
  const double cell = (kCellsRight - kCellsLeft) / std::max(1.0, static_cast<double>(layers));
  const double strip_height =
      std::max(3 * kNoteRow, kRow * static_cast<double>(map.kinds.size())) + kStripGap;
  const double height = kHeader + strip_height * static_cast<double>(map.strips.size());
  const Range range = range_of(map);
  Markup svg;
  svg.open("svg", {{"viewBox", text("0 0 ", kWidth, " ", coordinate(height))},
                   {"role", "img"},
                   {"aria-label", map.title}});
  draw_scale(svg, map, range);
  draw_columns(svg, map, layers, cell);
  for (size_t s = 0; s < map.strips.size(); ++s)
    draw_strip(svg, map, map.strips[s], kHeader + strip_height * static_cast<double>(s), cell,
               range);
  svg.close();
  return svg.take();
}

}  // namespace mantissa::report
