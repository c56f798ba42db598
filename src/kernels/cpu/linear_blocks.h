// Blocks of registers for `linear`: unrolled loops, blocks of rows, fetching ahead. For per-ISA
// sources only.
#pragma once

#include "kernels/cpu/linear_abi.h"

namespace mantissa::cpu {
namespace {

#define MANTISSA_INLINE __attribute__((always_inline))

// Loops that are gone before the optimizer looks for arrays to keep in registers:
// unrolled<N>([&](auto i) {...}) with i() a constant. The list of constants is made once for each
// N, not for each body: kernels have thousands of bodies.
template <int kValue>
struct Index {
  constexpr int operator()() const { return kValue; }
};
template <int... kValues>
struct Indices {};
template <int kCount, int... kValues>
struct IndicesBelow : IndicesBelow<kCount - 1, kCount - 1, kValues...> {};
template <int... kValues>
struct IndicesBelow<0, kValues...> {
  using Type = Indices<kValues...>;
};
template <class Body, int... kValues>
static inline MANTISSA_INLINE void unrolled_over(const Body& body, Indices<kValues...>) {
  (body(Index<kValues>{}), ...);
}
template <int kCount, class Body>
static inline MANTISSA_INLINE void unrolled(const Body& body) {
  unrolled_over(body, typename IndicesBelow<kCount>::Type{});
}
template <int kRows, int kColumns, class Body>
static inline MANTISSA_INLINE void each(const Body& body) {
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
template <int kMost, class Block>
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
  // The shares of some rows at once.
  MANTISSA_INLINE void fetch(int64_t row, int64_t rows) const {
    const uint8_t* end = first + (row + rows) * bytes_per_row;
    for (const uint8_t* at = first + row * bytes_per_row; at < end; at += kBlockBytes)
      __builtin_prefetch(at, 0, 2);
  }
};
// Of one block of rows, step by step.
struct Fetch {
  const uint8_t* at;
  int64_t step;

  MANTISSA_INLINE Fetch(const Ahead& ahead, int64_t row, int64_t rows, int64_t steps)
      : at(ahead.first + row * ahead.bytes_per_row),
        step((rows * ahead.bytes_per_row + steps - 1) / (steps > 0 ? steps : 1)) {}
  MANTISSA_INLINE void next() {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + kBlockBytes, 0, 2);
    at += step;
  }
};

}  // namespace
}  // namespace mantissa::cpu
