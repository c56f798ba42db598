// Values of layers x kinds for several schemes as strips of coloured cells, one scale for all.
#pragma once

#include <string>
#include <vector>

namespace mantissa::report {

struct HeatStrip {
  std::string label;
  std::vector<std::string> notes;           // lines under the label
  std::vector<std::vector<double>> values;  // [kinds][layers]; infinity: exact, NaN: nothing known
};

struct HeatMap {
  std::string title;   // for those who cannot see it
  std::string unit;    // of the values; larger is better
  std::string column;  // what the columns are: "layer"
  std::vector<std::string> kinds;
  std::vector<HeatStrip> strips;
};

// "#rrggbb" for 0 (worst) to 1 (best): cividis, which reads the same to colour-blind people and
// gets lighter all the way, also in print without colour.
std::string heat_colour(double part);

std::string heat_map_svg(const HeatMap& map);

}  // namespace mantissa::report
