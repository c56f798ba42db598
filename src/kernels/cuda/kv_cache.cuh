// The paged cache as kernels see it. A page is K [KV heads][P][D], V the same, then float32 scales
// K [KV heads][P] and V (online formats), to a multiple of 64 bytes.
#pragma once

#include "base/error.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {

enum class CellKind : uint8_t { kRunDtype, kE4M3, kE5M2, kInt8 };

struct Cache {
  unsigned char* pages;
  int64_t page_bytes, half_bytes;  // half: all of K or V of a page
  int page_tokens, kv_heads, head_dim, cell_bytes;
  CellKind kind;
  bool scaled;
  float k_scale, v_scale;  // static; 1 where the cells are of the run dtype or `scaled`
  float limit;             // max_value of the format
};

inline CellKind kind_of(const KvShape& s) {
  if (s.elem->bits() > 8) return CellKind::kRunDtype;
  if (*s.elem == kE4M3) return CellKind::kE4M3;
  if (*s.elem == kE5M2) return CellKind::kE5M2;
  if (*s.elem == int_elem(8)) return CellKind::kInt8;
  throw Error(text("a KV cache of ", s.elem->name, " has no CUDA kernel"),
              "choose --kv-cache-dtype auto, fp8_e4m3, fp8_e5m2 or int8");
}
inline Cache cache_of(const KvLayer& kv) {
  const KvShape& s = kv.shape;
  const int cell = s.head_dim * s.elem->bits() / 8;
  return {.pages = reinterpret_cast<unsigned char*>(kv.pages),
          .page_bytes = kv.page_bytes,
          .half_bytes = int64_t{cell} * s.kv_heads * s.page_tokens,
          .page_tokens = s.page_tokens,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .cell_bytes = cell,
          .kind = kind_of(s),
          .scaled = s.scaled,
          .k_scale = s.is_static() ? s.k_scale : 1.0f,
          .v_scale = s.is_static() ? s.v_scale : 1.0f,
          .limit = static_cast<float>(max_value(*s.elem))};
}

__device__ inline unsigned char* cell_at(const Cache& c, int64_t page, int offset, int head,
                                         bool v) {
  return c.pages + page * c.page_bytes + (v ? c.half_bytes : 0) +
         (int64_t{head} * c.page_tokens + offset) * c.cell_bytes;
}
__device__ inline float* scale_at(const Cache& c, int64_t page, int offset, int head, bool v) {
  return reinterpret_cast<float*>(c.pages + page * c.page_bytes + 2 * c.half_bytes) +
         (v ? c.kv_heads * c.page_tokens : 0) + head * c.page_tokens + offset;
}

struct AttentionArgs {
  int heads, sequences, window;
  float scale, soft_cap;
  const int32_t *query_start, *context_len, *block_table;
  int64_t block_table_stride;
};

// The tensor-core kernels; false where these shapes and formats are not theirs.
bool try_attention_sm80(View out, ConstView qkv, const AttentionArgs& args, const Batch& batch,
                        const Cache& cache, CudaQueue& queue);

}  // namespace mantissa::cuda
