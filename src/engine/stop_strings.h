// Finds stop strings in a text that comes in pieces, and holds back what may become one. The one
// that is complete first ends the text (of those, the longest), however the text was cut to pieces.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa {

// Throws Error for a string that is empty or starts inside a UTF-8 character.
void check_stop_strings(std::span<const std::string> stops);

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);  // checked as above

  // The text that is now certain to stand before any stop string. After a match: nothing more.
  std::string push(std::string_view piece);
  std::string flush();  // what was held back, at the end of the text
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace mantissa
