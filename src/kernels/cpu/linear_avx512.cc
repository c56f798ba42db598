// `linear` with AVX-512: bf16 dot products (vdpbf16ps), int8 dot products (vpdpbusd), f32.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_avx512.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 6, kGemmStrips = 4;

// kRows rows of unsigned codes times kStrips strips of signed codes.
template <int kRows, int kStrips>
static void int8_block(const uint8_t* w, int64_t jump, const uint8_t* x, int64_t x_stride,
                       int64_t k_blocks, int32_t* sums) {
  I acc[kRows][kStrips];
  for (int r = 0; r < kRows; ++r)
    for (int s = 0; s < kStrips; ++s) acc[r][s] = _mm512_setzero_si512();
  for (int64_t b = 0; b < k_blocks; ++b, w += jump, x += 4) {
    I codes[kStrips];
    for (int s = 0; s < kStrips; ++s) codes[s] = _mm512_loadu_si512(w + s * kBlockBytes);
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, x + r * x_stride, 4);
      const I xs = _mm512_set1_epi32(four);
      for (int s = 0; s < kStrips; ++s) acc[r][s] = _mm512_dpbusd_epi32(acc[r][s], xs, codes[s]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int s = 0; s < kStrips; ++s) _mm512_storeu_si512(sums + r * kTile + s * kStrip, acc[r][s]);
}

template <int kStrips>
static void int8_rows(const uint8_t* w, int64_t jump, const uint8_t* x, int64_t x_stride,
                      int64_t rows, int64_t k_blocks, int32_t* sums) {
  for (; rows >= kGemmRows; rows -= kGemmRows) {
    int8_block<kGemmRows, kStrips>(w, jump, x, x_stride, k_blocks, sums);
    x += kGemmRows * x_stride;
    sums += kGemmRows * kTile;
  }
  for (; rows > 0; --rows) {
    int8_block<1, kStrips>(w, jump, x, x_stride, k_blocks, sums);
    x += x_stride;
    sums += kTile;
  }
}

static void int8_tile(const uint8_t* w, int64_t strips, const uint8_t* x, int64_t x_stride,
                      int64_t rows, int64_t k_blocks, int32_t* sums) {
  const int64_t jump = strips * kBlockBytes;
  if (strips == kTileStrips) {
    int8_rows<kTileStrips>(w, jump, x, x_stride, rows, k_blocks, sums);
    return;
  }
  for (int64_t s = 0; s < strips; ++s)
    int8_rows<1>(w + s * kBlockBytes, jump, x, x_stride, rows, k_blocks, sums + s * kStrip);
}

#include "kernels/cpu/linear_bf16.inc"

}  // namespace

const LinearIsa kLinearAvx512{run_f32, run_bf16, run_int8, 128};

}  // namespace mantissa::cpu
