// Loads weights through the device (kernels/load_stream.h): reads the checkpoint's bytes with all
// threads into staging memory; the device quantizes. Where a backend or a weight does not take
// this, loader.cc quantizes on the host.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "io/safetensors.h"
#include "model/layout.h"

namespace mantissa {

// Which random numbers a dummy tensor has (dummy_value()).
uint64_t dummy_stream(uint64_t seed, const std::string& tensor);

// Device memory that loading through the device takes beside the weights: the largest weight that
// is quantized from raw values. 0 where the backend does not load so.
int64_t device_load_bytes(ModelLayout& layout, const Checkpoint* checkpoint, const Ops& ops);

class DeviceLoader {
 public:
  // checkpoint == nullptr: dummy weights. Everything outlives the loader. ops.load is not null.
  DeviceLoader(ModelLayout& layout, const Checkpoint* checkpoint, uint64_t seed, const Ops& ops,
               Queue* queue, ThreadPool& pool);
  ~DeviceLoader();
  DeviceLoader(const DeviceLoader&) = delete;
  DeviceLoader& operator=(const DeviceLoader&) = delete;

  // Empty: load() takes it. Else why not.
  std::string_view refuses(const PlannedWeight& w) const { return ops_.refuses(w.weight); }
  // w.weight.data is there; filled when finish() returns.
  void load(const PlannedWeight& w);

  // Codes of rows from row0 on, as the checkpoint has them. False: their layout is another, and
  // Ops::pack_rows takes them. Thread-safe for different workers.
  bool send_codes(const Weight& w, int64_t row0, std::span<const uint8_t> codes, int worker);

  struct Met {
    std::string name;
    QuantReport report;
  };
  // Waits; what the weights met, in order. Adds what the stages took to `stages`.
  std::vector<Met> finish(std::vector<LoadStage>& stages);

 private:
  struct Close {
    const LoadOps* ops;
    void operator()(LoadStream* stream) const noexcept { ops->close(stream); }
  };

  const Checkpoint* checkpoint_;
  uint64_t seed_;
  const LoadOps& ops_;
  ThreadPool& pool_;
  std::unique_ptr<LoadStream, Close> stream_;
  std::vector<std::string> names_;
  std::atomic<int64_t> read_bytes_{0}, read_ns_{0};  // of all threads
};

}  // namespace mantissa
