// `linear` of int8 activations for any processor.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/linear_int.inc"
#include "kernels/cpu/linear_int_loops.inc"

}  // namespace

const IntIsa kIntPortable{run_int, stage_int};

}  // namespace mantissa::cpu
