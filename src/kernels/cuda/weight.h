// Where the parts of a resident weight lie on the device. Codes stay plain [N, K], K-major: one
// byte, or the run dtype; the copy engine reads them as they are. Codes of up to 4 bits are two a
// byte in blocks of 128 (nibble_of). Scales, zero points and codebooks stand beside them, one row
// per output; scales of FP4 in tiles (byte_scale_at), of tiles of rows once (scale_at).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/gemm_sm90.h"
#include "kernels/weight.h"
#include "quant/quantize.h"

namespace mantissa::cuda {

// Where element k of a row of 4-bit codes lies. A block of 128 elements is 64 bytes, as 4 x 4 words
// of eight elements; the words are stored transposed, so that the 16 bytes of one lane hold a word
// of each 32 elements, and four lanes together never mix groups of 32. In a word, even elements are
// the low half: (word >> 4 j) & 0x000f000f are elements 2 j and 2 j + 1.
struct Nibble {
  int byte, shift;
};
__host__ __device__ inline Nibble nibble_of(int k) {
  const int word = k / 8 % 16, nibble = k % 2 * 4 + k % 8 / 2;
  return {k / 128 * 64 + (word % 4 * 4 + word / 4) * 4 + nibble / 2, nibble % 2 * 4};
}

// Integers of 1 to 3 bits are stored as int4, with their sign in the bits above: kernels read them
// so. `word`: codes of `bits` bits, one in each four.
__host__ __device__ inline uint32_t widen_nibbles(uint32_t word, int bits) {
  const uint32_t ones = 0x11111111u;
  return word | (word >> (bits - 1) & ones) * (15u & ~((1u << bits) - 1));
}

// How scales are stored. Bytes: those of FP4, as they are (e8m0, e4m3).
enum class ScaleForm : uint8_t { kF32, kBf16, kE8M0, kE4M3 };
constexpr bool is_byte(ScaleForm f) {
  return f == ScaleForm::kE8M0 || f == ScaleForm::kE4M3;
}
// Where the byte of a row's group lies: [16 rows][block of 128 columns][row][group], so that what
// belongs to any columns of a tile of 16 rows is one piece, and rows that are read together share
// no bank. blocks: of a row. Of a block's groups the even ones come first.
constexpr int kScaleTile = 16;
__host__ __device__ inline int64_t byte_scale_at(int64_t row, int group, int blocks,
                                                 int group_cols) {
  const int each = 128 / group_cols, of = group % each;  // 4 or 8 groups in a block
  const int at = of % 2 * (each / 2) + of / 2;
  return ((row / kScaleTile * blocks + group / each) * kScaleTile + row % kScaleTile) * each + at;
}
// Where the scale of a row's group lies if it is no byte: each `rows` rows share `pitch` of them.
__host__ __device__ inline int64_t scale_at(int64_t row, int group, int rows, int64_t pitch) {
  return row / rows * pitch + group;
}

struct WeightLayout {
  int64_t rows = 0, cols = 0;              // N, K
  int code_bits = 0;                       // stored: 4, 8, 16 or 32
  int widened_bits = 4;                    // of nibbles: less than 4 for integers that are widened
  int64_t row_bytes = 0;                   // of codes, a multiple of 16 (4-bit codes: of 64)
  int64_t groups = 0;                      // scales in a row; 0: not quantized
  int group_cols = 0;                      // K of one group
  ScaleForm scale_form = ScaleForm::kF32;  // bf16: of scales that are exact there
  int scale_blocks = 0;                    // of bytes: blocks of 128 columns
  int scale_rows = 1;                      // that share their scales: the rows of a tile
  int64_t scale_pitch = 0;                 // scales; of tiles a multiple of 16 bytes
  int64_t scale_bytes = 0;                 // of all
  int64_t codebook_len = 0;                // entries of one codebook (bf16); 0: none
  bool asymmetric = false;
  // Byte offsets in Weight::data.
  int64_t codes = 0, scales = 0, zeros = 0, globals = 0, codebooks = 0, table = 0;
  int64_t bytes = 0;

  explicit WeightLayout(const WeightRequest& request);
};

// The value of each code of a format of at most 8 bits; integers also in wider two's complement.
inline constexpr int kCodes = 256;
struct CodeTable {
  float value[kCodes];
};
CodeTable code_table(const Elem& elem);

// What kernels get: value(n, k) = ((table[code] or codebook) - zero) * scale * global.
struct DeviceWeight {
  const unsigned char* codes;      // [N, row_bytes]
  const void* scales;              // scale_at, or bytes in tiles; nullptr: not quantized
  const int8_t* zeros;             // [N, groups]; nullptr: symmetric
  const float* globals;            // [N]
  const __nv_bfloat16* codebooks;  // [N, groups, codebook_len]; nullptr: none
  const float* table;              // [256] value of each code
  int64_t row_bytes;
  int n, k, groups, group_cols, codebook_len, code_bits;
  ScaleForm scale_form;
  int scale_blocks, scale_rows;
  int64_t scale_pitch;
};
DeviceWeight device_weight(const Weight& w);

}  // namespace mantissa::cuda
