// Peak loops: avx2.
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/simd_avx2.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/peaks_body.inc"

// sum += x * x, pairs of int16.
MANTISSA_SIMD void add_squares(__m256i& sum, __m256i x) {
  __m256i product;
  asm volatile("vpmaddwd %1, %1, %0" : "=x"(product) : "x"(x));
  asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(product));
}

// Bytes as int16: exact for all codes (vpmaddubsw is twice as fast and saturates).
static float int8_loop(int64_t rounds) {
  constexpr int kSums = 8;
  __m256i sums[kSums];
  unrolled<kSums>([&](auto i) MANTISSA_INLINE { sums[i()] = _mm256_setzero_si256(); });
  const __m256i x = _mm256_set1_epi16(1);
  for (int64_t r = 0; r < rounds; ++r) {
    unrolled<kSums>([&](auto i) MANTISSA_INLINE { add_squares(sums[i()], x); });
  }
  __m256i total = sums[0];
  unrolled<kSums - 1>([&](auto i)
                          MANTISSA_INLINE { total = _mm256_add_epi32(total, sums[i() + 1]); });
  return reduce_add(to_float(I{total, total}));
}

}  // namespace

const IsaPeakLoops kPeaksAvx2{
    read_loop<1>, read_loop<2>, {f32_loop<6>, 2 * 16 * 6}, {nullptr, 0}, {int8_loop, 2 * 16 * 8}};

}  // namespace mantissa::cpu
