// Where the names of points go so that none covers another, a point, or an error bar.
#pragma once

#include <span>
#include <vector>

namespace mantissa::report {

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
  // Area that both cover.
  double overlap(const Box& other) const;
};

struct LabelRequest {
  double x = 0, y = 0, radius = 0;  // of the point's mark
  double width = 0, height = 0;     // of the text
};
struct PlacedLabel {
  Box box;
  bool leader = false;                                // so far away that a line leads there
  double from_x = 0, from_y = 0, to_x = 0, to_y = 0;  // that line: from the mark to the text
};

// One for each request, inside `bounds`. obstacles: what else texts should not cover.
// Deterministic: candidates around each point at growing distance, the cheapest for all, a few
// rounds.
std::vector<PlacedLabel> place_labels(std::span<const LabelRequest> requests, const Box& bounds,
                                      std::span<const Box> obstacles);

}  // namespace mantissa::report
