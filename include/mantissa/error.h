// The one exception type that Mantissa throws at its callers.
#pragma once

#include <stdexcept>
#include <string>

namespace mantissa {

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

}  // namespace mantissa
