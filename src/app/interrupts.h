// Ctrl-C where it must not end the program at once: an answer is cut short, unfinished files go.
#pragma once

#include <csignal>

namespace mantissa {

// While one lives, interrupts are counted and a blocking read ends with EINTR.
class InterruptsCounted {
 public:
  InterruptsCounted();
  ~InterruptsCounted();
  InterruptsCounted(const InterruptsCounted&) = delete;
  InterruptsCounted& operator=(const InterruptsCounted&) = delete;

  static int count();  // since the program began

 private:
  struct sigaction before_ {};
};

}  // namespace mantissa
