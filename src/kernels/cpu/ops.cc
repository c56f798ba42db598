// The row "cpu" of the table of backends.
#include "kernels/cpu/ops.h"

#include "device/cpu_features.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/peaks.h"
#include "kernels/cpu/queue.h"
#include "kernels/host_memory.h"
#include "kernels/host_step.h"

namespace mantissa {
namespace cpu {
namespace {

Queue* open(const DeviceConfig& config) {
  return reinterpret_cast<Queue*>(new CpuQueue(config));
}

void close(Queue* queue) {
  delete &cpu_queue(queue);
}

std::string describe(Queue* queue) {
  const CpuQueue& q = cpu_queue(queue);
  const std::string model = read_cpu_features().model;
  return text("cpu ", name(q.isa), model.empty() ? "" : " (" + model + ")", ", ", q.pool.threads(),
              q.pool.threads() == 1 ? " thread" : " threads");
}

std::vector<KernelInfo> kernels(Queue* queue) {
  std::vector<KernelInfo> rows;
  for (auto* part : {linear_kernels, rows_kernels, attention_kernels})
    for (KernelInfo& row : part(queue)) rows.push_back(std::move(row));
  return rows;
}

void sample(const SampleCall& call, Queue* queue) {
  sample_host(call, cpu_queue(queue).sampler);
}
void logprobs(const SampleCall& call, Queue* queue) {
  logprobs_host(call, cpu_queue(queue).sampler);
}

int64_t scratch_bytes(const PassLimits& limits, Queue* queue) {
  int64_t bytes = 0;
  for (auto* part : {linear_scratch_bytes, rows_scratch_bytes, attention_scratch_bytes})
    bytes += part(limits, queue);
  return bytes;
}

}  // namespace
}  // namespace cpu

const Ops kCpuOps{
    .name = "cpu",
    .open = cpu::open,
    .close = cpu::close,
    .describe = cpu::describe,
    .kernels = cpu::kernels,
    .memory = host_memory_info,
    .scratch_bytes = cpu::scratch_bytes,
    .allocate = allocate_host,
    .release = release_host,
    .upload = copy_host,
    .download = copy_host,
    .allocate_staging = allocate_host,
    .release_staging = release_host,
    .upload_staged = copy_host,
    .set_mark = set_mark_host,
    .wait_mark = wait_mark_host,
    .read_gb_s = cpu::machine_read_gb_s,
    .plan_weight = cpu::plan_weight,
    .pack_rows = cpu::pack_rows,
    .finish_weight = cpu::finish_weight,
    .unpack_rows = cpu::unpack_rows,
    .prepare = prepare_host,
    .sample = cpu::sample,
    .logprobs = cpu::logprobs,
    .embed = cpu::embed,
    .rms_norm = cpu::rms_norm,
    .add_rows = cpu::add_rows,
    .norm_heads = cpu::norm_heads,
    .cap_logits = cpu::cap_logits,
    .quantize_rows = cpu::quantize_rows,
    .observe = cpu::observe,
    .linear = cpu::linear,
    .rope_write = cpu::rope_write,
    .attention = cpu::attention,
    .gate = cpu::gate,
    .gather_rows = cpu::gather_rows,
    .kv_page_bytes = cpu::kv_page_bytes,
};

}  // namespace mantissa
