// `linear` for any processor. Multiplications and additions are rounded apart.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 2, kGemmStrips = 1;

#include "kernels/cpu/linear_body.inc"
#include "kernels/cpu/linear_codes.inc"

}  // namespace

const LinearIsa kLinearPortable{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
