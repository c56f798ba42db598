// `linear` with AVX2, FMA and F16C.
#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

constexpr int kGemmRows = 6, kGemmStrips = 1;

// One row, one strip: four codes of a channel make two sums of two, joined at the end.
static void int8_strip(const uint8_t* w, int64_t jump, const uint8_t* x, int64_t k_blocks,
                       int32_t* sums) {
  __m256i acc[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
  for (int64_t b = 0; b < k_blocks; ++b, w += jump, x += 4) {
    int32_t codes;
    __builtin_memcpy(&codes, x, 4);
    const __m256i xs = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(codes)));
    for (int q = 0; q < 4; ++q) {
      const __m128i wb = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * q));
      acc[q] = _mm256_add_epi32(acc[q], _mm256_madd_epi16(_mm256_cvtepi8_epi16(wb), xs));
    }
  }
  for (int q = 0; q < 4; ++q) {
    int32_t halves[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves), acc[q]);
    for (int n = 0; n < 4; ++n) sums[4 * q + n] += halves[2 * n] + halves[2 * n + 1];
  }
}

static void int8_tile(const uint8_t* w, int64_t strips, const uint8_t* x, int64_t x_stride,
                      int64_t rows, int64_t k_blocks, int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < strips; ++s)
      int8_strip(w + s * kBlockBytes, strips * kBlockBytes, x + r * x_stride, k_blocks,
                 sums + r * kTile + s * kStrip);
}

#include "kernels/cpu/linear_body.inc"

}  // namespace

const LinearIsa kLinearAvx2{run_f32, nullptr, run_int8, 0};

}  // namespace mantissa::cpu
