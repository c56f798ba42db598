// Peak loops: avx512.
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/simd_avx512.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/peaks_body.inc"

constexpr int kDotSums = 16;

static float bf16_loop(int64_t rounds) {
  F sums[kDotSums];
  for (int i = 0; i < kDotSums; ++i) sums[i] = zero();
  I x = set1i(0x3f803f80);     // pairs of 1
  asm volatile("" : "+v"(x));  // unknown to the optimizer
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kDotSums; ++i)
      sums[i] =
          _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(x));
  F total = sums[0];
  for (int i = 1; i < kDotSums; ++i) total = add(total, sums[i]);
  return reduce_add(total);
}

static float int8_loop(int64_t rounds) {
  I sums[kDotSums];
  for (int i = 0; i < kDotSums; ++i) sums[i] = set1i(0);
  I x = set1i(0x01010101);
  asm volatile("" : "+v"(x));
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kDotSums; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], x, x);
  I total = sums[0];
  for (int i = 1; i < kDotSums; ++i) total = addi(total, sums[i]);
  return reduce_add(to_float(total));
}

}  // namespace

const IsaPeakLoops kPeaksAvx512{read_loop<1>,
                                read_loop<2>,
                                {f32_loop<12>, 2 * 16 * 12},
                                {bf16_loop, 2 * 32 * kDotSums},
                                {int8_loop, 2 * 64 * kDotSums}};

}  // namespace mantissa::cpu
