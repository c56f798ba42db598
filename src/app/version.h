// What this binary is: for --version and for every benchmark object.
#pragma once

#include <string>
#include <string_view>

namespace mantissa {

std::string_view version();   // "0.1.0"
std::string_view commit();    // short hash, "+" where the tree had changes; "unknown" without git
std::string_view compiler();  // "g++ 12.2.0, Release"

}  // namespace mantissa
