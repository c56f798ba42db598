#include "kernels/bench_ops.h"

#include <algorithm>

#include "base/error.h"

namespace mantissa {

RunTimes run_times(std::vector<double> us) {
  check(!us.empty(), "run_times: at least one time");
  std::ranges::sort(us);
  const size_t n = us.size();
  return {us[n / 10], us[n / 2], us[std::min(n - 1, n * 9 / 10)]};
}

}  // namespace mantissa
