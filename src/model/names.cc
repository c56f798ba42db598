#include "model/names.h"

namespace mantissa {

IgnoreList::IgnoreList(const std::vector<std::string>& patterns) {
  for (const std::string& p : patterns) patterns_.push_back({.name = NamePattern(p, "--ignore")});
}

bool IgnoreList::matches(const std::string& module) {
  bool any = false;
  for (Pattern& p : patterns_) {
    const bool hit = p.name.matches(module);
    p.used = p.used || hit;
    any = any || hit;
  }
  return any;
}

std::vector<std::string> IgnoreList::unused() const {
  std::vector<std::string> names;
  for (const Pattern& p : patterns_) {
    if (!p.used) names.push_back(p.name.source());
  }
  return names;
}

}  // namespace mantissa
