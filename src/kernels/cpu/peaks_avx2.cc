// Peak loops: avx2.
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/peaks_body.inc"

}  // namespace

const IsaPeakLoops kPeaksAvx2{
    read_loop<1>, read_loop<2>, {f32_loop<6>, 2 * 16 * 6}, {nullptr, 0}, {nullptr, 0}};

}  // namespace mantissa::cpu
