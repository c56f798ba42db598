// One forward pass's batch and the paged KV cache it reads and writes. The arrays live on the
// device at fixed addresses (architecture.md); only the counts are host values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/elem.h"

namespace mantissa {

// Sequences of different lengths, prefill and decode mixed: sequence s owns tokens
// [query_start[s], query_start[s + 1]), which are the last ones of its context.
struct Batch {
  int32_t tokens = 0;                    // T
  int32_t sequences = 0;                 // S
  int32_t query_max = 0;                 // at least the most tokens of one sequence; 0: unknown
  const int32_t* token_ids = nullptr;    // [T]
  const int32_t* positions = nullptr;    // [T]
  const int32_t* slots = nullptr;        // [T] where K and V go: page * page_tokens + offset
  const int32_t* query_start = nullptr;  // [S + 1]
  const int32_t* context_len = nullptr;  // [S] tokens of the sequence in the cache after this pass
  const int32_t* block_table = nullptr;  // [S, block_table_stride] page numbers
  int64_t block_table_stride = 0;
};

// The whole cache: [layers][pages][page_bytes]. What is inside a page is the attention backend's.
// Values of a cache in another format than the run dtype are codes of float32 arithmetic, to
// nearest even, saturating (a NaN stays NaN where the format has one, else it is 0):
//   scaled:        scale = max(min(amax, FLT_MAX) / max_value(elem), 2^-126) over the D values of
//   one
//                  (token, KV head), K and V each, NaN left out; code = encode(value / scale)
//   k_scale, v_scale (static): code = encode(value * (1 / its scale))
// and read back as decode(code) * scale.
struct KvShape {
  int32_t layers = 0, kv_heads = 0, head_dim = 0;
  int32_t page_tokens = 16;
  const Elem* elem = nullptr;  // the run dtype, or an online 8-bit format
  bool scaled = false;         // float32 scale per (token, KV head), K and V each
  // > 0: static scales of this layer, from the checkpoint or --kv-scale; `scaled` is false.
  float k_scale = 0, v_scale = 0;
  bool is_static() const { return k_scale > 0 && v_scale > 0; }
};
struct KvLayer {
  KvShape shape;
  std::byte* pages = nullptr;  // this layer's [pages][page_bytes]
  int64_t page_bytes = 0;
};

}  // namespace mantissa
