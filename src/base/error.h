// Errors and text. Three kinds of failure, three means: bad input or environment throws Error; a
// bug of ours aborts through check(); an expected outcome is a return value.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mantissa {

// Joins its arguments as operator<< prints them.
template <class... Args>
std::string text(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// What was found, and what the user can do about it. The command line prints both and exits with 2
// (wrong arguments or input) or 1 (the run failed), according to `kind`.
struct Error : std::runtime_error {
  enum class Kind { kInput, kRuntime };

  Error(const std::string& what, const std::string& fix, Kind kind = Kind::kInput,
        const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : std::runtime_error(what + "\n  fix: " + fix),
        found(what),
        fix(fix),
        kind(kind),
        file(file),
        line(line) {}

  std::string found;  // one line: what was found and where
  std::string fix;    // one line: what to do
  Kind kind;
  const char* file;  // where in our source, for logs at debug level
  int line;
};

// A bug of ours: prints the condition and aborts; on in release builds too.
[[noreturn]] void check_failed(const char* what, const char* file, int line);
inline void check(bool condition, const char* what, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (!condition) check_failed(what, file, line);
}

}  // namespace mantissa
