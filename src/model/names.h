// --ignore patterns on the names of modules.
#pragma once

#include <regex>
#include <string>
#include <vector>

namespace mantissa {

// --ignore: "re:PATTERN" matches from the start of the module's name as compressed-tensors does
// (re.match), anything else is the whole name. Names are those of the unfused modules:
// "model.layers.0.self_attn.q_proj".
class IgnoreList {
 public:
  // Throws Error naming a pattern that is no regular expression.
  explicit IgnoreList(const std::vector<std::string>& patterns);
  bool matches(const std::string& module);
  // Patterns that matched nothing so far: the user should know.
  std::vector<std::string> unused() const;

 private:
  struct Pattern {
    std::string source;
    bool is_regex = false, used = false;
    std::regex regex;
  };
  std::vector<Pattern> patterns_;
};

}  // namespace mantissa
