// What benchmarks ask of the CUDA backend: runs inside graphs, cuBLASLt's time for the same
// product.
#include "kernels/cuda/bench.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/linear_call.h"
#include "kernels/cuda/queue.h"

namespace mantissa {
namespace cuda {
namespace {

struct GraphDestroy {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
struct GraphExecDestroy {
  void operator()(cudaGraphExec_t graph) const noexcept { cudaGraphExecDestroy(graph); }
};
struct EventDestroy {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};
using Graph = std::unique_ptr<CUgraph_st, GraphDestroy>;
using GraphExec = std::unique_ptr<CUgraphExec_st, GraphExecDestroy>;
using Event = std::unique_ptr<CUevent_st, EventDestroy>;

GraphExec capture(int count, const std::function<void(int)>& run, cudaStream_t stream) {
  cudaGraph_t captured = nullptr;
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
  for (int i = 0; i < count; ++i) run(i);
  cuda_check(cudaStreamEndCapture(stream, &captured), "capturing");
  const Graph graph(captured);
  cudaGraphExec_t exec = nullptr;
  cuda_check(cudaGraphInstantiate(&exec, captured, 0), "making a graph");
  return GraphExec(exec);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreate(&event), "creating an event");
  return Event(event);
}

RunTimes time_runs(int count, int repeats, const std::function<void(int)>& run, Queue* queue) {
  constexpr int kWarmup = 3;
  const cudaStream_t stream = cuda_queue(queue).stream.get();
  run(0);  // scratch memory grows here, not while capturing
  cuda_check(cudaStreamSynchronize(stream), "running on the GPU");
  const GraphExec graph = capture(count, run, stream);
  const Event begin = make_event(), end = make_event();
  std::vector<double> us;
  for (int i = 0; i < kWarmup + repeats; ++i) {
    cuda_check(cudaEventRecord(begin.get(), stream), "timing");
    cuda_check(cudaGraphLaunch(graph.get(), stream), "launching a graph");
    cuda_check(cudaEventRecord(end.get(), stream), "timing");
    cuda_check(cudaEventSynchronize(end.get()), "timing");
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, begin.get(), end.get()), "timing");
    if (i >= kWarmup) us.push_back(ms * 1000.0 / count);
  }
  return run_times(std::move(us));
}

bool is_f32_e4m3(const Spec& s) {
  return s.quantized() && *s.elem == kE4M3 && *s.scale == kF32;
}

// Operations of one multiprocessor in a cycle, from NVIDIA's architecture white papers.
struct UnitRates {
  int capability;
  double f16, fp8, int8;
};
constexpr UnitRates kUnitRates[] = {{80, 2048, 0, 4096}, {90, 4096, 8192, 8192}};

double math_gops(const Scheme& scheme, const Elem& run_dtype, Queue* queue) {
  const CudaQueue& q = cuda_queue(queue);
  int khz = 0, device = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  cuda_check(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, device), "asking for the clock");
  const Spec& a = scheme.activation;
  for (const UnitRates& rates : kUnitRates) {
    if (rates.capability != q.capability || run_dtype == kF32) continue;
    double rate = rates.f16;
    if (is_f32_e4m3(a) && is_f32_e4m3(scheme.weight) && rates.fp8 > 0) rate = rates.fp8;
    const bool int8 = a.quantized() && !a.elem->is_float() && scheme.weight.elem->bits() == 8;
    if (int8 && scheme.weight.block.cols == kAll) rate = rates.int8;
    return rate * multiprocessors() * khz * 1e-6;
  }
  return 0;
}

// ---- peers

struct PeerRow {
  const char* name;
  PeerKind kind;
  bool fast_accum;
};
std::vector<PeerRow> peers_of(const Scheme& scheme) {
  if (!scheme.weight.quantized()) return {{"cublaslt_bf16", PeerKind::kBf16, false}};
  if (!is_f32_e4m3(scheme.weight) || !is_f32_e4m3(scheme.activation)) return {};
  if (scheme.weight.block == per_tile(128))
    return {{"cublaslt_fp8_block", PeerKind::kFp8Block, false}};
  return {{"cublaslt_fp8_tensor_fast", PeerKind::kFp8Tensor, true},
          {"cublaslt_fp8_row_fast", PeerKind::kFp8Row, true},
          {"cublaslt_fp8_row", PeerKind::kFp8Row, false}};
}

