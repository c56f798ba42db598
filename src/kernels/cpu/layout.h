// The packed layout of a weight on the CPU: the same for every instruction set. A row of W[N, K] is
// cut into K blocks; 16 rows make a strip, 4 strips a tile. A thread that computes a tile reads one
// sequential range:
//
//   tile 0                                                 tile 1 ...
//   [k block 0: strip 0 | strip 1 | strip 2 | strip 3][k block 1: ...]
//
//   f32      64 bytes: 16 rows x w[k]
//   f16,bf16 64 bytes: 16 rows x w[k], w[k + 1]
//   packed   lines of 64 bytes: codes of 1 to 8 bits (planes.h), bits / 8 bytes a weight
//
// A K block of several lines has line 0 of the tile's strips, then their line 1, ...
//
// N is padded to 16 and K to the block with codes of value 0. Sections, each 64-byte aligned:
// codes; group scales [tile][group][strip][16] in the scale's format; zero points, likewise, one
// byte; codebooks [tile][group][strip][low bytes, high bytes][16][2^bits] of bf16; row scales f32
// [strips * 16] (per row, per tensor or NVFP4's global scale); column sums, where int8 activations
// have zero points (linear_abi.h).
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cpu/linear_abi.h"
#include "kernels/weight.h"

namespace mantissa::cpu {

// What the indices of a DecodeTable stand for (linear_abi.h).
enum class Indices : uint8_t { kCodes, kDifferences, kProducts };

struct PackedLayout {
  Codes codes = Codes::kBf16;
  int bits = 0;                      // of a packed code, as stored
  Order order = Order::kDwords;      // of packed codes
  int inputs = 1;                    // of a K block
  int64_t block_bytes = 0;           // of a strip's K block
  int64_t rows = 0, cols = 0;        // N, K
  int64_t strips = 0, k_blocks = 0;  // k_blocks = ceil(K / inputs)
  bool scaled = false, grouped = false, asymmetric = false;
  Form scale_form = Form::kF32;   // of group scales
  int64_t group = 0, groups = 0;  // inputs of a group, groups of a row; grouped only
  bool integers = false;          // for dot products with int8 activations: codes are unsigned
  int64_t parts = 0;              // of sums: groups, or chunks of kIntChunk inputs; integers only
  bool column_sums = false;       // int8 activations have zero points
  int zero_shift = 0;      // stored code and zero = canonical + shift (signed, and asymmetric
                           // or integers)
  int64_t book_bytes = 0;  // codebooks of a strip's group; 0: none

  // bytes; row_scales_at is -1 where there are none
  int64_t codes_at = 0, scales_at = 0, zeros_at = 0, books_at = 0, row_scales_at = 0, sums_at = 0;
  int64_t bytes = 0;

  // 4 bits in kPairs, but codebooks: linear_bf16.inc multiplies by the mantissas of group scales.
  Indices indices() const {
    if (asymmetric) return Indices::kDifferences;
    const bool products = bits == 4 && order == Order::kPairs && book_bytes == 0;
    return products ? Indices::kProducts : Indices::kCodes;
  }
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

// The request's weight for dot products of bytes (`integers`) or else; sizes are final.
PackedLayout packed_layout(const WeightRequest& request, bool integers);

// Why the layout cannot hold the weight ("groups of 9 ..."); empty when it can.
std::string layout_refuses(const WeightRequest& request, bool integers);

// Whether every sum of a group's products, x's and the weight's scales multiplied in or not, is
// exact in float32 in any order, so that scales may be multiplied where it costs least: FP4 codes
// with e4m3 scales on both sides and the same short groups (16 products of FP4, multiples of 2^-2
// up to 36, and two scales of 4 significant bits: 20 bits).
bool has_exact_groups(const Scheme& scheme);

Form form_of(const Elem& elem);  // f32, f16, bf16, e8m0, e4m3fn
int form_bytes(Form form);

// The table of an element: integers alone have one of differences, elements of 4 bits alone one of
// products. One each for the life of the program.
const DecodeTable& decode_table(const Elem& elem, Indices indices);

}  // namespace mantissa::cpu
