// The CPU backend's execution context: threads, instruction set, scratch memory. Used by one
// caller at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

namespace mantissa::cpu {

// Grow-only memory, 64-byte aligned, contents undefined after a get(). Not thread-safe: get()
// before the loop starts. Grows only when a call needs more than any before it.
class Scratch {
 public:
  std::byte* get(int64_t bytes);
  template <class T>
  T* get_as(int64_t count) {
    return reinterpret_cast<T*>(get(count * static_cast<int64_t>(sizeof(T))));
  }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  int64_t bytes_ = 0;
};

// Who uses a scratch buffer: operations never share one while both are alive.
enum class ScratchUse {
  kLinearInput,
  kLinearOffsets,
  kLinearWorkers,
  kRows,
  kAttention,
  kAttentionWorkers,
  kCount
};

struct CpuQueue {
  explicit CpuQueue(const DeviceConfig& config)
      : config(config), isa(resolve_isa(config.isa)), pool(config.threads) {}

  DeviceConfig config;
  Isa isa;
  ThreadPool pool;
  SamplerScratch sampler;

  Scratch& scratch(ScratchUse use) { return scratch_[static_cast<size_t>(use)]; }

 private:
  std::array<Scratch, static_cast<size_t>(ScratchUse::kCount)> scratch_;
};

// mantissa::Queue is opaque and shared by all backends; each casts to its own.
inline CpuQueue& cpu_queue(Queue* queue) {
  check(queue != nullptr, "cpu: queue is open");
  return *reinterpret_cast<CpuQueue*>(queue);
}

}  // namespace mantissa::cpu