constexpr int64_t kPatternBytes = 4 << 20;
// Random values of [-1, 1], repeated over the memory.
DeviceMemory random_values(int64_t count, const Elem& elem, uint64_t seed, cudaStream_t stream) {
  const int64_t bytes = count * elem.bits() / 8, each = elem.bits() / 8;
  std::vector<uint8_t> pattern(static_cast<size_t>(std::min(bytes, kPatternBytes)));
  for (size_t i = 0; i < pattern.size(); i += static_cast<size_t>(each)) {
    const double value = static_cast<double>(random_bits(seed, i) >> 11) * 0x1p-52 - 1;
    const uint32_t code = encode(elem, value);
    for (int64_t b = 0; b < each; ++b)
      pattern[i + static_cast<size_t>(b)] = static_cast<uint8_t>(code >> (8 * b));
  }
  DeviceMemory memory = allocate_device(bytes, "a peer's operand");
  for (int64_t at = 0; at < bytes; at += std::ssize(pattern)) {
    const auto n = static_cast<size_t>(std::min<int64_t>(std::ssize(pattern), bytes - at));
    cuda_check(cudaMemcpyAsync(memory.get() + at, pattern.data(), n, cudaMemcpyDefault, stream),
               "filling a peer's operand");
  }
  cuda_check(cudaStreamSynchronize(stream), "filling a peer's operand");
  return memory;
}

std::vector<PeerTime> time_peers(const Scheme& scheme, int64_t m, int64_t n, int64_t k,
                                 Queue* queue) {
  constexpr int64_t kRotatedBytes = int64_t{160} << 20;
  const std::vector<PeerRow> rows = peers_of(scheme);
  if (rows.empty()) return {};
  const cudaStream_t stream = cuda_queue(queue).stream.get();
  std::optional<CublasLt> lt;
  try {
    lt.emplace();
  } catch (const Error& e) {
    return {{"cublaslt", 0, e.found}};
  }
  const Elem& elem = scheme.weight.quantized() ? kE4M3 : kBF16;
  const int64_t weight_bytes = n * k * elem.bits() / 8;
  const int sets = static_cast<int>(std::clamp<int64_t>(kRotatedBytes / weight_bytes + 1, 1, 16));
  const DeviceMemory a = random_values(m * k, elem, 1, stream);
  const DeviceMemory out = random_values(m * n, kBF16, 2, stream);
  const DeviceMemory scales =
      random_values((m + n) * ((k + 127) / 128 + 1), kBF16, 3, stream);  // any bits would do
  std::vector<DeviceMemory> b;
  for (int i = 0; i < sets; ++i)
    b.push_back(random_values(n * k, elem, 10 + static_cast<uint64_t>(i), stream));
  const double us_least = 2.0 * static_cast<double>(m * n * k) / 1.5e9;
  const int count = static_cast<int>(std::clamp(2000 / std::max(us_least, 5.0), 2.0, 48.0));
  std::vector<PeerTime> times;
  for (const PeerRow& row : rows) {
    PeerArgs args{.kind = row.kind,
                  .fast_accum = row.fast_accum,
                  .m = m,
                  .n = n,
                  .k = k,
                  .a = a.get(),
                  .b = b[0].get(),
                  .a_scale = reinterpret_cast<const float*>(scales.get()),
                  .b_scale = reinterpret_cast<const float*>(scales.get()),
                  .out = out.get()};
    if (const std::string why = lt->why_not(args); !why.empty()) {
      times.push_back({row.name, 0, why});
      continue;
    }
    const RunTimes t = time_runs(
        count, 20,
        [&](int i) {
          args.b = b[static_cast<size_t>(i) % b.size()].get();
          lt->run(args, stream);
        },
        queue);
    times.push_back({row.name, t.p50_us, ""});
  }
  return times;
}

}  // namespace

}  // namespace cuda

const BenchOps kCudaBenchOps{.time_runs = cuda::time_runs,
                             .name_linear = cuda::name_linear,
                             .math_gops = cuda::math_gops,
                             .time_peers = cuda::time_peers};

}  // namespace mantissa
