// The queue of a verb that needs a device but no model.
#pragma once

#include "app/command.h"
#include "kernels/open_queue.h"

namespace mantissa {

// With the verb's --threads and --isa.
inline OpenQueue open_queue(const Ops& ops, const Args& args) {
  return open_queue(ops, DeviceConfig{.threads = static_cast<int>(args.integer("threads")),
                                      .isa = args.text("isa"),
                                      .scratch_tokens = 1});
}

}  // namespace mantissa
