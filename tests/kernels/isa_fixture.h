// The CPU backend on each instruction set that this machine runs, as test parameters.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/ops.h"
#include "op_fixture.h"

namespace mantissa {

inline std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const cpu::IsaRow& row : cpu::isa_rows())
    if (cpu::missing(row.isa).empty()) names.emplace_back(row.name);
  return names;
}

inline DeviceConfig isa_config(const std::string& isa, int threads) {
  return {.threads = threads, .isa = isa, .scratch_tokens = 512};
}

class OnIsa : public testing::TestWithParam<std::string> {
 protected:
  Device cpu{kCpuOps, isa_config(GetParam(), 2)};
  Device ref{kRefOps};
};

#define MANTISSA_ON_EACH_ISA(fixture)               \
  INSTANTIATE_TEST_SUITE_P(                         \
      Isa, fixture, testing::ValuesIn(isa_names()), \
      [](const testing::TestParamInfo<std::string>& info) { return info.param; })

inline constexpr const Elem* kRunDtypes[] = {&kBF16, &kF16, &kF32};

// A copy in float32, exact: the reference then rounds to float32 only.
inline Tensor widened(const Tensor& x) {
  Tensor out(kF32, x.rows(), x.cols());
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < x.cols(); ++c) out.set(r, c, x.at(r, c));
  return out;
}

inline std::vector<double> values_of(const Tensor& x) {
  std::vector<double> out;
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < x.cols(); ++c) out.push_back(x.at(r, c));
  return out;
}

}  // namespace mantissa
