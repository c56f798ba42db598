#include "kernels/cpu/peaks.h"

#include "device/cpu_features.h"
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/queue.h"

namespace mantissa::cpu {
namespace {

const IsaPeakLoops& loops_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kPeaksAvx512;
  if (isa == Isa::kAvx2) return kPeaksAvx2;
#endif
  check(isa == Isa::kPortable, "cpu: an instruction set of this architecture");
  return kPeaksPortable;
}

PeakLoop loop_of(const IsaPeakLoop& loop) {
  return {loop.run, loop.ops_per_round};
}

PeakLoops peak_loops(Isa isa) {
  const IsaPeakLoops& loops = loops_of(isa);
  return {loops.read, loops.read_two, loop_of(loops.f32), loop_of(loops.bf16), loop_of(loops.int8)};
}

}  // namespace

std::string machine_name(Queue* queue) {
  const CpuQueue& q = cpu_queue(queue);
  return text(read_cpu_features().model, ", ", q.pool.threads(), " threads, ", name(q.isa));
}

Peaks machine_peaks(Queue* queue) {
  if (auto cached = load_peaks(machine_name(queue))) return *cached;
  Peaks peaks = measure_machine_peaks(queue);
  save_peaks(peaks);
  return peaks;
}

Peaks measure_machine_peaks(Queue* queue) {
  const CpuQueue& q = cpu_queue(queue);
  return measure_peaks(peak_loops(q.isa), q.pool.threads(), machine_name(queue));
}

double machine_read_gb_s(Queue* queue) {
  const CpuQueue& q = cpu_queue(queue);
  return measure_read_gb_s(peak_loops(q.isa), q.pool.threads());
}

}  // namespace mantissa::cpu
