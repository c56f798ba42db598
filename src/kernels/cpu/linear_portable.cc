// `linear` for any processor. Multiplications and additions are rounded apart.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 2, kGemmStrips = 1;

#include "kernels/cpu/linear_body.inc"
#include "kernels/cpu/linear_codes.inc"

static void decode_packed(const LinearArgs& a, const TileShape& t, int64_t begin, int64_t end,
                          float* panel) {
  decode_by_table(a, t, begin, end, panel);
}
static bool row_packed(const LinearArgs&, const TileShape&, int64_t, float*) {
  return false;
}

}  // namespace

const LinearIsa kLinearPortable{run_f32, nullptr, decode_row_f32, nullptr};

}  // namespace mantissa::cpu
