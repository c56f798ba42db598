// What the driver (linear.cc) and the per-ISA kernels of `linear` share: plain structs only, no
// library code (docs/adr/0004). The packed layout they describe is drawn in layout.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/planes.h"

namespace mantissa::cpu {

inline constexpr int kStrip = 16;      // output channels of a strip
inline constexpr int kTileStrips = 4;  // strips of a tile, but for the last tile
inline constexpr int kTile = kStrip * kTileStrips;
inline constexpr int kBlockBytes = 64;  // 16 channels x one dword
// (code - zero) * (x - zero) of this many inputs is summed in int32 without overflow: 255 * 255 *
// 2^15 < 2^31. A whole number of K blocks of every layout.
inline constexpr int64_t kIntChunk = 1 << 15;
// Most inputs of a group beside int8 activations: their unpacked codes stay in scratch.
inline constexpr int64_t kIntGroupMost = 1 << 13;

// What a K block holds of one output channel.
enum class Codes : uint8_t {
  kF32,     // 1 input
  kF16,     // 2 inputs
  kBf16,    // 2 inputs
  kPacked,  // codes of 1 to 8 bits (planes.h), through a table or as integers
};

// Scales and outputs; kE8m0 and kE4m3 are scales only.
enum class Form : uint8_t { kF32, kF16, kBf16, kE8m0, kE4m3 };

// Values by index. Without zero points the index is the code; bits above it are ignored. With them
// it is code - zero: the low bits of its two's complement, 5 where codes have at most 4 bits, else
// one more than codes of 5 and 6 bits; of 7 and 8 its magnitude. Of 4 bits with e4m3 scales of
// groups it is the code, below the 3 bits of a scale's mantissa that the value is multiplied by: at
// most 4 significant bits times 4, a bf16.
struct DecodeTable {
  float f32[256];
  uint16_t bf16[256];     // the same values; every element of up to 8 bits is exact
  uint8_t bf16_low[256];  // the two bytes of bf16, for byte permutations
  uint8_t bf16_high[256];
  uint8_t sign_mask = 0;  // 0x80 where entry i + 128 is entry i with the sign set
  bool half = false;      // entries 128.. repeat 0..127, up to sign_mask
  bool int8 = false;      // two's complement of 8 bits
  // How values follow from the bits of a code, without the table.
  enum class Kind : uint8_t { kTable, kSigned, kUnsigned, kFloat } kind = Kind::kTable;
  int bits = 0;                // of a code
  int man_bits = 0, bias = 0;  // kFloat: up to 5 bits of exponent
  enum class Nan : uint8_t {
    kFields,
    kTop,
    kNegZero
  } nan = Nan::kFields;  // NanCodes (base/elem.h)
};

struct LinearArgs {
  // ---- weight [N, K], packed
  Codes codes = Codes::kBf16;
  Order order = Order::kDwords;
  int bits = 0;    // of a packed code
  int inputs = 1;  // of a K block
  Form scale_form = Form::kF32;
  const uint8_t* weight = nullptr;        // [tile][k block], lines by turns (layout.h)
  const uint8_t* group_scales = nullptr;  // [tile][group][strip][16], or none
  const uint8_t* group_zeros = nullptr;   // like group_scales (1 group where the whole row is one),
                                          // one byte each; asymmetric only
  const uint8_t* books = nullptr;         // [tile][group][strip][book_bytes]; codebooks only
  const float* row_scales = nullptr;      // [strips * 16], or none
  const DecodeTable* table = nullptr;     // kPacked, but integers
  const DecodeTable* scale_table = nullptr;  // of group scales in e4m3
  int64_t n = 0, k_blocks = 0;               // k_blocks: of a channel
  int64_t block_bytes = 0, book_bytes = 0;
  int64_t strips = 0;
  int64_t group_blocks = 0, groups = 0;  // k blocks of a group (the last may be short); 0: none

