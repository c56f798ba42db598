// `linear` with AVX-512: bf16 dot products (vdpbf16ps) and f32. Integers: linear_int_avx512.cc.
#include "kernels/cpu/linear_avx512.h"

#include <type_traits>

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/linear_bf16.inc"
#include "kernels/cpu/linear_x_codes.inc"

}  // namespace

const LinearIsa kLinearAvx512{run_f32, run_bf16, decode_row_f32, decode_row_bf16};

}  // namespace mantissa::cpu
