#include "base/env.h"

#include <cstdlib>

namespace mantissa {

std::optional<std::string> env(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  return value;
}

}  // namespace mantissa
