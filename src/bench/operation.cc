#include "bench/operation.h"

#include <algorithm>
#include <cmath>

#include "base/convert.h"
#include "base/error.h"
#include "base/random.h"
#include "base/units.h"

namespace mantissa {

void require_memory(const Ops& ops, Queue* queue, double bytes, const std::string& what) {
  const auto free = static_cast<double>(ops.memory(queue).free);
  if (bytes <= free) return;
  const auto gigabytes = [](double value) { return fixed(value / 1e9, 1) + " GB"; };  // any size
  throw Error(text(what, " needs ", gigabytes(bytes), ", but ", ops.name, " has ", gigabytes(free)),
              "use smaller sizes");
}

std::vector<float> random_rows(int64_t rows, int64_t cols, const Elem& run_dtype, double spread,
                               uint64_t seed) {
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t bits = random_bits(seed, i);
    double sum = -2;  // of four uniform numbers, variance 1 / 3
    for (int part = 0; part < 4; ++part)
      sum += static_cast<double>(bits >> (16 * part) & 0xffff) / 65536;
    out[i] = round_to(run_dtype, static_cast<float>(sum * std::sqrt(3.0) * spread));
  }
  return out;
}

RunTimes timed_runs(const BenchOps& bench, const std::function<void(int)>& run, Queue* queue,
                    int64_t sets) {
  const double one = bench.time_runs(1, 1, run, queue).p50_us;
  const int count =
      static_cast<int>(std::max(static_cast<double>(sets), std::clamp(2000 / one, 1.0, 48.0)));
  const int repeats = static_cast<int>(std::clamp(50000 / (one * count), 3.0, 20.0));
  return bench.time_runs(count, repeats, run, queue);
}

}  // namespace mantissa
