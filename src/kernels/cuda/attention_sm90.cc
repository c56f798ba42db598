#include "kernels/cuda/attention_sm90.h"

#include "kernels/cuda/cuda_error.h"

namespace mantissa::cuda {
namespace {

constexpr int64_t kAlign = 256;
int decode_blocks() {
  return kDecodeShareMax * multiprocessors();
}
int64_t counter_bytes() {
  return (int64_t{2 + decode_blocks()} * 4 + kAlign - 1) / kAlign * kAlign;
}
int64_t slot_rows() {
  return int64_t{2} * decode_blocks() * kDecodeRows;
}

}  // namespace

std::vector<KernelInfo> attention_kernels(const CudaQueue& queue) {
  const std::string hopper = queue.capability / 10 != 9 ? "needs a GPU of sm_90"
                             : queue.portable_only      ? "not with --isa portable"
                                                        : "runs";
  const std::string op = "attention",
                    dims = "head sizes 64, 128 (not e5m2, int8: 96, 256), pages of 16";
  return {
      {"attention_decode__sm90", op, text("sm_90a; up to 16 rows a KV head; ", dims), hopper},
      {"attention_prefill__sm90", op, text("sm_90a; ", dims), hopper},
      {"attention__sm80", op, "sm_80; head sizes 64, 128; cache of the run dtype or e4m3", "runs"},
      {"attention_any__sm80", op, "sm_80; head sizes up to 256", "runs"}};
}

DeviceMemory make_attention_state() {
  DeviceMemory memory = allocate_device(counter_bytes() + slot_rows() * (2 + kStateDimMax) * 4,
                                        "partial results of attention");
  cuda_check(cudaMemset(memory.get(), 0, static_cast<size_t>(counter_bytes())),
             "clearing attention's counters");
  cuda_check(cudaStreamSynchronize(nullptr), "clearing attention's counters");
  return memory;
}

AttentionState attention_state(const CudaQueue& queue) {
  std::byte* at = queue.attention_state.get();
  AttentionState state{};
  state.prefill_tiles = reinterpret_cast<int*>(at);
  state.arrivals = state.prefill_tiles + 2;
  state.tops = reinterpret_cast<float*>(at + counter_bytes());
  state.sums = state.tops + slot_rows() * 2;
  return state;
}

}  // namespace mantissa::cuda
