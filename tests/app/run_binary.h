// Runs the built `mantissa` as a user would: arguments in, exit code and both streams out.
#pragma once

#include <string>
#include <vector>

namespace mantissa {

struct RunResult {
  int exit_code = -1;  // 128 + signal where it was killed by one
  std::string out, err;
};

// Standard input is empty. A run of more than a few minutes is killed and fails the test.
RunResult run_mantissa(const std::vector<std::string>& arguments);
// The same through a shell, where $MANTISSA is the binary.
RunResult run_shell(const std::string& line);

// The demo model of the source tree.
std::string demo_model();

}  // namespace mantissa
