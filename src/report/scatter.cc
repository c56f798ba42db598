#include "report/scatter.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/error.h"
#include "report/labels.h"
#include "report/markup.h"

namespace mantissa::report {
namespace {

// Pixels of the view box; the page scales it.
constexpr double kWidth = 1000, kBelow = 54;
constexpr double kLeft = 74, kRight = 984, kTop = 40;
constexpr double kRadius = 5.5, kLegendRow = 21;
constexpr double kLabelSize = 12, kLabelWidth = 0.61 * kLabelSize;  // of one monospaced character
constexpr double kTextWidth = 6.3;                                  // of other texts, about

// Many names need more room.
double bottom_of(const Scatter& plot) {
  const double points = static_cast<double>(plot.points.size());
  return 470 + 10 * std::clamp(points - 8, 0.0, 26.0);
}

bool beats(const Scatter& plot, const ScatterPoint& a, const ScatterPoint& b) {
  const auto better = [](double p, double q, bool larger) { return larger ? p > q : p < q; };
  const bool x = better(a.x, b.x, plot.x.larger_is_better),
             y = better(a.y, b.y, plot.y.larger_is_better);
  return (x && (y || a.y == b.y)) || (y && a.x == b.x);
}

std::vector<double> shown(const Scatter& plot, double ScatterPoint::*value,
                          double ScatterPoint::*error, Scale scale) {
  std::vector<double> out;
  for (const ScatterPoint& p : plot.points) {
    out.push_back(p.*value);
    if (!std::isfinite(p.*value) || !(p.*error > 0)) continue;
    out.push_back(p.*value + p.*error);
    // On a logarithmic scale a bar that reaches zero would stretch the axis: it is cut instead.
    const double low = p.*value - p.*error;
    if (scale == Scale::kLinear) out.push_back(low);
  }
  return out;
}

// A mark of radius r; shapes differ as colours do, so that print without colour tells them apart.
void mark(Markup& svg, int group, double x, double y, double r) {
  const std::string classes = text("mark g", group);
  const auto polygon = [&](std::initializer_list<std::pair<double, double>> corners) {
    std::string points;
    for (const auto& [dx, dy] : corners)
      points +=
          text(points.empty() ? "" : " ", coordinate(x + dx * r), ",", coordinate(y + dy * r));
    svg.leaf("polygon", {{"class", classes}, {"points", points}});
  };
  switch (group) {
    case 0:
      return polygon({{0, -1.5}, {1.5, 0}, {0, 1.5}, {-1.5, 0}});
    case 1: {
      svg.leaf("circle", {{"class", classes}, {"cx", x}, {"cy", y}, {"r", r}});
      return;
    }
    case 2:
      return polygon({{-0.95, -0.95}, {0.95, -0.95}, {0.95, 0.95}, {-0.95, 0.95}});
    case 3:
      return polygon({{0, -1.25}, {1.2, 0.9}, {-1.2, 0.9}});
    case 4:
      return polygon({{0, 1.25}, {1.2, -0.9}, {-1.2, -0.9}});
    default:
      return polygon({{-0.4, -1.2},
                      {0.4, -1.2},
                      {0.4, -0.4},
                      {1.2, -0.4},
                      {1.2, 0.4},
                      {0.4, 0.4},
                      {0.4, 1.2},
                      {-0.4, 1.2},
                      {-0.4, 0.4},
                      {-1.2, 0.4},
                      {-1.2, -0.4},
                      {-0.4, -0.4}});
  }
}

void line(Markup& svg, const char* style, double x0, double y0, double x1, double y1) {
  svg.leaf("line", {{"class", style}, {"x1", x0}, {"y1", y0}, {"x2", x1}, {"y2", y1}});
}

// Ticks whose texts would touch the one before lose theirs.
void draw_axes(Markup& svg, const Scatter& plot, const Axis& x, const Axis& y) {
  const double bottom = bottom_of(plot);
  double last = -1e9;
  for (const Tick& tick : x.ticks(9)) {
    line(svg, "grid", tick.at, kTop, tick.at, bottom);
    const double half = kTextWidth * static_cast<double>(tick.label.size()) / 2;
    if (tick.at - half < last + 6) continue;
    last = tick.at + half;
    svg.leaf("text", {{"class", "tick mid"}, {"x", tick.at}, {"y", bottom + 18}}, tick.label);
  }
  last = 1e9;
  for (const Tick& tick : y.ticks(7)) {
    line(svg, "grid", kLeft, tick.at, kRight, tick.at);
    if (tick.at > last - 13) continue;
    last = tick.at;
    svg.leaf("text", {{"class", "tick end"}, {"x", kLeft - 8}, {"y", tick.at + 4}}, tick.label);
  }
  for (const auto& edge : {y.zero_edge(), y.infinity_edge()})
    if (edge) line(svg, "band", kLeft, *edge, kRight, *edge);
  for (const auto& edge : {x.zero_edge(), x.infinity_edge()})
    if (edge) line(svg, "band", *edge, kTop, *edge, bottom);
  line(svg, "frame", kLeft, bottom, kRight, bottom);
  line(svg, "frame", kLeft, kTop, kLeft, bottom);
  svg.leaf("text", {{"class", "axis mid"}, {"x", (kLeft + kRight) / 2}, {"y", bottom + 42}},
           plot.x.title);
  svg.leaf("text",
           {{"class", "axis mid"},
            {"transform", text("translate(17,", coordinate((kTop + bottom) / 2), ") rotate(-90)")}},
           plot.y.title);
}

struct LegendEntry {
  int group = -1;  // -1: the front
  std::string text;
  double x = 0;
  int row = 0;
};

// Those of the groups that have points, and the front, in rows that end before kRight.
std::vector<LegendEntry> legend_of(const Scatter& plot) {
  std::vector<LegendEntry> entries;
  for (size_t g = 0; g < plot.groups.size(); ++g) {
    const int group = static_cast<int>(g);
    const auto uses = [group](const ScatterPoint& p) { return p.group == group; };
    if (std::ranges::any_of(plot.points, uses)) {
      entries.push_back({.group = group, .text = plot.groups[g]});
    }
  }
  entries.push_back({.text = "no other is better in both"});
  double x = kLeft;
  int row = 0;
  for (LegendEntry& entry : entries) {
    const double width = kTextWidth * static_cast<double>(entry.text.size()) + 33;
    if (x > kLeft && x + width > kRight) {
      x = kLeft;
      ++row;
    }
    entry.x = x;
    entry.row = row;
    x += width + 6;
  }
  return entries;
}

// The last row stands at the plot's top, those before it above.
void draw_legend(Markup& svg, std::span<const LegendEntry> entries) {
  for (const LegendEntry& entry : entries) {
    const double y = 18 - kLegendRow * (entries.back().row - entry.row);
    const double text_x = entry.x + (entry.group < 0 ? 33 : 19);
    if (entry.group < 0) {
      line(svg, "front", entry.x, y, entry.x + 26, y);
    } else {
      mark(svg, entry.group, entry.x + 7, y, kRadius);
    }
    svg.leaf("text", {{"class", "legend"}, {"x", text_x}, {"y", y + 4}}, entry.text);
  }
}

// Error bars; returns what they cover.
std::vector<Box> draw_errors(Markup& svg, const Scatter& plot, const Axis& x, const Axis& y) {
  std::vector<Box> covered;
  for (const ScatterPoint& p : plot.points) {
    const double px = x.at(p.x), py = y.at(p.y);
    if (p.y_error > 0 && std::isfinite(p.y) && !(plot.y.scale == Scale::kLog && p.y <= 0)) {
      const double top = y.clamped(p.y + p.y_error), bottom = y.clamped(p.y - p.y_error);
      line(svg, "error", px, top, px, bottom);
      for (double end : {top, bottom}) line(svg, "error", px - 3, end, px + 3, end);
      covered.push_back({px - 3, top, px + 3, bottom});
    }
    if (p.x_error > 0) {
      const double left = x.clamped(p.x - p.x_error), right = x.clamped(p.x + p.x_error);
      line(svg, "error", left, py, right, py);
      for (double end : {left, right}) line(svg, "error", end, py - 3, end, py + 3);
      covered.push_back({left, py - 3, right, py + 3});
    }
  }
  return covered;
}

// The line through the best; adds small boxes along it to what is covered.
void draw_front(Markup& svg, const Scatter& plot, const Axis& x, const Axis& y,
                std::vector<Box>& covered) {
  std::string points;
  std::optional<std::pair<double, double>> last;
  for (size_t i : best_front(plot)) {
    const double px = x.at(plot.points[i].x), py = y.at(plot.points[i].y);
    points += text(points.empty() ? "" : " ", coordinate(px), ",", coordinate(py));
    if (last) {
      const int steps = 1 + static_cast<int>(std::hypot(px - last->first, py - last->second) / 4);
      for (int s = 0; s <= steps; ++s) {
        const double f = static_cast<double>(s) / steps, bx = last->first + f * (px - last->first),
                     by = last->second + f * (py - last->second);
        covered.push_back({bx - 2, by - 2, bx + 2, by + 2});
      }
    }
    last = {px, py};
  }
  if (!points.empty()) svg.leaf("polyline", {{"class", "front"}, {"points", points}});
}

void draw_labels(Markup& svg, const Scatter& plot, const Axis& x, const Axis& y,
                 std::span<const Box> obstacles) {
  std::vector<LabelRequest> requests;
  for (const ScatterPoint& p : plot.points)
    requests.push_back({.x = x.at(p.x),
                        .y = y.at(p.y),
                        .radius = kRadius,
                        .width = kLabelWidth * static_cast<double>(p.label.size()),
                        .height = kLabelSize + 1});
  const std::vector<PlacedLabel> placed =
      place_labels(requests, {kLeft + 2, kTop, kRight, bottom_of(plot) - 2}, obstacles);
  for (const PlacedLabel& label : placed)
    if (label.leader) line(svg, "leader", label.from_x, label.from_y, label.to_x, label.to_y);
  for (size_t i = 0; i < placed.size(); ++i)
    svg.leaf("text",
             {{"class", text("label t", plot.points[i].group)},
              {"x", placed[i].box.left},
              {"y", placed[i].box.bottom - 3}},
             plot.points[i].label);
}

}  // namespace

std::vector<size_t> best_front(const Scatter& plot) {
  std::vector<size_t> out;
  for (size_t i = 0; i < plot.points.size(); ++i) {
    const ScatterPoint& p = plot.points[i];
    const auto beaten = [&](const ScatterPoint& other) { return beats(plot, other, p); };
    if (std::isfinite(p.y) && std::ranges::none_of(plot.points, beaten)) out.push_back(i);
  }
  std::ranges::stable_sort(out, {}, [&](size_t i) { return plot.points[i].x; });
  return out;
}

std::string scatter_svg(const Scatter& plot) {
  check(plot.groups.size() <= kGroupsMax, "scatter_svg: a colour for each group");
  const Axis x(plot.x.scale, shown(plot, &ScatterPoint::x, &ScatterPoint::x_error, plot.x.scale),
               kLeft + 6, kRight - 6);
  const Axis y(plot.y.scale, shown(plot, &ScatterPoint::y, &ScatterPoint::y_error, plot.y.scale),
               bottom_of(plot), kTop);
  const std::vector<LegendEntry> legend = legend_of(plot);
  const double above = kLegendRow * legend.back().row;
  Markup svg;
  svg.open("svg",
           {{"viewBox", text("0 ", 0 - above, " ", kWidth, " ", bottom_of(plot) + kBelow + above)},
            {"role", "img"},
            {"aria-label", plot.title}});
  draw_axes(svg, plot, x, y);
  draw_legend(svg, legend);
  std::vector<Box> covered = draw_errors(svg, plot, x, y);
  draw_front(svg, plot, x, y, covered);
  for (const ScatterPoint& p : plot.points) {
    svg.open("g");
    svg.leaf("title", {}, p.detail.empty() ? p.label : p.label + "\n" + p.detail);
    mark(svg, p.group, x.at(p.x), y.at(p.y), kRadius);
    svg.close();
  }
  draw_labels(svg, plot, x, y, covered);
  svg.close();
  return svg.take();
}

}  // namespace mantissa::report
