// The CPU backend's table of linear kernels, and what a planned weight knows.
#pragma once

#include <span>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/linear_abi.h"
#include "kernels/weight.h"

namespace mantissa::cpu {

// What the kernel reads as x.
enum class Input : uint8_t {
  kRunDtype,  // in the arithmetic's format, exactly
  kFloat,     // float codes of up to 8 bits, decoded to the arithmetic's format, exactly
  kInt8,      // int8 codes, summed in int32
};
enum class Arithmetic : uint8_t { kF32, kBf16, kInt8 };

struct CpuLinear {
  LinearKernel base;  // first: Weight::kernel points here
  Isa isa;
  Codes codes;
  Input input;
  Arithmetic arithmetic;
};
std::span<const CpuLinear> linear_table();

struct Planned {
  const CpuLinear& kernel;
  PackedLayout layout;
};
Planned plan_of(const Weight& w);

// Whether x's codes and group scales are exact in bf16 together, whatever they are (NVFP4: two bits
// of mantissa times an e4m3 scale), so that x is given to the kernel with them multiplied.
bool has_folded_scales(const Spec& activation);

}  // namespace mantissa::cpu
