#include "app/interrupts.h"

namespace mantissa {
namespace {

// The one thing that a signal handler can write to.
volatile std::sig_atomic_t interrupts = 0;
extern "C" void count_interrupt(int) {
  interrupts = interrupts + 1;
}

}  // namespace

InterruptsCounted::InterruptsCounted() {
  struct sigaction action {};
  action.sa_handler = count_interrupt;  // no SA_RESTART
  sigaction(SIGINT, &action, &before_);
}

InterruptsCounted::~InterruptsCounted() {
  sigaction(SIGINT, &before_, nullptr);
}

int InterruptsCounted::count() {
  return interrupts;
}

}  // namespace mantissa
