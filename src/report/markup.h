// HTML and SVG as text: elements that are opened and closed, everything from outside escaped.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa::report {

// Fit for element text and attribute values: < > & " ' escaped, invalid UTF-8 and control
// characters (but newlines and tabs) as U+FFFD.
std::string escape(std::string_view text);

// A coordinate: two decimals at most, no trailing zeros.
std::string coordinate(double value);

struct Attribute {
  std::string_view name;
  std::string value;
  Attribute(std::string_view name, std::string_view value) : name(name), value(value) {}
  Attribute(std::string_view name, const char* value) : name(name), value(value) {}
  Attribute(std::string_view name, const std::string& value) : name(name), value(value) {}
  Attribute(std::string_view name, double value) : name(name), value(coordinate(value)) {}
};

class Markup {
 public:
  using Attributes = std::initializer_list<Attribute>;
  Markup& open(std::string_view element, Attributes attributes = {});
  Markup& close();
  Markup& text(std::string_view text);
  // An element that holds text alone; an empty one is closed at once.
  Markup& leaf(std::string_view element, Attributes attributes = {}, std::string_view text = {});
  // Markup that was made by this class.
  Markup& raw(std::string_view markup);
  // All elements must be closed.
  std::string take();

 private:
  void start(std::string_view element, Attributes attributes);
  std::string out_;
  std::vector<std::string> open_;
};

}  // namespace mantissa::report
