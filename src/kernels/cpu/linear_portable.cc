// `linear` for any processor. Multiplications and additions are rounded apart.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 2, kGemmStrips = 1;

static void int8_tile(const uint8_t* w, int64_t strips, const uint8_t* x, int64_t x_stride,
                      int64_t rows, int64_t k_blocks, int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    const int8_t* xr = reinterpret_cast<const int8_t*>(x) + r * x_stride;
    for (int64_t s = 0; s < strips; ++s) {
      int32_t acc[kStrip] = {};
      for (int64_t b = 0; b < k_blocks; ++b) {
        const int8_t* wb = reinterpret_cast<const int8_t*>(w) + (b * strips + s) * kBlockBytes;
        for (int n = 0; n < kStrip; ++n)
          for (int i = 0; i < 4; ++i) acc[n] += wb[4 * n + i] * xr[4 * b + i];
      }
      for (int n = 0; n < kStrip; ++n) sums[r * kTile + s * kStrip + n] += acc[n];
    }
  }
}

#include "kernels/cpu/linear_body.inc"

}  // namespace

const LinearIsa kLinearPortable{run_f32, nullptr, run_int8, 0};

}  // namespace mantissa::cpu
