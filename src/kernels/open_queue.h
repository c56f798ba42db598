// A backend's queue and its owner.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace mantissa {

struct QueueClose {
  const Ops* ops = nullptr;
  void operator()(Queue* queue) const noexcept { ops->close(queue); }
};
using OpenQueue = std::unique_ptr<Queue, QueueClose>;

inline OpenQueue open_queue(const Ops& ops, const DeviceConfig& config) {
  return {ops.open(config), QueueClose{&ops}};
}

}  // namespace mantissa
