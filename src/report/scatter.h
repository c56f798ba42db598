// A plot of named points as SVG: error bars, groups by colour and shape, the front of the best.
#pragma once

#include <string>
#include <vector>

#include "report/axis.h"

namespace mantissa::report {

struct ScatterPoint {
  std::string label;
  double x = 0, y = 0;              // y may be infinite
  double x_error = 0, y_error = 0;  // one standard error; 0: no bar
  int group = 0;
  std::string detail = {};  // shown where the pointer rests
};

struct ScatterAxis {
  std::string title;  // with its unit and which direction is better
  Scale scale = Scale::kLinear;
  bool larger_is_better = false;
};

struct Scatter {
  std::string title;  // for those who cannot see it
  ScatterAxis x, y;
  std::vector<std::string> groups;  // at most kGroupsMax
  std::vector<ScatterPoint> points;
};
inline constexpr size_t kGroupsMax = 6;

// Which points no other one beats or equals in both directions and beats in one; ascending by x.
std::vector<size_t> best_front(const Scatter& plot);

std::string scatter_svg(const Scatter& plot);

}  // namespace mantissa::report
