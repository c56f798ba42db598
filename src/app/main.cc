// The binary `mantissa`.
#include <unistd.h>

#include <csignal>

#include "app/command.h"

namespace {

// Ends at once, as programs do that have nothing to tidy up; the newline leaves a half-drawn
// progress line behind.
extern "C" void on_interrupt(int signal) {
  if (isatty(STDERR_FILENO) == 1) {
    const ssize_t written = write(STDERR_FILENO, "\n", 1);
    static_cast<void>(written);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  if (std::signal(SIGINT, SIG_IGN) != SIG_IGN) std::signal(SIGINT, on_interrupt);
  return mantissa::run_command_line({argv, static_cast<size_t>(argc)});
}
