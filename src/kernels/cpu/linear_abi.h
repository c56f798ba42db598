// What the driver (linear.cc) and the per-ISA kernels of `linear` share: plain structs only, no
// library code (docs/adr/0004). The packed layout they describe is drawn in layout.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mantissa::cpu {

inline constexpr int kStrip = 16;      // output channels of a strip
inline constexpr int kTileStrips = 4;  // strips of a tile, but for the last tile
inline constexpr int kTile = kStrip * kTileStrips;
inline constexpr int kBlockBytes = 64;  // 16 channels x one dword of codes
// Codes of this many inputs are summed in int32 without overflow: 255 * 128 * 2^16 < 2^31.
inline constexpr int64_t kInt8Chunk = 1 << 16;

// How a dword holds the codes of one output channel.
enum class Codes : uint8_t {
  kF32,     // 1 input
  kF16,     // 2 inputs
  kBf16,    // 2 inputs
  kByte,    // 4 inputs, any element of up to 8 bits, through a table
  kNibble,  // 8 inputs, any element of up to 4 bits, through a table
  kInt8,    // 4 inputs, for integer dot products
};

// Scales and outputs; kE8m0 and kE4m3 are scales only.
enum class Form : uint8_t { kF32, kF16, kBf16, kE8m0, kE4m3 };

// The 8-bit and 4-bit codes' values. For kByte the index is the code; for kNibble it is the code
// (bit 4 ignored) or, with zero points, the 5-bit two's complement of code - zero.
struct DecodeTable {
  float f32[256];
  uint16_t bf16[256];     // the same values; every element of up to 8 bits is exact
  uint8_t bf16_low[256];  // the two bytes of bf16, for byte permutations
  uint8_t bf16_high[256];
  uint8_t sign_mask = 0;  // 0x80 where entry i + 128 is entry i with the sign set
  bool half = false;      // entries 128.. repeat 0..127, up to sign_mask
  bool int8 = false;      // two's complement of 8 bits
};

struct LinearArgs {
  // ---- weight [N, K], packed
  Codes codes = Codes::kBf16;
  Form scale_form = Form::kF32;
  const uint8_t* weight = nullptr;        // [tile][k block][strip][64]
  const uint8_t* group_scales = nullptr;  // [tile][group][strip][16], or none
  const uint8_t* group_zeros = nullptr;   // like group_scales, one byte each; asymmetric only
  const float* row_scales = nullptr;      // [strips * 16], or none
  const int32_t* sums = nullptr;          // [chunk][strips * 16] of int8 codes over K; kInt8 only
  const DecodeTable* table = nullptr;     // kByte and kNibble
  int64_t n = 0, k_blocks = 0;            // k_blocks: dwords of a channel
  int64_t strips = 0;
  int64_t group_blocks = 0, groups = 0;  // k blocks of a group (the last may be short); 0: none

  // ---- activation [M, k_blocks * inputs of a dword]: f32, bf16 or int8, zero beyond K
  const void* x = nullptr;
  int64_t x_stride = 0;             // elements
  const float* x_scales = nullptr;  // one per token (stride 1) or one for all (stride 0), or none
  int64_t x_scale_stride = 0;
  const int32_t* x_offsets = nullptr;  // [M] subtracted from every code of x: sums * offset; kInt8

  // ---- epilogue: out [M, N] = x w^T * x_scale * row_scale + bias + residual
  const float* bias = nullptr;  // [N]
  const void* residual = nullptr;
  int64_t residual_stride = 0;
  Form residual_form = Form::kF32;
  void* out = nullptr;
  int64_t out_stride = 0;
  Form out_form = Form::kF32;
};

// A piece of the output: tiles x rows.
struct LinearRange {
  int64_t tile_begin = 0, tile_end = 0, m_begin = 0, m_end = 0;
};

// Computes the range with `scratch` of the calling worker, kLinearScratchBytes, 64-byte aligned.
using LinearRun = void (*)(const LinearArgs&, const LinearRange&, std::byte* scratch);
inline constexpr int64_t kLinearScratchBytes = 1 << 20;

// The kernels of one instruction set.
struct LinearIsa {
  LinearRun f32;   // x is f32; every Codes but kInt8
  LinearRun bf16;  // x is bf16; kBf16, kByte, kNibble. Null: none
  LinearRun int8;  // x is int8 + int8_offset in a byte
  int32_t int8_offset;
};
extern const LinearIsa kLinearPortable, kLinearAvx2, kLinearAvx512;

}  // namespace mantissa::cpu
