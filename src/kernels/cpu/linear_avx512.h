// What the AVX-512 kernels of `linear` share: dot products, unrolled loops, blocks of rows,
// fetching ahead. For per-ISA sources only.
#pragma once

#include "kernels/cpu/linear_abi.h"
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
// A dword of x in every lane.
MANTISSA_SIMD I broadcast(const void* x) {
  int32_t dword;
  __builtin_memcpy(&dword, x, 4);
  return _mm512_set1_epi32(dword);
}

// Loops that are gone before the optimizer looks for arrays to keep in registers:
// unrolled<N>([&](auto i) {...}) with i() a constant.
template <int kValue>
struct Index {
  constexpr int operator()() const { return kValue; }
};
template <class Body, int... kValues>
MANTISSA_SIMD void unrolled_over(const Body& body, Index<kValues>... values) {
  (body(values), ...);
}
template <int kCount, int... kDone, class Body>
MANTISSA_SIMD void unrolled(const Body& body, Index<kDone>... done) {
  if constexpr (sizeof...(kDone) == kCount) {
    unrolled_over(body, done...);
  } else {
    unrolled<kCount>(body, done..., Index<static_cast<int>(sizeof...(kDone))>{});
  }
}
#define MANTISSA_INLINE __attribute__((always_inline))
template <int kRows, int kColumns, class Body>
MANTISSA_SIMD void each(const Body& body) {
  unrolled<kRows>([&](auto r) MANTISSA_INLINE {
    unrolled<kColumns>([&](auto c) MANTISSA_INLINE { body(r, c); });
  });
}

// Calls call(Index<count>), 1 <= count <= kMost.
template <int kMost, class Call>
static void with_count(int64_t count, const Call& call) {
  if (count == kMost) {
    call(Index<kMost>{});
  } else if constexpr (kMost > 1) {
    with_count<kMost - 1>(count, call);
  }
}

// Calls block.run<kRows>(first) for blocks of rows of nearly equal size, at most kMost each.
template <int kMost = kGemmRows, class Block>
static void for_row_blocks(int64_t rows, const Block& block) {
  int64_t blocks = (rows + kMost - 1) / kMost;
  for (int64_t r = 0; blocks > 0; --blocks) {
    const int64_t count = (rows - r + blocks - 1) / blocks;
    with_count<kMost>(count, [&](auto rows_now) { block.template run<rows_now()>(r); });
    r += count;
  }
}

// Packed bytes that will be read next, fetched into L2 while this panel is multiplied: each row's
// share. Weights that are read as they are, by one block of rows, stream by themselves.
struct Ahead {
  const uint8_t* first;
  int64_t bytes_per_row;

  Ahead(const uint8_t* next, int64_t bytes, int64_t rows)
      : first(next), bytes_per_row(rows > 0 ? bytes / rows : 0) {}
};
// Of one block of rows, step by step.
struct Fetch {
  const uint8_t* at;
  int64_t step;

  MANTISSA_INLINE Fetch(const Ahead& ahead, int64_t row, int64_t rows, int64_t steps)
      : at(ahead.first + row * ahead.bytes_per_row),
        step((rows * ahead.bytes_per_row + steps - 1) / (steps > 0 ? steps : 1)) {}
  MANTISSA_INLINE void next() {
    _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(at + kBlockBytes), _MM_HINT_T1);
    at += step;
  }
};

}  // namespace
}  // namespace mantissa::cpu
