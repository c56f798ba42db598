// A backend's queue, opened for one verb and closed with it.
#pragma once

#include <memory>

#include "app/command.h"
#include "kernels/ops.h"

namespace mantissa {

struct QueueClose {
  const Ops* ops = nullptr;
  void operator()(Queue* queue) const noexcept { ops->close(queue); }
};
using OpenQueue = std::unique_ptr<Queue, QueueClose>;

// With the verb's --threads and --isa.
inline OpenQueue open_queue(const Ops& ops, const Args& args) {
  return OpenQueue(ops.open({.threads = static_cast<int>(args.integer("threads")),
                             .isa = args.text("isa"),
                             .scratch_tokens = 1}),
                   QueueClose{&ops});
}

}  // namespace mantissa
