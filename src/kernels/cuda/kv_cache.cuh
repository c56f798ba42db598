// The paged cache as kernels see it. A page holds, for each KV head in turn, K [P][D], V [P][D] and
// (online formats) float32 scales of K [P] and of V [P]; the whole is padded to 64 bytes. So what a
// block reads of a page is one piece of memory, fetched by one copy.
//
// K and V are stored as the tensor cores of Hopper read them from shared memory: eight tokens by
// eight, their rows cut into chunks of W bytes, [P / 8][R / W][8][W] where a row has R bytes, with
// the 16-byte pieces of a chunk permuted as the W-byte swizzle does. The image in shared memory is
// the one in the page, whether a tensor map or an ordinary copy moved it, and eight rows' pieces
// lie in different banks. Pages of no multiple of 8 tokens, rows of no multiple of 16 bytes: plain
// rows.
//
// A scale is NaN where a value of its cell was NaN and the format has NaNs: kernels may then decode
// codes without a look at the format's NaN.
#pragma once

#include "base/error.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {

enum class CellKind : uint8_t { kRunDtype, kE4M3, kE5M2, kInt8 };

// The kernels of sm_90 have head sizes 64 and 128; these caches' 96 and 256 too.
constexpr bool sm90_has_all_dims(CellKind kind) {
  return kind == CellKind::kRunDtype || kind == CellKind::kE4M3;
}

// W for rows of this many bytes: the widest of the swizzles that divides them.
constexpr int chunk_bytes_of(int row_bytes) {
  for (const int w : {128, 64, 32, 16})
    if (row_bytes % w == 0) return w;
  return 0;
}

struct Cache {
  unsigned char* pages;
  int64_t page_bytes;
  int head_bytes, half_bytes;  // of a page: all of one KV head; its K, or its V
  int page_tokens, kv_heads, head_dim, row_bytes;
  int chunk_bytes;  // W; 0: plain rows
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
  const int row = s.head_dim * s.elem->bits() / 8, half = row * s.page_tokens;
  return {.pages = reinterpret_cast<unsigned char*>(kv.pages),
          .page_bytes = kv.page_bytes,
          .head_bytes = 2 * half + (s.scaled ? 8 * s.page_tokens : 0),
          .half_bytes = half,
          .page_tokens = s.page_tokens,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .row_bytes = row,
          .chunk_bytes = s.page_tokens % 8 == 0 ? chunk_bytes_of(row) : 0,
          .kind = kind_of(s),
          .scaled = s.scaled,
          .k_scale = s.is_static() ? s.k_scale : 1.0f,
          .v_scale = s.is_static() ? s.v_scale : 1.0f,
          .limit = static_cast<float>(max_value(*s.elem))};
}

// Where byte `byte` of row `row` stands within K or V of a head.
__host__ __device__ constexpr int swizzled(int row, int byte, int row_bytes, int chunk) {
  const int at =
      (row / 8 * row_bytes + byte / chunk * chunk + row % 8 * (chunk / 8)) * 8 + byte % chunk;
  return at ^ ((at >> 7 & (chunk / 16 - 1)) << 4);
}
__device__ inline int cell_byte(const Cache& c, int row, int byte) {
  return c.chunk_bytes == 0 ? row * c.row_bytes + byte
                            : swizzled(row, byte, c.row_bytes, c.chunk_bytes);
}
// K or V of a head: cell_byte() counts from here.
__device__ inline unsigned char* half_at(const Cache& c, int64_t page, int head, bool v) {
  return c.pages + page * c.page_bytes + head * c.head_bytes + (v ? c.half_bytes : 0);
}
__device__ inline float* scale_at(const Cache& c, int64_t page, int offset, int head, bool v) {
  return reinterpret_cast<float*>(half_at(c, page, head, false) + 2 * c.half_bytes) +
         (v ? c.page_tokens : 0) + offset;
}

struct AttentionArgs {
  int heads, sequences, window;
  float scale, soft_cap;
  const int32_t *query_start, *context_len, *block_table;
  int64_t block_table_stride;
};

// Everything that a kernel's launcher reads.
struct AttentionCall {
  View out;
  ConstView qkv;
  const AttentionArgs& args;
  const Batch& batch;
  const Cache& cache;
  CudaQueue& queue;
  int group() const { return args.heads / cache.kv_heads; }
};

// Bounds of the rows (query tokens x query heads) that a sequence has for one KV head, as far as
// the host knows them.
struct RowBounds {
  int64_t least, most;
};
inline RowBounds rows_of(const AttentionCall& call) {
  const Batch& b = call.batch;
  const int64_t group = call.group();
  if (b.sequences == 1) return {b.tokens * group, b.tokens * group};
  return {group, (b.query_max > 0 ? b.query_max : b.tokens) * group};
}

// The tensor-core kernels; false where these shapes and formats are not theirs.
bool try_attention_sm80(const AttentionCall& call);
bool try_attention_sm90(const AttentionCall& call);

}  // namespace mantissa::cuda
