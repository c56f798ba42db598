// The only place that reads environment variables.
#pragma once

#include <optional>
#include <string>

namespace mantissa {

// nullopt where the variable is not set; an empty string where it is set to nothing.
std::optional<std::string> env(const char* name);

}  // namespace mantissa
