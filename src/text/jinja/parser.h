// From tokens to a Template.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/ast.h"

namespace mantissa::jinja {

inline constexpr int kNestingMax = 200;  // of expressions and blocks in the source

// Throws Error "NAME: line N: ..." for wrong syntax and for what is not supported: inheritance
// and includes ({% extends %}, {% block %}, {% include %}, {% import %}), {% autoescape %}, filters
// and tests that are not in the tables.
Template parse_template(std::string_view source, const std::string& name);

}  // namespace mantissa::jinja
