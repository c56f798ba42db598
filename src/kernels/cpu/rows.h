// What the CPU backend's own files share about rows: the instruction set's kernels, and the
// quantized forms of a result.
#pragma once

#include <span>
#include <vector>

#include "kernels/activation.h"
#include "kernels/cpu/queue.h"

namespace mantissa::cpu {

// Fills the quantized forms of `out` from run-dtype values [M, K].
void quantize_forms(const Activation& out, ConstView values, CpuQueue& queue);

// One row for each operation and instruction set; `takes` is the middle of the name ("_any").
std::vector<KernelInfo> isa_kernels(std::span<const char* const> operations, const char* takes,
                                    const CpuQueue& queue);

}  // namespace mantissa::cpu
