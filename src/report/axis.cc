#include "report/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace mantissa::report {
namespace {

constexpr double kBand = 30;      // pixels
constexpr double kMargin = 0.06;  // of the range, beyond the outermost values

// 1, 2 or 5 times a power of ten, at least `least`.
double nice_step(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

std::string superscript(int value) {
  constexpr std::string_view kDigits[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                          "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out = value < 0 ? "\u207b" : "";
  for (char c : std::to_string(std::abs(value))) out += kDigits[c - '0'];
  return out;
}

}  // namespace

std::vector<double> linear_ticks(double low, double high, int count) {
  check(high > low && count > 0, "linear_ticks: a range");
  const double step = nice_step((high - low) / count);
  std::vector<double> out;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
    out.push_back(i * step);
  return out;
}

std::vector<double> log_ticks(double low, double high) {
  check(low > 0 && high > low, "log_ticks: a positive range");
  const int first = static_cast<int>(std::floor(std::log10(low))),
            last = static_cast<int>(std::ceil(std::log10(high)));
  const int decades = static_cast<int>(std::floor(std::log10(high) + 1e-9)) -
                      static_cast<int>(std::ceil(std::log10(low) - 1e-9)) + 1;
  const int every = std::max(1, (decades + 7) / 8);  // of very long axes
  std::vector<double> out;
  for (int e = first; e <= last; ++e) {
    for (double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades >= 3) continue;
      if (factor == 1 && e % every != 0) continue;
      const double value = factor * std::pow(10, e);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) out.push_back(value);
    }
  }
  return out;
}

std::string tick_label(double value, double step) {
  if (std::fabs(value) < step * 1e-6) return "0";
  const double magnitude = std::fabs(value);
  const int exponent = static_cast<int>(std::floor(std::log10(magnitude) + 1e-9));
  if (exponent >= 6 || exponent < -4) {
    const double factor = value / std::pow(10, exponent);
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.3g", factor);
    const std::string head = std::fabs(factor - 1) < 1e-9 ? "" : std::string(buffer) + "\u00b7";
    return head + "10" + superscript(exponent);
  }
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

Axis::Axis(Scale scale, std::span<const double> values, double first, double last)
    : scale_(scale), first_(first), last_(last) {
  const double direction = last > first ? 1 : -1;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  bool zero = false, negative = false, infinite = false;
  for (double value : values) {
    check(!std::isnan(value), "Axis: values that are numbers");
    if (std::isinf(value)) {
      infinite = true;
    } else if (scale == Scale::kLog && value <= 0) {
      zero = true;
      negative = negative || value < 0;
    } else {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (zero) {
    zero_at_ = first + direction * kBand / 2;
    first_ = first + direction * kBand;
    zero_edge_ = first_;
    zero_label_ = negative ? "\u2264 0" : "0";
  }
  if (infinite) {
    infinity_at_ = last - direction * kBand / 2;
    last_ = last - direction * kBand;
    infinity_edge_ = last_;
  }
  if (low > high) low = high = 1;  // nothing to show but bands
  if (scale == Scale::kLog) {
    low = std::log10(low);
    high = std::log10(high);
  }
  const double range = high - low;
  const double pad = range > 0               ? kMargin * range
                     : scale == Scale::kLog  ? 0.5
                     : std::fabs(low) > 1e-9 ? std::fabs(low) / 10
                                             : 1;
  low_ = low - pad;
  high_ = high + pad;
  if (scale == Scale::kLog && high_ - low_ < 1) {  // a decade at least, so that there are ticks
    const double middle = (low_ + high_) / 2;
    low_ = middle - 0.5;
    high_ = middle + 0.5;
  }
  if (scale == Scale::kLog) {
    low_ = std::max(low_, -307.0);  // powers of ten that a double has
    high_ = std::min(high_, 307.0);
  }
}

double Axis::position(double value) const {
  return ((scale_ == Scale::kLog ? std::log10(value) : value) - low_) / (high_ - low_);
}

double Axis::at(double value) const {
  if (std::isinf(value) && infinity_edge_) return infinity_at_;
  if (scale_ == Scale::kLog && value <= 0 && zero_edge_) return zero_at_;
  return first_ + position(value) * (last_ - first_);
}

double Axis::clamped(double value) const {
  if (scale_ == Scale::kLog && value <= 0) return first_;
  return first_ + std::clamp(position(value), 0.0, 1.0) * (last_ - first_);
}

std::vector<Tick> Axis::ticks(int count) const {
  std::vector<Tick> out;
  if (zero_edge_) out.push_back({zero_at_, zero_label_});
  if (scale_ == Scale::kLog) {
    const std::vector<double> values = log_ticks(std::pow(10, low_), std::pow(10, high_));
    for (double value : values)
      out.push_back(
          {at(value), tick_label(value, std::pow(10, std::floor(std::log10(value) + 1e-9)))});
  } else {
    const std::vector<double> values = linear_ticks(low_, high_, count);
    const double step = values.size() > 1 ? values[1] - values[0] : 1;
    for (double value : values) out.push_back({at(value), tick_label(value, step)});
  }
  if (infinity_edge_) out.push_back({infinity_at_, "\u221e"});
  return out;
}

}  // namespace mantissa::report
