// What benchmarks ask of the CPU backend.
#include "kernels/cpu/bench.h"

#include <chrono>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/peaks.h"

namespace mantissa {
namespace cpu {
namespace {

RunTimes time_runs(int count, int repeats, const std::function<void(int)>& run, Queue*) {
  using Clock = std::chrono::steady_clock;
  run(0);
  std::vector<double> us;
  for (int r = 0; r < repeats; ++r) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < count; ++i) run(i);
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / count);
  }
  return run_times(std::move(us));
}

std::string name_linear(View out, const Activation& x, const Weight& w, Queue* queue) {
  kCpuOps.linear(out, x, w, {}, queue);
  return std::string(w.kernel->name);
}

double math_gops(const Scheme& scheme, const Elem& run_dtype, Queue* queue) {
  const Peaks peaks = machine_peaks(queue);
  const bool codes = scheme.activation.quantized();
  if (codes && !scheme.activation.elem->is_float() && peaks.int8_gops > 0) return peaks.int8_gops;
  const bool bf16 = codes || run_dtype == kBF16;  // f32 and f16 activations run FMAs
  return bf16 && peaks.bf16_gflops > 0 ? peaks.bf16_gflops : peaks.f32_gflops;
}

std::vector<PeerTime> time_peers(const Scheme&, int64_t, int64_t, int64_t, Queue*) {
  return {};
}

}  // namespace

}  // namespace cpu

const BenchOps kCpuBenchOps{.time_runs = cpu::time_runs,
                            .name_linear = cpu::name_linear,
                            .math_gops = cpu::math_gops,
                            .time_peers = cpu::time_peers};

}  // namespace mantissa
