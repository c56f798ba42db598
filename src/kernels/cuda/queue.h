// The CUDA backend's execution context: a device, one stream, scratch memory. Used by one caller at
// a time, but for uploads of weights, which may come from several threads.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace mantissa::cuda {

struct StreamDestroy {
  void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<CUstream_st, StreamDestroy>;
struct EventDestroy {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, EventDestroy>;
struct DeviceFree {
  void operator()(std::byte* memory) const noexcept { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<std::byte, DeviceFree>;
DeviceMemory allocate_device(int64_t bytes, std::string_view what);

struct CudaQueue {
  explicit CudaQueue(const DeviceConfig& config);

  int capability = 0;          // 90: Hopper
  std::string device_name;     // "NVIDIA H200"
  bool portable_only = false;  // --isa portable: no kernel that needs more than Ampere
  bool fast_accum = false;     // --fast-accum
  Stream stream;
  std::array<Event, kMarks> marks;
  bool captured =
      false;          // a graph exists: it goes on using the scratch memory that it was made with
  DeviceMemory amax;  // one float: of a per-tensor activation
  DeviceMemory attention_state;  // attention_sm90.h; from Hopper on
  DeviceMemory decode_rows;      // decode_layers.h; likewise

  // Grow-only memory for one operation. Growing waits for the operations that still use the old
  // one.
  std::byte* scratch(int64_t bytes);

 private:
  DeviceMemory scratch_;
  int64_t scratch_bytes_ = 0;
  std::vector<DeviceMemory> outgrown_;  // of graphs
};
inline CudaQueue& cuda_queue(Queue* queue) {
  return *reinterpret_cast<CudaQueue*>(queue);
}

// ---- the rows of kCudaOps; contracts in kernels/ops.h
Weight plan_weight(const WeightRequest& request, Queue* queue);
void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue* queue);
void finish_weight(const Weight& w, Queue* queue);
void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue* queue);
std::vector<KernelInfo> linear_kernels(const CudaQueue& queue);

std::byte* allocate_staging(int64_t bytes, std::string_view what, Queue* queue);
void release_staging(std::byte* memory, int64_t bytes, Queue* queue);
void upload_staged(void* device, const void* staging, int64_t bytes, Queue* queue);
void set_mark(int index, Queue* queue);
void wait_mark(int index, Queue* queue);
void begin_capture(Queue* queue);
CapturedGraph end_capture(Queue* queue);
void replay(Graph* graph, Queue* queue);
void release_graph(Graph* graph, Queue* queue);

void prepare(const BatchArrays& out, const StepInput& in, const Seats& seats, Queue* queue);
void sample(const SampleCall& call, Queue* queue);
void logprobs(const SampleCall& call, Queue* queue);
void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue);
void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue* queue);
void add_rows(View x, ConstView delta, const AddParams& params, Queue* queue);
void norm_heads(View qkv, const HeadNormParams& params, Queue* queue);
void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue* queue);
void quantize_rows(const Activation& out, Queue* queue);
void observe(ConstView x, float* range, Queue* queue);
void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue);
void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue);
void attention(const Activation& out, ConstView qkv, const AttentionParams& params,
               const Batch& batch, const KvLayer& kv, Queue* queue);
void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue);
std::string decode_why_not(const DecodePass& pass, Queue* queue);
void decode_layers(const DecodePass& pass, const Batch& batch, Queue* queue);
KernelInfo decode_kernel(const CudaQueue& queue);
// Rows that the blocks of decode_layers exchange: a counter, 0 between launches, and words, all
// ones between launches, for as many layers as fit, at least a dozen of the longest rows.
constexpr int64_t kExchangeBytes = int64_t{4} << 20, kEndedBytes = 128;
DeviceMemory make_decode_rows();
void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue* queue);
int64_t kv_page_bytes(const KvShape& shape);
int64_t scratch_bytes(const PassLimits& limits, Queue* queue);
int64_t attention_scratch_bytes(const PassLimits& limits);
double read_gb_s(Queue* queue);

}  // namespace mantissa::cuda
