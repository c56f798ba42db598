#include "base/error.h"

#include <cstdlib>
#include <iostream>

namespace mantissa {

void check_failed(const char* what, const char* file, int line) {
  std::cerr << "mantissa: internal error: " << what << " (" << file << ":" << line << ")\n";
  std::abort();
}

}  // namespace mantissa
