// The CPU backend's execution context: threads, instruction set, scratch memory. Used by one
// caller at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <tuple>
#include <vector>

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
  kLinearSums,
  kLinearWorkers,
  kRows,
  kAttention,
  kAttentionWorkers,
  kCount
};

// Totals of each operation; n and k are 0 but for linears.
class OperationTimes {
 public:
  void add(const char* operation, int64_t n, int64_t k, double seconds);
  std::vector<OperationTime> rows() const;

 private:
  struct Total {
    int64_t calls = 0;
    double seconds = 0;
  };
  std::map<std::tuple<std::string_view, int64_t, int64_t>, Total> totals_;
};

// Cosines and sines of a pass: layers share them as long as positions and frequencies are the same.
struct RopeAngles {
  std::vector<float> cos_sin;  // [T][2][half]
  std::vector<int32_t> positions;
  std::vector<float> inv_freq;
  float factor = 0;
};

struct CpuQueue {
  explicit CpuQueue(const DeviceConfig& config)
      : config(config),
        isa(resolve_isa(config.isa)),
        pool(config.threads),
        samplers(static_cast<size_t>(pool.threads())) {}

  DeviceConfig config;
  Isa isa;
  ThreadPool pool;
  std::vector<SamplerScratch> samplers;  // [threads]
  OperationTimes times;                  // where config.time_operations
  RopeAngles angles;

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
