// Geometry of packed codes of 1 to 8 bits, for packing and for every instruction set's kernels.
//
//   vector   64 bytes: 16 channels x 4 inputs, a code in each byte
//   part     a code's bits are split into parts of 8, 4, 2 and 1 bits, low bits first:
//            3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1
//   K block  32 / (narrowest part) inputs of a strip, the fewest whose parts fill whole vectors:
//            bits           1    2    3    4    5    6    7    8
//            inputs        32   16   32    8   32   16   32    4
//            bytes         64   64  192   64  320  192  448   64
//
// A part of w bits of vectors 0, 1, ... (8 / w of them) shares one line of 64 bytes, vector v's at
// bit (v w) % 8, so a vector of codes is, for each part, a shift and an and, and an or. The lines
// of a K block stand in the order in which its vectors need them, narrow parts first: 7 bits are
//   [1: v0 .. v7][2: v0 .. v3][4: v0 v1][4: v2 v3][2: v4 .. v7][4: v4 v5][4: v6 v7]
// and those of a tile's strips by turns (layout.h), so that memory is read in one sequence, which
// hardware prefetchers follow.
#pragma once

#include <cstdint>

namespace mantissa::cpu {

// Where the 4 inputs of 16 channels stand in a vector.
enum class Order : uint8_t {
  kDwords,  // byte 4 c + i: dot products of four bytes
  kWords,   // byte 4 c + {0, 2, 1, 3}[i]: the low, then the high bytes of the words of a dword are
            // inputs (0, 1), then (2, 3): word permutations make operands of bf16 pairs
  kPairs,   // 16 bytes of 4 channels: inputs 0, 1 of each, then 2, 3 of each: unpacking two vectors
            // of low and high bytes makes the same operands
};

constexpr int kVectorBytes = 64, kVectorInputs = 4;
constexpr int kVectorsMost = 8;  // of a K block

struct Part {
  int bits, at;            // the code's bits [at, at + bits)
  int line[kVectorsMost];  // of the K block, that holds vector v's
};
struct Parts {
  Part part[3];
  int count;
};

// static: per-ISA objects may hold no weak symbols.
static constexpr Parts parts_of(int bits) {
  Parts parts{};
  int at = 0;
  for (int width = 8; width > 0; width /= 2) {
    if ((bits & width) == 0) continue;
    parts.part[parts.count++] = {width, at, {}};
    at += width;
  }
  int lines = 0;
  for (int v = 0; v < kVectorsMost; ++v) {
    for (int p = parts.count - 1; p >= 0; --p) {
      Part& part = parts.part[p];
      part.line[v] = v * part.bits % 8 == 0 ? lines++ : part.line[v - 1];
    }
  }
  return parts;
}
static constexpr int block_inputs(int bits) {
  return 32 / (bits & -bits);
}
static constexpr int block_lines(int bits) {
  return block_inputs(bits) * bits / 32;
}
static constexpr int part_bit(const Part& part, int vector) {
  return vector * part.bits % 8;
}
static constexpr int byte_of(Order order, int channel, int input) {
  if (order == Order::kDwords) return 4 * channel + input;
  if (order == Order::kWords) return 4 * channel + input / 2 + input % 2 * 2;
  return channel / 4 * 16 + input / 2 * 8 + channel % 4 * 2 + input % 2;
}

static_assert(block_inputs(7) == 32 && block_inputs(6) == 16 && block_inputs(4) == 8);
static_assert(parts_of(7).count == 3 && parts_of(7).part[2].at == 6 && parts_of(8).count == 1);
static_assert(parts_of(7).part[2].line[7] == 0 && parts_of(7).part[1].line[5] == 4 &&
              parts_of(7).part[0].line[7] == 6 && block_lines(7) == 7);
static_assert(block_lines(4) == 1 && part_bit(parts_of(4).part[0], 1) == 4);

// A strip's K block: its lines, `stride` bytes apart.
struct Lines {
  const uint8_t* first;
  int64_t stride;
  const uint8_t* operator[](int line) const { return first + line * stride; }
};

}  // namespace mantissa::cpu
