// The row "cpu" of the table of backends.
#include "kernels/cpu/ops.h"

#include <chrono>
#include <tuple>

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

// Rows on all threads, each with scratch memory of its own.
void each_sampled_row(const SampleCall& call, Queue* queue_handle,
                      void (*run)(const SampleCall&, int64_t row, SamplerScratch&)) {
  CpuQueue& queue = cpu_queue(queue_handle);
  queue.pool.parallel_for(call.logits.rows, 1, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) run(call, r, queue.samplers[static_cast<size_t>(worker)]);
  });
}
void sample(const SampleCall& call, Queue* queue) {
  each_sampled_row(call, queue, sample_host_row);
}
void logprobs(const SampleCall& call, Queue* queue) {
  each_sampled_row(call, queue, logprobs_host_row);
}

// ---- operations, timed where the queue was asked to

class Stopwatch {
 public:
  Stopwatch(const char* operation, Queue* queue, int64_t n = 0, int64_t k = 0)
      : queue_(cpu_queue(queue)), operation_(operation), n_(n), k_(k) {
    if (queue_.config.time_operations) start_ = std::chrono::steady_clock::now();
  }
  ~Stopwatch() {
    if (!queue_.config.time_operations) return;
    const auto spent = std::chrono::steady_clock::now() - start_;
    queue_.times.add(operation_, n_, k_, std::chrono::duration<double>(spent).count());
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  CpuQueue& queue_;
  const char* operation_;
  int64_t n_, k_;
  std::chrono::steady_clock::time_point start_;
};

// kName needs a static address: names stand in one array.
constexpr const char* kNames[] = {"prepare",       "sample",     "logprobs",   "embed",
                                  "rms_norm",      "add_rows",   "norm_heads", "cap_logits",
                                  "quantize_rows", "rope_write", "attention",  "gate",
                                  "gather_rows"};
constexpr size_t index_of(std::string_view name) {
  size_t i = 0;
  while (kNames[i] != name) ++i;
  return i;
}

template <auto kFunction, size_t kName>
struct Timed;
template <class... Args, void (*kFunction)(Args...), size_t kName>
struct Timed<kFunction, kName> {
  static void run(Args... args) {
    Queue* queue = std::get<sizeof...(Args) - 1>(std::tuple<Args&...>(args...));
    const Stopwatch watch(kNames[kName], queue);
    kFunction(args...);
  }
};
void timed_linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue) {
  const Stopwatch watch("linear", queue, w.request.rows, w.request.cols);
  linear(out, x, w, e, queue);
}
std::vector<OperationTime> operation_times(Queue* queue) {
  return cpu_queue(queue).times.rows();
}

void wake(Queue* queue) {
  cpu_queue(queue).pool.wake();
}

int64_t scratch_bytes(const PassLimits& limits, Queue* queue) {
  int64_t bytes = cpu_queue(queue).pool.threads() * sampler_scratch_bytes(limits.vocab);
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
    .wake = cpu::wake,
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
    .operation_times = cpu::operation_times,
    .plan_weight = cpu::plan_weight,
    .pack_rows = cpu::pack_rows,
    .finish_weight = cpu::finish_weight,
    .unpack_rows = cpu::unpack_rows,
    .prepare = cpu::Timed<prepare_host, cpu::index_of("prepare")>::run,
    .sample = cpu::Timed<cpu::sample, cpu::index_of("sample")>::run,
    .logprobs = cpu::Timed<cpu::logprobs, cpu::index_of("logprobs")>::run,
    .embed = cpu::Timed<cpu::embed, cpu::index_of("embed")>::run,
    .rms_norm = cpu::Timed<cpu::rms_norm, cpu::index_of("rms_norm")>::run,
    .add_rows = cpu::Timed<cpu::add_rows, cpu::index_of("add_rows")>::run,
    .norm_heads = cpu::Timed<cpu::norm_heads, cpu::index_of("norm_heads")>::run,
    .cap_logits = cpu::Timed<cpu::cap_logits, cpu::index_of("cap_logits")>::run,
    .quantize_rows = cpu::Timed<cpu::quantize_rows, cpu::index_of("quantize_rows")>::run,
    .observe = cpu::observe,
    .linear = cpu::timed_linear,
    .rope_write = cpu::Timed<cpu::rope_write, cpu::index_of("rope_write")>::run,
    .attention = cpu::Timed<cpu::attention, cpu::index_of("attention")>::run,
    .gate = cpu::Timed<cpu::gate, cpu::index_of("gate")>::run,
    .gather_rows = cpu::Timed<cpu::gather_rows, cpu::index_of("gather_rows")>::run,
    .kv_page_bytes = cpu::kv_page_bytes,
};

}  // namespace mantissa
