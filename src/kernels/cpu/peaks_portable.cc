// Peak loops: portable.
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/peaks_body.inc"

}  // namespace

const IsaPeakLoops kPeaksPortable{
    read_loop<1>, read_loop<2>, {f32_loop<2>, 2 * 16 * 2}, {nullptr, 0}, {nullptr, 0}};

}  // namespace mantissa::cpu
