# Run at build time: writes OUT with the version, the commit of SOURCE_DIR and the compiler, where
# that differs from what OUT says already.
set(commit unknown)
find_program(GIT git)
if(GIT AND EXISTS "${SOURCE_DIR}/.git")
  execute_process(COMMAND "${GIT}" -C "${SOURCE_DIR}" rev-parse --short=12 HEAD
    OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(commit "${head}")
    execute_process(COMMAND "${GIT}" -C "${SOURCE_DIR}" diff-index --quiet HEAD --
      RESULT_VARIABLE changed ERROR_QUIET)
    if(changed)
      string(APPEND commit "+")
    endif()
  endif()
endif()
set(compiler "${COMPILER}, ${BUILD_TYPE}")
if(SANITIZE)
  string(APPEND compiler ", ${SANITIZE}")
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT [[
#include "app/version.h"

namespace mantissa {
std::string_view version() {
  return "@VERSION@";
}
std::string_view commit() {
  return "@commit@";
}
std::string_view compiler() {
  return "@compiler@";
}
}  // namespace mantissa
]] @ONLY)
