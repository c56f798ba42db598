// What attention.cc hands to the per-ISA code of attention_body.inc: plain structs and function
// types only. The page layout of the CPU backend is defined here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mantissa::cpu {

constexpr int kHeadDimMax = 1024;

enum class Format : uint8_t { kF32, kF16, kBf16, kE4m3, kE5m2, kI8 };

// A page holds, for each KV head in turn and each section a multiple of 64 bytes:
//   K  [ceil(P / 16)][De][16]     16 tokens side by side, so that a vector of scores needs no
//                                 horizontal sum; bf16 in pairs, [De / 2][16][2], as vdpbf16ps
//                                 reads
//   V  [P][Dp]                    rows, zero beyond D
//   scales of K, of V [ceil(P / 16) * 16] float32 each; online 8-bit formats only
// P tokens of a page, D head size, De: D to a multiple of 2, Dp: D to a multiple of 16. K is zero
// in column D where De > D.
struct PageLayout {
  int32_t page_tokens, head_dim;
  int32_t even_dim, padded_dim;  // De, Dp
  int32_t code_bytes;
  bool scaled;
  int64_t v_offset, k_scales, v_scales;  // in bytes, from the head's start
  int64_t head_bytes;
  int64_t page_bytes;
};

// One layer's cache, as every kernel sees it.
struct CacheView {
  Format format;
  PageLayout layout;
  std::byte* pages;
  int64_t page_bytes;
};

// Rotates and writes tokens [begin, end) (rope_write of ops.h).
struct RopeArgs {
  Format run;  // of qkv: f32, f16 or bf16
  std::byte* qkv;
  int64_t stride;  // elements
  int32_t heads, kv_heads;
  int32_t half;                // rotary_dim / 2
  const float* cos_sin;        // [T][2][half]: cosines, then sines
  const int32_t* slots;        // [T]
  float k_inverse, v_inverse;  // 1 / static scale of K, of V
  CacheView cache;
};

// Queries that share one KV head and a stretch of context: tokens [0, tokens) x `group` heads, row
// r = token * group + head. The token's keys are those of position first_position + token and
// before.
struct QueryTile {
  const std::byte* q;  // of the first token and head
  int64_t q_stride;    // elements between tokens; heads are D apart
  int32_t tokens, group;
  int32_t first_position;
  int32_t kv_head;
  const int32_t* blocks;  // page numbers of the sequence
};

struct AttentionArgs {
  Format run;
  CacheView cache;
  float scale;     // of q k^T, the static scale of K included
  float v_scale;   // the static scale of V, else 1
  float soft_cap;  // 0: none
  int32_t window;  // 0: none
  int32_t chunk;   // keys of a partial result: a multiple of page_tokens
};

// softmax(q k^T) v over one chunk of keys, before division: sum[d] = sum_j e^(s_j - top) v_j[d].
struct Partial {
  float* top;     // [rows]; -inf: no key of the chunk is this row's
  float* weight;  // [rows] sum_j e^(s_j - top)
  float* sum;     // [rows][Dp]
};

// Keys [first, last) of a context or of a part of it; last <= first: none.
struct Keys {
  int64_t first, last;
};
constexpr int64_t kBlockKeys = 64;

// Memory of one worker, for up to `rows` rows.
struct AttentionWorkspace {
  float* q;         // [rows][De]
  float* scores;    // [rows][chunk + 16]; bf16 weights in a row's first half where they are dotted
  float* k_scales;  // [chunk + 16]
  float* v_scales;
  uint16_t* pairs;  // [kBlockKeys][Dp] bf16: K or V of a block of keys
  Keys* keys;       // [rows]
};

struct AttentionKernels {
  void (*rope_write)(const RopeArgs&, int64_t begin, int64_t end);
  // Packs the tile's queries into the workspace; before chunk().
  void (*pack_queries)(const AttentionArgs&, const QueryTile&, const AttentionWorkspace&);
  // The partial result of keys [index * chunk, (index + 1) * chunk).
  void (*chunk)(const AttentionArgs&, const QueryTile&, int64_t index, const AttentionWorkspace&,
                const Partial& out);
  // total = total and part together; part is of later keys. Rows without keys change nothing.
  void (*merge)(const Partial& total, const Partial& part, int64_t rows, int32_t padded_dim);
  // Rounds sum / weight * v_scale into the rows of the tile.
  void (*finish)(const AttentionArgs&, const QueryTile&, const Partial& total, std::byte* out,
                 int64_t out_stride);
};

extern const AttentionKernels kAttentionPortable, kAttentionAvx2, kAttentionAvx512;

}  // namespace mantissa::cpu
