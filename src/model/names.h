// --ignore patterns on the names of modules.
#pragma once

#include <string>
#include <vector>

#include "io/name_pattern.h"

namespace mantissa {

// --ignore: names and "re:PATTERN" (io/name_pattern.h) of the unfused modules:
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
    NamePattern name;
    bool used = false;
  };
  std::vector<Pattern> patterns_;
};

}  // namespace mantissa
