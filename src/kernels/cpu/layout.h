// The packed layout of a weight on the CPU: the same for every instruction set, one per element
// width. A row of W[N, K] is cut into dwords of 1, 2, 4 or 8 codes along K; 16 rows make a strip, 4
// strips a tile. A thread that computes a tile reads one sequential range:
//
//   tile 0                                                 tile 1 ...
//   [k block 0: strip 0 | strip 1 | strip 2 | strip 3][k block 1: ...]
//               64 bytes: 16 rows x one dword
//
//   f32      dword = w[k]
//   f16,bf16 dword = w[k], w[k + 1]
//   int8     dword = w[k] ... w[k + 3], unsigned           (dot products of bytes)
//   byte     16 bytes of 4 rows: k, k + 1 of each row, then k + 2, k + 3 of each row
//            (unpacking low and high halves gives two operands of bf16 pairs)
//   nibble   dword = low half w[k], w[k+2], w[k+4], w[k+6], high half w[k+1], w[k+3], ...
//            (four 16-bit permutations by v, v>>4, v>>8, v>>12 give four operands of bf16 pairs;
//            for dot products of bytes v & 0x0f.. is w[k + 0, 4, 1, 5], v>>4 & 0x0f.. the rest)
//
// N is padded to 16 and K to the dword with codes of value 0. Sections, each 64-byte aligned:
// codes; group scales [tile][group][strip][16] in the scale's format; zero points, likewise, one
// byte; row scales f32 [strips * 16] (per row, per tensor or NVFP4's global scale); column sums,
// where int8 activations have zero points (linear_abi.h).
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cpu/linear_abi.h"
#include "kernels/weight.h"

namespace mantissa::cpu {

struct PackedLayout {
  Codes codes = Codes::kBf16;
  int inputs = 1;                    // codes of a dword
  int64_t rows = 0, cols = 0;        // N, K
  int64_t strips = 0, k_blocks = 0;  // k_blocks = ceil(K / inputs)
  bool scaled = false, grouped = false, asymmetric = false;
  Form scale_form = Form::kF32;   // of group scales
  int64_t group = 0, groups = 0;  // inputs of a group, groups of a row; grouped only
  bool integers = false;          // for dot products with int8 activations: codes are unsigned
  int64_t parts = 0;              // of sums: groups, or chunks of kIntChunk inputs; integers only
  bool column_sums = false;       // int8 activations have zero points
  int zero_shift = 0;  // stored code and zero = canonical + shift (signed, and asymmetric
                       // or integers)

  int64_t codes_at = 0, scales_at = 0, zeros_at = 0, row_scales_at = 0, sums_at = 0;  // bytes
  int64_t bytes = 0;

  // Zero points of a row; the whole row is one group where scales are by row.
  int64_t zero_groups() const { return asymmetric ? (grouped ? groups : 1) : 0; }
  int64_t tile_strips(int64_t strip) const {
    const int64_t left = strips - strip / kTileStrips * kTileStrips;
    return left < kTileStrips ? left : kTileStrips;
  }
  // First of the 16 entries of a strip at `step` (a k block or a group) of a section with `steps`
  // steps to a row.
  int64_t entry(int64_t strip, int64_t step, int64_t steps) const {
    const int64_t first = strip / kTileStrips * kTileStrips;
    return (first * steps + step * tile_strips(strip) + strip - first) * kStrip;
  }
};

// How the request's weight is coded for integer dot products (`integers`) or else; sizes are final.
PackedLayout packed_layout(const WeightRequest& request, bool integers);

// Why the layout cannot hold the weight ("codebooks"); empty when it can.
std::string layout_refuses(const WeightRequest& request, bool integers);

Form form_of(const Elem& elem);  // f32, f16, bf16, e8m0, e4m3fn
int form_bytes(Form form);

// The table of an element; with zero points the one over code - zero. One per element for the life
// of the program.
const DecodeTable& decode_table(const Elem& elem, Codes codes, bool asymmetric);

}  // namespace mantissa::cpu
