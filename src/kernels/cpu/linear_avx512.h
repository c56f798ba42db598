// What the AVX-512 kernels of `linear` share: dot products, unrolled loops, blocks of rows,
// fetching ahead. For per-ISA sources only.
#pragma once

#include "kernels/cpu/linear_abi.h"
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/simd_avx512.h"

namespace mantissa::cpu {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kGemmRows = 2,
              kDirectRows = 1;  // g++ takes minutes for the larger tiles, instrumented
#else
// The register tile: 24 sums, 4 operands of weights, one of x.
constexpr int kGemmRows = 6;
// Up to so many rows weights are decoded in registers (linear_bf16.inc).
constexpr int kDirectRows = 4;
#endif
constexpr int kGemmStrips = 4;

typedef uint32_t __attribute__((may_alias, aligned(1))) Pair;

// Inline assembly keeps the sums in registers: g++ 12 copies each to the stack around the
// intrinsics' builtins.
MANTISSA_SIMD void dot_bf16(F& sum, I w, I x) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
}
// x: a pair of bf16 in memory.
MANTISSA_SIMD void dot_bf16_at(F& sum, I w, const uint16_t* x) {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*reinterpret_cast<const Pair*>(x)));
}
MANTISSA_SIMD void dot_int8(I& sum, I unsigned_w, I x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_w), "v"(x));
}
// x: a dword in memory.
MANTISSA_SIMD void dot_int8_at(I& sum, I unsigned_w, const int8_t* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum)
      : "v"(unsigned_w), "m"(*reinterpret_cast<const Pair*>(x)));
}
// Instructions stay where they stand in the program: the compiler would load again for each use,
// decode just before the product, and fetch everything at once.
MANTISSA_SIMD void pin(I& v) {
  asm volatile("" : "+v"(v));
}
MANTISSA_SIMD void fetch_here(const uint8_t* p) {
  asm volatile("prefetcht0 %0" ::"m"(*p));
}
// A dword of x in every lane.
MANTISSA_SIMD I broadcast(const void* x) {
  int32_t dword;
  __builtin_memcpy(&dword, x, 4);
  return _mm512_set1_epi32(dword);
}

// LoadedBlock (linear_common.inc) whose lines are loaded once, into a register for each part:
// hardware prefetchers lose the sequence where a line is read several times.
struct HeldBlock {
  Lines lines;
  I held[3];
  template <int kPart, int kLine, bool kFirst>
  MANTISSA_INLINE I line() {
    if constexpr (kFirst) {
      held[kPart] = _mm512_loadu_si512(lines[kLine]);
      pin(held[kPart]);
    }
    return held[kPart];
  }
};

template <class Block>
static void for_row_blocks(int64_t rows, const Block& block) {
  for_row_blocks<kGemmRows>(rows, block);
}

}  // namespace
}  // namespace mantissa::cpu