  // ---- activation [M, k_blocks * inputs]: f32, bf16 or int8, zero beyond K
  const void* x = nullptr;
  int64_t x_stride = 0;             // elements
  int64_t x_block = 0;              // rows of a block where x is in blocks (BlockIsa), else 0
  int64_t x_row_step = 0;           // RowBlocks::step
  const float* x_scales = nullptr;  // one per token (stride 1) or one for all (stride 0), or none
  int64_t x_scale_stride = 0;
  const float* x_group_scales = nullptr;  // [M, groups] beside those of the weight, or none
  int64_t x_group_stride = 0;

  // ---- integers (linear_int.inc): what the zero points take away. Parts are groups, or chunks of
  // kIntChunk inputs where there are none.
  const int32_t* x_sums = nullptr;  // [M][parts]: -sum of x, times the zero of all codes where
                                    // there are no zero points
  int64_t parts = 0;
  const int32_t* x_zeros = nullptr;  // of x, per token (stride 1) or one (stride 0), or none
  int64_t x_zero_stride = 0;
  const void* column_sums = nullptr;  // with x_zeros; no groups: int32 [part][strips * 16] of
                                      // code - zero; groups: f32 [strips * 16], times scales

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

// A row of x in float codes, to be decoded: to[k] = table[codes[k]] * scales[k / group], exactly.
struct CodeRow {
  const DecodeTable* table = nullptr;
  const uint8_t* codes = nullptr;
  int64_t count = 0;
  const float* scales = nullptr;  // or none
  int64_t group = 1;
};

// The kernels of one instruction set.
struct LinearIsa {
  LinearRun f32;   // x is f32; every Codes, packed in kWords or kPairs
  LinearRun bf16;  // x is bf16; kBf16 and kPacked, likewise. Null: none
  void (*decode_f32)(const CodeRow&, float* to);
  void (*decode_bf16)(const CodeRow&, uint16_t* to);  // null where bf16 is
};
extern const LinearIsa kLinearPortable, kLinearAvx2, kLinearAvx512;

// x in blocks of rows, bf16, [block][inputs / 2][rows][2]: all blocks have `rows` rows, at most
// kBlockRowsMost, but the last, which has what is left and rows of zeros to a multiple of `step`.
struct RowBlocks {
  int64_t rows = 0, step = 0;  // 0: x is in rows
};
inline constexpr int64_t kBlockRowsMost = 16;
static constexpr int64_t padded_rows(int64_t rows, int64_t step) {
  return (rows + step - 1) / step * step;
}
// Inputs [0, width) of a block.
struct BlockStage {
  const uint16_t* from = nullptr;  // [rows][cols], rows `stride` apart
  int64_t stride = 0, rows = 0, cols = 0;
  int64_t padded = 0;      // rows
  int64_t width = 0;       // even; zero from `cols` on
  uint16_t* to = nullptr;  // [width / 2][padded][2]
};
// Many rows times packed codes in bf16 arithmetic.
struct BlockIsa {
  LinearRun run;  // pieces begin at whole blocks
  RowBlocks (*blocks)(const LinearArgs&, int64_t rows);
  void (*stage)(const BlockStage&);
};
extern const BlockIsa kBlocksAvx512;

// int8 activations for the integer kernels: x as LinearArgs::x and x_sums. Wide: as int16, the four
// inputs of a dword in the order 0, 2, 1, 3.
struct IntStage {
  const uint8_t* from = nullptr;  // [M][cols], rows `from_stride` apart
  int64_t from_stride = 0, cols = 0;
  bool wide = false;
  void* to = nullptr;  // [M][width]; null: x is read where it is, width = cols
  int64_t width = 0;
  int32_t* sums = nullptr;      // [M][parts]
  int64_t parts = 0, part = 0;  // inputs of a part
  int32_t factor = 0;           // of the sums
};
struct IntIsa {
  LinearRun run;    // kPacked in kDwords
  bool wide_bytes;  // x of codes of 8 bits is wide
  void (*stage)(const IntStage&, int64_t m_begin, int64_t m_end);
};
extern const IntIsa kIntPortable, kIntAvx2, kIntAvx512;

}  // namespace mantissa::cpu
