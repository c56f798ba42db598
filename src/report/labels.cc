#include "report/labels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace mantissa::report {
namespace {

constexpr double kGap = 3;         // pixels between mark and text
constexpr double kLeaderFrom = 9;  // pixels between mark and text that ask for a line
constexpr int kRounds = 10;
// Costs, in units of one pixel of distance: covering a square pixel of each.
constexpr double kOnText = 30, kOnMark = 12, kOnObstacle = 1.5, kOutside = 1000;
constexpr double kCrossing = 60, kThroughText = 120;

struct Point {
  double x, y;
};

double cross(Point a, Point b, Point c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}
bool lines_cross(Point a, Point b, Point c, Point d) {
  return cross(a, b, c) * cross(a, b, d) < 0 && cross(c, d, a) * cross(c, d, b) < 0;
}
bool line_meets(const Box& box, Point a, Point b) {
  const Point corners[] = {
      {box.left, box.top}, {box.right, box.top}, {box.right, box.bottom}, {box.left, box.bottom}};
  for (size_t i = 0; i < 4; ++i)
    if (lines_cross(a, b, corners[i], corners[(i + 1) % 4])) return true;
  return false;
}

Box mark_of(const LabelRequest& r) {
  return {r.x - r.radius, r.y - r.radius, r.x + r.radius, r.y + r.radius};
}

// The text's box at `distance` from the mark in a direction, its nearest side towards the mark.
PlacedLabel candidate(const LabelRequest& r, double angle, double distance) {
  const double reach = r.radius + kGap + distance, c = std::cos(angle), s = std::sin(angle);
  const double x = r.x + c * (reach + r.width / 2), y = r.y + s * (reach + r.height / 2);
  PlacedLabel out;
  out.box = {x - r.width / 2, y - r.height / 2, x + r.width / 2, y + r.height / 2};
  out.to_x = std::clamp(r.x, out.box.left, out.box.right);
  out.to_y = std::clamp(r.y, out.box.top, out.box.bottom);
  const double dx = out.to_x - r.x, dy = out.to_y - r.y, length = std::hypot(dx, dy);
  out.leader = length > r.radius + kLeaderFrom;
  const double start = length > 0 ? r.radius / length : 0;
  out.from_x = r.x + dx * start;
  out.from_y = r.y + dy * start;
  return out;
}

std::vector<PlacedLabel> candidates(const LabelRequest& r) {
  constexpr int kDirections = 16;
  std::vector<PlacedLabel> out;
  for (double distance : {0.0, 8.0, 18.0, 30.0, 44.0, 60.0, 80.0, 104.0, 132.0})
    for (int d = 0; d < kDirections; ++d)
      out.push_back(candidate(r, 2 * std::numbers::pi * d / kDirections, distance));
  return out;
}

double outside(const Box& box, const Box& bounds) {
  return std::max(0.0, bounds.left - box.left) + std::max(0.0, box.right - bounds.right) +
         std::max(0.0, bounds.top - box.top) + std::max(0.0, box.bottom - bounds.bottom);
}

// What does not depend on other labels.
double own_cost(size_t index, const PlacedLabel& label, std::span<const LabelRequest> requests,
                const Box& bounds, std::span<const Box> obstacles) {
  const LabelRequest& r = requests[index];
  double cost = kOutside * outside(label.box, bounds);
  cost += std::hypot(label.to_x - r.x, label.to_y - r.y) * (label.leader ? 1.0 : 0.5);
  if (label.box.left < r.x) cost += 2;  // beside on the right reads best, above next
  if (label.box.top > r.y) cost += 1;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Box mark = mark_of(requests[i]);
    cost += kOnMark * label.box.overlap(mark);
    if (i != index && label.leader &&
        line_meets(mark, {label.from_x, label.from_y}, {label.to_x, label.to_y}))
      cost += kCrossing;
  }
  for (const Box& obstacle : obstacles) cost += kOnObstacle * label.box.overlap(obstacle);
  return cost;
}

double pair_cost(const PlacedLabel& a, const PlacedLabel& b) {
  // A pixel more around each text keeps two names apart.
  const Box wide{a.box.left - 2, a.box.top - 1, a.box.right + 2, a.box.bottom + 1};
  double cost = kOnText * wide.overlap(b.box);
  const Point a0{a.from_x, a.from_y}, a1{a.to_x, a.to_y}, b0{b.from_x, b.from_y},
      b1{b.to_x, b.to_y};
  if (a.leader && line_meets(b.box, a0, a1)) cost += kThroughText;
  if (b.leader && line_meets(a.box, b0, b1)) cost += kThroughText;
  if (a.leader && b.leader && lines_cross(a0, a1, b0, b1)) cost += kCrossing;
  return cost;
}

}  // namespace

double Box::overlap(const Box& other) const {
  const double w = std::min(right, other.right) - std::max(left, other.left),
               h = std::min(bottom, other.bottom) - std::max(top, other.top);
  return w > 0 && h > 0 ? w * h : 0;
}

std::vector<PlacedLabel> place_labels(std::span<const LabelRequest> requests, const Box& bounds,
                                      std::span<const Box> obstacles) {
  const size_t count = requests.size();
  std::vector<std::vector<PlacedLabel>> options(count);
  std::vector<std::vector<double>> own(count);
  std::vector<size_t> chosen(count, 0);
  for (size_t i = 0; i < count; ++i) {
    options[i] = candidates(requests[i]);
    for (const PlacedLabel& option : options[i])
      own[i].push_back(own_cost(i, option, requests, bounds, obstacles));
    chosen[i] = static_cast<size_t>(std::ranges::min_element(own[i]) - own[i].begin());
  }
  for (int round = 0; round < kRounds; ++round) {
    bool changed = false;
    for (size_t i = 0; i < count; ++i) {
      double least = std::numeric_limits<double>::infinity();
      size_t best = chosen[i];
      for (size_t c = 0; c < options[i].size(); ++c) {
        double cost = own[i][c];
        for (size_t j = 0; j < count && cost < least; ++j)
          if (j != i) cost += pair_cost(options[i][c], options[j][chosen[j]]);
        if (cost < least) {
          least = cost;
          best = c;
        }
      }
      changed = changed || best != chosen[i];
      chosen[i] = best;
    }
    if (!changed) break;
  }
  std::vector<PlacedLabel> out;
  for (size_t i = 0; i < count; ++i) out.push_back(options[i][chosen[i]]);
  return out;
}

}  // namespace mantissa::report
