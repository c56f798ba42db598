// Names of modules as configs and users write them: "re:PATTERN" matches from the start of a name,
// as Python's re.match does (compressed-tensors), anything else is the whole name. Patterns are
// untrusted: their size and the work of a match are limited.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace mantissa {

struct NameRegex;

class NamePattern {
 public:
  // where: what errors call it: "--ignore", "quantization_config.ignore[3]". Throws Error.
  NamePattern(std::string source, const std::string& where);

  bool is_regex() const { return regex_ != nullptr; }
  const std::string& source() const { return source_; }
  // Throws Error where the pattern gives up on the name.
  bool matches(const std::string& name) const;

 private:
  std::string source_;
  std::shared_ptr<const NameRegex> regex_;
};

}  // namespace mantissa
