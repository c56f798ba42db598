// What benchmarks of single operations ask of a backend: time of repeated runs, names of what ran,
// limits of arithmetic, other libraries' times.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace mantissa {

// Microseconds of one run, over repetitions.
struct RunTimes {
  double p10_us = 0, p50_us = 0, p90_us = 0;
};
// Of times in any order; at least one.
RunTimes run_times(std::vector<double> us);

// Another library's time for the same product, or why it has none.
struct PeerTime {
  std::string name;
  double us = 0;
  std::string why_not;
};

struct BenchOps {
  // run(0), run(1), ... run(count - 1), back to back, `repeats` times after warm-up; cuda: inside
  // one graph.
  RunTimes (*time_runs)(int count, int repeats, const std::function<void(int)>& run, Queue*);
  // linear() once, without an epilogue: the kernel that ran, with its tile where it has several.
  std::string (*name_linear)(View out, const Activation& x, const Weight& w, Queue*);
  // 1e9 operations/s (a multiplication and an addition are two) of the unit that multiplies this
  // scheme's operands; 0: not known here.
  double (*math_gops)(const Scheme&, const Elem& run_dtype, Queue*);
  // [M, K] x [N, K]^T in other libraries, in the scheme's formats, with scales where they can;
  // timed like time_runs(). Empty where this backend knows none.
  std::vector<PeerTime> (*time_peers)(const Scheme&, int64_t m, int64_t n, int64_t k, Queue*);
};
// nullptr: a backend that is not timed.
const BenchOps* find_bench_ops(const Ops& ops);

}  // namespace mantissa
