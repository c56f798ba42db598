// The row "ref" of the table of backends.
#include "kernels/ref/ops.h"

#include <algorithm>

#include "kernels/host_memory.h"
#include "kernels/host_step.h"
#include "kernels/ref/ref.h"

namespace mantissa {
namespace ref {

RefQueue& queue_of(Queue* queue) {
  return *reinterpret_cast<RefQueue*>(queue);
}

void for_each(Queue* queue, int64_t count, const std::function<void(int64_t)>& work) {
  queue_of(queue).pool.parallel_for(count, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i);
  });
}

namespace {

Queue* open(const DeviceConfig& config) {
  if (config.isa != "auto")
    throw Error(text("--isa ", config.isa, " was asked of the device ref, which has none"),
                "leave --isa out, or use --device cpu");
  return reinterpret_cast<Queue*>(new RefQueue(config.threads));
}

void close(Queue* queue) {
  delete &queue_of(queue);
}

std::string describe(Queue* queue) {
  const int threads = queue_of(queue).pool.threads();
  return text("ref float64, ", threads, threads == 1 ? " thread" : " threads");
}

// The reference is not made to be fast: its memory is the host's, measured as the cpu row does.
double read_gb_s(Queue* queue) {
  const Ops& cpu = find_ops("cpu");
  Queue* other = cpu.open({.threads = queue_of(queue).pool.threads()});
  const double rate = cpu.read_gb_s(other);
  cpu.close(other);
  return rate;
}

// Operations keep nothing, but for sampling.
int64_t scratch_bytes(const PassLimits& limits, Queue*) {
  return sampler_scratch_bytes(limits.vocab);
}

std::vector<KernelInfo> kernels(Queue*) {
  std::vector<KernelInfo> rows;
  for (const char* operation :
       {"linear", "embed", "rms_norm", "add_rows", "norm_heads", "cap_logits", "quantize_rows",
        "observe", "rope_write", "attention", "gate", "gather_rows"})
    rows.push_back({text(operation, "_any__ref"), operation, "nothing", "runs"});
  return rows;
}

void sample(const SampleCall& call, Queue* queue) {
  sample_host(call, queue_of(queue).sampler);
}
void logprobs(const SampleCall& call, Queue* queue) {
  logprobs_host(call, queue_of(queue).sampler);
}

}  // namespace
}  // namespace ref

const Ops kRefOps{
    .name = "ref",
    .open = ref::open,
    .close = ref::close,
    .describe = ref::describe,
    .kernels = ref::kernels,
    .memory = host_memory_info,
    .scratch_bytes = ref::scratch_bytes,
    .allocate = allocate_host,
    .release = release_host,
    .upload = copy_host,
    .download = copy_host,
    .allocate_staging = allocate_host,
    .release_staging = release_host,
    .upload_staged = copy_host,
    .set_mark = set_mark_host,
    .wait_mark = wait_mark_host,
    .read_gb_s = ref::read_gb_s,
    .plan_weight = ref::plan_weight,
    .pack_rows = ref::pack_rows,
    .finish_weight = ref::finish_weight,
    .unpack_rows = ref::unpack_rows,
    .prepare = prepare_host,
    .sample = ref::sample,
    .logprobs = ref::logprobs,
    .embed = ref::embed,
    .rms_norm = ref::rms_norm,
    .add_rows = ref::add_rows,
    .norm_heads = ref::norm_heads,
    .cap_logits = ref::cap_logits,
    .quantize_rows = ref::quantize_rows,
    .observe = ref::observe,
    .linear = ref::linear,
    .rope_write = ref::rope_write,
    .attention = ref::attention,
    .gate = ref::gate,
    .gather_rows = ref::gather_rows,
    .kv_page_bytes = ref::kv_page_bytes,
};

}  // namespace mantissa
