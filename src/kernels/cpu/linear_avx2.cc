// `linear` with AVX2, FMA and F16C.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 6, kGemmStrips = 1;

#include "kernels/cpu/linear_body.inc"
#include "kernels/cpu/linear_codes.inc"

}  // namespace

const LinearIsa kLinearAvx2{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
