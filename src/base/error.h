// Errors and text. Three kinds of failure, three means: bad input or environment throws Error; a
// bug of ours aborts through check(); an expected outcome is a return value.
#pragma once

#include <sstream>
#include <string>

#include "mantissa/error.h"

namespace mantissa {

// Joins its arguments as operator<< prints them.
template <class... Args>
std::string text(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// A bug of ours: prints the condition and aborts; on in release builds too.
[[noreturn]] void check_failed(const char* what, const char* file, int line);
inline void check(bool condition, const char* what, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (!condition) check_failed(what, file, line);
}

}  // namespace mantissa
