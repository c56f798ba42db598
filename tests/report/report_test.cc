// The parts of a report: escaping, ticks, where labels go, fronts, and a page as a whole.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "report/heat_map.h"
#include "report/labels.h"
#include "report/markup.h"
#include "report/page.h"
#include "report/scatter.h"

namespace mantissa::report {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t count_of(const std::string& text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(Markup, EscapesWhatComesFromOutside) {
  EXPECT_EQ(escape("<script>alert('x') & \"y\"</script>"),
            "&lt;script&gt;alert(&#39;x&#39;) &amp; &quot;y&quot;&lt;/script&gt;");
  EXPECT_EQ(escape("a\xff\x01\nb"), "a\uFFFD\uFFFD\nb");
  EXPECT_EQ(escape("\xe2\x82"), "\uFFFD");  // an unfinished character
  Markup html;
  html.open("p", {{"title", "a\"><b"}}).text("1 < 2").close();
  EXPECT_EQ(html.take(), "<p title=\"a&quot;&gt;&lt;b\">\n1 &lt; 2</p>\n");
}

TEST(Markup, CoordinatesAreShort) {
  EXPECT_EQ(coordinate(1.0), "1");
  EXPECT_EQ(coordinate(0.125), "0.12");
  EXPECT_EQ(coordinate(-0.001), "0");
  EXPECT_EQ(coordinate(10), "10");
}

std::vector<std::string> labels_of(const Axis& axis, int count) {
  std::vector<std::string> out;
  for (const Tick& tick : axis.ticks(count)) out.push_back(tick.label);
  return out;
}

TEST(Ticks, AreRoundNumbers) {
  EXPECT_EQ(linear_ticks(0.3, 10.2, 5), (std::vector<double>{2, 4, 6, 8, 10}));
  EXPECT_EQ(linear_ticks(24.6, 27.9, 7).front(), 25);
  const std::vector<double> narrow = linear_ticks(19.168, 19.262, 6);
  ASSERT_EQ(narrow.size(), 5u);
  EXPECT_NEAR(narrow.front(), 19.18, 1e-9);
  EXPECT_EQ(tick_label(narrow.front(), 0.02), "19.18");
  EXPECT_EQ(log_ticks(0.003, 20), (std::vector<double>{0.01, 0.1, 1, 10}));
  EXPECT_EQ(log_ticks(1.5, 30), (std::vector<double>{2, 5, 10, 20}));
  EXPECT_LE(log_ticks(1e-30, 1e30).size(), 9u);
}

TEST(Ticks, LabelsAreShortAndExact) {
  EXPECT_EQ(tick_label(0, 0.1), "0");
  EXPECT_EQ(tick_label(-0.25, 0.05), "-0.25");
  EXPECT_EQ(tick_label(1500, 500), "1500");
  EXPECT_EQ(tick_label(1e-5, 1e-5), "10\u207b\u2075");
  EXPECT_EQ(tick_label(2e7, 1e7), "2\u00b710\u2077");
  EXPECT_EQ(tick_label(0.001, 0.001), "0.001");
}

TEST(Axis, HasBandsForWhatAScaleCannotShow) {
  const std::vector<double> values = {0, 0.001, 10, kInfinity};
  const Axis axis(Scale::kLog, values, 500, 0);
  EXPECT_EQ(labels_of(axis, 5).front(), "0");
  EXPECT_EQ(labels_of(axis, 5).back(), "\u221e");
  EXPECT_GT(axis.at(0), axis.at(0.001));
  EXPECT_GT(axis.at(0.001), axis.at(10));
  EXPECT_GT(axis.at(10), axis.at(kInfinity));
  EXPECT_GT(*axis.zero_edge(), axis.at(0.001));
  EXPECT_LT(*axis.infinity_edge(), axis.at(10));
  const std::vector<double> negative = {-1, 2};
  EXPECT_EQ(labels_of(Axis(Scale::kLog, negative, 0, 100), 5).front(), "\u2264 0");
  EXPECT_FALSE(Axis(Scale::kLinear, negative, 0, 100).zero_edge());
}

TEST(Axis, OfOneValueOrOfNothingButBandsHasARange) {
  for (const std::vector<double>& values :
       {std::vector<double>{3}, {0}, {kInfinity}, {-5}, {0, kInfinity}, {1e300, 1e-300}}) {
    for (Scale scale : {Scale::kLinear, Scale::kLog}) {
      const Axis axis(scale, values, 0, 100);
      for (double value : values) {
        EXPECT_GE(axis.at(value), 0);
        EXPECT_LE(axis.at(value), 100);
      }
      for (const Tick& tick : axis.ticks(5)) EXPECT_TRUE(std::isfinite(tick.at));
      EXPECT_FALSE(axis.ticks(5).empty());
    }
  }
}

// Thirty names in a heap: none covers another or leaves the plot.
TEST(Labels, DoNotCollide) {
  std::vector<LabelRequest> requests;
  requests.reserve(30);
  for (int i = 0; i < 30; ++i)
    requests.push_back({.x = 300 + 40 * std::cos(2.4 * i) * (i % 5),
                        .y = 250 + 24 * std::sin(2.4 * i) * (i % 7),
                        .radius = 5,
                        .width = 70.0 + 9 * (i % 8),
                        .height = 13});
  const Box bounds{0, 0, 1000, 500};
  const std::vector<PlacedLabel> placed = place_labels(requests, bounds, {});
  ASSERT_EQ(placed.size(), requests.size());
  for (size_t i = 0; i < placed.size(); ++i) {
    EXPECT_GE(placed[i].box.left, bounds.left);
    EXPECT_LE(placed[i].box.right, bounds.right);
    EXPECT_GE(placed[i].box.top, bounds.top);
    EXPECT_LE(placed[i].box.bottom, bounds.bottom);
    EXPECT_NEAR(placed[i].box.width(), requests[i].width, 1e-9);
    for (size_t j = 0; j < i; ++j)
      EXPECT_EQ(placed[i].box.overlap(placed[j].box), 0) << i << " and " << j;
  }
}

TEST(Labels, StandBesideAPointThatIsAloneWithoutALine) {
  const LabelRequest one{.x = 100, .y = 100, .radius = 5, .width = 50, .height = 13};
  const std::vector<PlacedLabel> placed = place_labels({&one, 1}, {0, 0, 400, 400}, {});
  EXPECT_FALSE(placed[0].leader);
  EXPECT_GE(placed[0].box.left, 105);
  EXPECT_LT(placed[0].box.left, 112);
}

Scatter sample_plot() {
  Scatter plot;
  plot.title = "a <plot>";
  plot.x = {.title = "size", .scale = Scale::kLinear};
  plot.y = {.title = "error", .scale = Scale::kLog};
  plot.groups = {"reference", "others"};
  plot.points = {{.label = "bf16", .x = 16, .y = 0},
                 {.label = "int8", .x = 8, .y = 0.01, .y_error = 0.02, .group = 1},
                 {.label = "worse", .x = 9, .y = 0.5, .group = 1},
                 {.label = "int1", .x = 1, .y = kInfinity, .group = 1},
                 {.label = "int4", .x = 4, .y = 0.2, .group = 1, .detail = "a & b"}};
  return plot;
}

TEST(Scatter, FrontHasThoseThatNoOtherBeats) {
  Scatter plot = sample_plot();
  EXPECT_EQ(best_front(plot), (std::vector<size_t>{4, 1, 0}));  // infinity is never the best
  plot.x.larger_is_better = true;
  EXPECT_EQ(best_front(plot), (std::vector<size_t>{0}));
}

TEST(Scatter, ShowsEveryPointWithItsName) {
  const std::string svg = scatter_svg(sample_plot());
  for (const char* label : {"bf16", "int8", "worse", "int1", "int4"})
    EXPECT_EQ(count_of(svg, std::string(">") + label + "</text>"), 1u) << label;
  EXPECT_EQ(count_of(svg, "<title>"), 5u);
  EXPECT_NE(svg.find("aria-label=\"a &lt;plot&gt;\""), std::string::npos);
  EXPECT_NE(svg.find("a &amp; b"), std::string::npos);
  EXPECT_EQ(count_of(svg, "<polyline class=\"front\""), 1u);
  EXPECT_NE(svg.find(">\u221e</text>"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(Scatter, ALongLegendTakesAnotherRow) {
  Scatter plot = sample_plot();
  const auto legend_rows = [&] {
    const std::string svg = scatter_svg(plot);
    std::set<std::string> heights;
    const std::string start = "<text class=\"legend\" x=\"";
    for (size_t at = svg.find(start); at != svg.npos; at = svg.find(start, at + 1)) {
      EXPECT_LT(std::stod(svg.substr(at + start.size())), 984 - 26 * 6.3);
      const size_t y = svg.find("y=\"", at);
      heights.insert(svg.substr(y, svg.find('"', y + 3) - y));
    }
    return heights.size();
  };
  EXPECT_EQ(legend_rows(), 1u);
  plot.groups = {"reference", "16-bit activations (weights only)", "8-bit float activations",
                 "8-bit integer activations", "4- and 6-bit activations"};
  for (size_t i = 0; i < plot.points.size(); ++i) plot.points[i].group = static_cast<int>(i);
  EXPECT_EQ(legend_rows(), 2u);
}

TEST(HeatMap, ColoursGetLighterAndEveryCellHasItsValue) {
  EXPECT_EQ(heat_colour(0), "#00224e");
  EXPECT_EQ(heat_colour(1), "#fee838");
  EXPECT_EQ(heat_colour(-3), heat_colour(0));
  double last = -1;
  for (int i = 0; i <= 20; ++i) {
    const std::string colour = heat_colour(i / 20.0);
    const auto part = [&](size_t at) { return std::stoi(colour.substr(at, 2), nullptr, 16); };
    const double light = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
    EXPECT_GT(light, last);
    last = light;
  }
  const HeatMap map{
      .title = "t",
      .unit = "dB",
      .column = "layer",
      .kinds = {"a", "b"},
      .strips = {
          {.label = "one", .notes = {"n"}, .values = {{10, kInfinity}, {std::nan(""), -3}}}}};
  const std::string svg = heat_map_svg(map);
  EXPECT_EQ(count_of(svg, "<title>"), 3u);  // no cell where nothing is known
  EXPECT_NE(svg.find("layer 1, a: exact"), std::string::npos);
  EXPECT_NE(svg.find("layer 1, b: -3.0 dB"), std::string::npos);
}

TEST(Page, IsOneFileThatAsksForNothingElse) {
  Page page;
  page.title = "<b>model</b>";
  page.facts = {{"Text", "a & b"}};
  page.command = "mantissa compare 'x y'";
  page.table = {.header = {"scheme", "size"},
                .rows = {{"int8", "8.7 MB"}, {"int9", ""}},
                .failures = {"", "no <such> scheme"},
                .caption = ""};
  page.second_title = "Kernels";
  page.figures = {{.title = "Size", .caption = "c", .svg = scatter_svg(sample_plot())}};
  const std::string html = page_html(page);
  EXPECT_TRUE(html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
  for (const char* outside : {"<script", "http:", "https:", "src=", "@import", "url(", "<link"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  EXPECT_EQ(html.find("<b>model"), std::string::npos);
  EXPECT_NE(html.find("&lt;b&gt;model"), std::string::npos);
  EXPECT_NE(html.find("no &lt;such&gt; scheme"), std::string::npos);
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(html.find("@media print"), std::string::npos);
  EXPECT_NE(html.find("<td class=\"number\">8.7 MB</td>"), std::string::npos);
  for (const char* element : {"html", "body", "main", "table", "figure", "svg", "dl", "header"})
    EXPECT_EQ(count_of(html, std::string("<") + element + ">") +
                  count_of(html, std::string("<") + element + " "),
              count_of(html, std::string("</") + element + ">"))
        << element;
}

}  // namespace
}  // namespace mantissa::report
