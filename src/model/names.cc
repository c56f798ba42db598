#include "model/names.h"

#include "base/error.h"

namespace mantissa {

IgnoreList::IgnoreList(const std::vector<std::string>& patterns) {
  for (const std::string& p : patterns) {
    Pattern pattern{.source = p, .is_regex = p.starts_with("re:"), .used = false, .regex = {}};
    if (pattern.is_regex) {
      try {
        pattern.regex = std::regex(p.substr(3));
      } catch (const std::regex_error& e) {
        throw Error(text("--ignore ", p, ": not a regular expression (", e.what(), ")"),
                    "give re:PATTERN in ECMAScript syntax, or a module's whole name");
      }
    }
    patterns_.push_back(std::move(pattern));
  }
}

bool IgnoreList::matches(const std::string& module) {
  bool any = false;
  for (Pattern& p : patterns_) {
    const bool hit =
        p.is_regex ? std::regex_search(module, p.regex, std::regex_constants::match_continuous)
                   : module == p.source;
    p.used = p.used || hit;
    any = any || hit;
  }
  return any;
}

std::vector<std::string> IgnoreList::unused() const {
  std::vector<std::string> names;
  for (const Pattern& p : patterns_) {
    if (!p.used) names.push_back(p.source);
  }
  return names;
}

}  // namespace mantissa
