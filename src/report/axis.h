// One axis of a plot: which range, which ticks, where a value lies. Values that a scale cannot show
// have bands of their own: zero and below on a logarithmic scale, infinity on any.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mantissa::report {

enum class Scale : uint8_t { kLinear, kLog };

struct Tick {
  double at = 0;      // pixels
  std::string label;  // empty: a minor one, without a text
};

// Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about `count` of them.
std::vector<double> linear_ticks(double low, double high, int count);
// Powers of ten within [low, high]; with fewer than three of them 2 and 5 times those too.
std::vector<double> log_ticks(double low, double high);
// As short as the neighbours' distance allows: "0.25", "1500", and powers of ten beyond 10^5 or
// below 10^-4 as "10⁻⁵".
std::string tick_label(double value, double step);

class Axis {
 public:
  // values: all that it shows, infinities too. first, last: pixels of the smallest and largest.
  Axis(Scale scale, std::span<const double> values, double first, double last);
  double at(double value) const;
  // Within the axis; what lies outside of it moves to its end.
  double clamped(double value) const;
  std::vector<Tick> ticks(int count) const;
  // Where the band of zero ends and that of infinity begins, in pixels.
  std::optional<double> zero_edge() const { return zero_edge_; }
  std::optional<double> infinity_edge() const { return infinity_edge_; }

 private:
  double position(double value) const;  // in [0, 1] of what is no band
  Scale scale_;
  double low_ = 0, high_ = 1;    // of the scale: logarithms where it is one
  double first_ = 0, last_ = 0;  // pixels without the bands
  double zero_at_ = 0, infinity_at_ = 0;
  std::string zero_label_;
  std::optional<double> zero_edge_, infinity_edge_;
};

}  // namespace mantissa::report
