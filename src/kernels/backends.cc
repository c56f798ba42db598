// The rows of all_ops().
#include "base/error.h"
#include "kernels/bench_ops.h"
#include "kernels/cpu/bench.h"
#include "kernels/cpu/ops.h"
#ifdef MANTISSA_CUDA
#include "kernels/cuda/bench.h"
#include "kernels/cuda/ops.h"
#endif
#include "kernels/ops.h"
#include "kernels/ref/ops.h"

namespace mantissa {
namespace {

constexpr const Ops* kBackends[] = {
    &kCpuOps,
    &kRefOps,
#ifdef MANTISSA_CUDA
    &kCudaOps,
#endif
};

}  // namespace

const BenchOps* find_bench_ops(const Ops& ops) {
  if (&ops == &kCpuOps) return &kCpuBenchOps;
#ifdef MANTISSA_CUDA
  if (&ops == &kCudaOps) return &kCudaBenchOps;
#endif
  return nullptr;
}

std::span<const Ops* const> all_ops() {
  return kBackends;
}

const Ops& find_ops(std::string_view name) {
  std::string known;
  for (const Ops* ops : kBackends) {
    if (ops->name == name) return *ops;
    known += text(known.empty() ? "" : ", ", ops->name);
  }
  throw Error(text("unknown device '", name, "'"), text("use one of ", known));
}

}  // namespace mantissa
