// `linear` of int8 activations with AVX2.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/linear_int.inc"
#include "kernels/cpu/linear_int_loops.inc"

}  // namespace

const IntIsa kIntAvx2{run_int, stage_int};

}  // namespace mantissa::cpu
