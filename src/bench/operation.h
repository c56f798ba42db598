// What benchmarks of single operations share: memory of the device, random values, how often a run
// is repeated.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/bench_ops.h"

namespace mantissa {

// Operands are rotated over so many bytes: three times an H200's L2 (50 MB). A server's L3 over all
// its cores may be larger (`mantissa devices` names it); what one core reaches of it mostly is not.
inline constexpr int64_t kRotatedBytes = int64_t{160} << 20;

class DeviceMemory {
 public:
  DeviceMemory(const Ops& ops, Queue* queue, int64_t bytes)
      : ops_(ops), queue_(queue), bytes_(bytes), data_(ops.allocate(bytes, "a benchmark", queue)) {}
  ~DeviceMemory() { ops_.release(data_, bytes_, queue_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  const Ops& ops_;
  Queue* queue_;
  int64_t bytes_;
  std::byte* data_;
};

// Throws Error where the device has not so many bytes: the host's memory would be promised and the
// process killed when it is used.
void require_memory(const Ops& ops, Queue* queue, double bytes, const std::string& what);

// [rows, cols], about normal, deviation `spread`, as the run dtype holds them.
std::vector<float> random_rows(int64_t rows, int64_t cols, const Elem& run_dtype, double spread,
                               uint64_t seed);

// As many runs in one measurement as take about 2 ms, `sets` at least (each set of rotated operands
// once), repeated for about 50 ms.
RunTimes timed_runs(const BenchOps& bench, const std::function<void(int)>& run, Queue* queue,
                    int64_t sets);

}  // namespace mantissa
