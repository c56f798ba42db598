// Attention of few queries over the paged cache: the whole GPU streams K and V once, at the speed
// of the memory. docs/kernels/cuda-attention.md.
//
// The work is a line of units (sequence, KV head, page), cut into equal pieces, one a block,
// whatever the lengths. Each warp takes every kWarps-th unit of its block and keeps its own ring of
// units on the way from memory (one bulk copy each: K, V and scales of a head lie together in the
// page). Scores are computed transposed, S^T = K Q^T and O^T = V^T P^T: keys and D fill mma's 16
// rows, the queries its 8 columns, scales of keys are scales of rows. Warps of a block are merged
// through shared memory; what is left of a (sequence, head) in several blocks by the last of them.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cell_decode.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kKeys = kSm90PageTokens;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e37f;  // below every score
constexpr float kSlack = 8;        // a maximum may lag behind by 2^8 before sums are rescaled
constexpr int kSharedBytesMax = 227 * 1024;
constexpr int kStagesMax = 6;
constexpr int kUnitsLeast = 8;  // of a block: fewer are not worth the merge

// kTiles: of 8 rows each.
template <class T, CellKind kKindOf, int kDimOf, int kTilesOf>
struct Format {
  using Value = T;
  static constexpr CellKind kKind = kKindOf;
  static constexpr bool kCodes = kKind != CellKind::kRunDtype;
  using Math = std::conditional_t<kCodes, __half, T>;  // of mma: f16 holds every code
  static constexpr int kDim = kDimOf, kTiles = kTilesOf, kRows = 8 * kTiles;
  // Blocks of a multiprocessor: of two, one may wait or merge while the other reads. Codes cannot
  // afford that: decoding them needs every warp.
  static constexpr int kShare = !kCodes && kTiles == 1 && kDim <= 128 ? 2 : 1;
  static constexpr int kWarps =  // as many as leave room for two stages and registers for the sums
      (kCodes && kTiles == 1 ? 12 : 8) / (kDim > 128 ? 2 : 1) / kShare;
  static constexpr int kRowBytes = kDim * (kCodes ? 1 : 2);
  static constexpr int kChunk = chunk_bytes_of(kRowBytes);
  static constexpr int kHalfBytes = kKeys * kRowBytes;
  static constexpr int kStageBytes = 2 * kHalfBytes + (kCodes ? 8 * kKeys : 0);
  static constexpr int kMergeStride = kDim + 4;  // floats of a row; rows then differ in bank
  static constexpr int kMergeBytes = kWarps * kRows * (kMergeStride + 2) * 4;
  static constexpr int kStages = std::min(
      kStagesMax, (kSharedBytesMax / kShare - kMergeBytes - 2048) / (kWarps * (kStageBytes + 8)));
  static constexpr int kSharedBytes = kMergeBytes + kStages * kWarps * (kStageBytes + 8);
  static constexpr int kSteps = kDim / 16;
  static_assert(kStages >= 2 && kSteps % 2 == 0 && kShare <= kDecodeShareMax);
};

template <class T>
struct Params {
  T* out;
  int64_t out_stride;
  const T* qkv;
  int64_t stride;
  AttentionArgs a;
  Cache c;
  AttentionState state;
};

// One sequence's share: `pages` from page `first_page` of its table on; 0: not this kernel's.
struct Span {
  int tokens, context, first_page, pages;
};
__device__ Span span_of(const AttentionArgs& a, int kv_heads, int s) {
  const int tokens = __ldg(a.query_start + s + 1) - __ldg(a.query_start + s);
  const int context = __ldg(a.context_len + s);
  if (tokens <= 0 || tokens * (a.heads / kv_heads) > kDecodeRows) return {0, 0, 0, 0};
  const int first = a.window > 0 ? max(0, context - tokens - a.window + 1) / kKeys : 0;
  return {tokens, context, first, (context + kKeys - 1) / kKeys - first};
}

// A unit: page `page` of the span, for KV head `head`.
struct Cursor {
  int sequence, head, page;
  Span span;
};
__device__ void advance(Cursor& at, int units, const AttentionArgs& a, int kv_heads) {
  at.page += units;
  while (at.page >= at.span.pages) {
    at.page -= at.span.pages;
    if (++at.head < kv_heads) continue;
    at.head = 0;
    do {
      if (++at.sequence >= a.sequences) return;  // beyond the last unit: nobody asks for it
      at.span = span_of(a, kv_heads, at.sequence);
    } while (at.span.pages == 0);
  }
}

// All lanes of a warp: the number of units, and where unit `unit` is.
__device__ int64_t units_of(const AttentionArgs& a, int kv_heads, int lane) {
  int64_t units = 0;
  for (int base = 0; base < a.sequences; base += 32) {
    int pages = base + lane < a.sequences ? span_of(a, kv_heads, base + lane).pages : 0;
    for (int step = 16; step > 0; step /= 2) pages += __shfl_xor_sync(0xffffffffu, pages, step);
    units += int64_t{pages} * kv_heads;
  }
  return units;
}
__device__ Cursor find_unit(const AttentionArgs& a, int kv_heads, int64_t unit, int lane) {
  for (int base = 0; base < a.sequences; base += 32) {
    const int pages = base + lane < a.sequences ? span_of(a, kv_heads, base + lane).pages : 0;
    int up_to = pages;
    for (int step = 1; step < 32; step *= 2) {
      const int below = __shfl_up_sync(0xffffffffu, up_to, step);
      if (lane >= step) up_to += below;
    }
    const uint32_t holders = __ballot_sync(0xffffffffu, unit < int64_t{up_to} * kv_heads);
    if (holders != 0) {
      const int owner = __ffs(static_cast<int>(holders)) - 1;
      const int64_t before = int64_t{__shfl_sync(0xffffffffu, up_to - pages, owner)} * kv_heads;
      const Span span = span_of(a, kv_heads, base + owner);
      const auto in = static_cast<int>(unit - before);
      return {base + owner, in / span.pages, in % span.pages, span};
    }
    unit -= int64_t{__shfl_sync(0xffffffffu, up_to, 31)} * kv_heads;
  }
  return {a.sequences, 0, 0, {0, 0, 0, 0}};
}

// A block's part of the line.
struct Cut {
  int64_t units;
  int blocks;
  __device__ int64_t begin(int block) const { return units * block / blocks; }
  __device__ int owner(int64_t unit) const {
    return static_cast<int>(((unit + 1) * blocks - 1) / units);
  }
};

// A warp's ring of units from memory.
template <class F>
struct Fetch {
  unsigned char* stages;
  uint64_t* full;  // [kStages]
  Cursor next;     // the unit to ask for
  int left;        // how many there are, from `next` on
  int32_t page;    // of `next`
  int bytes;       // of a unit

  template <class P>
  __device__ void look_up(const P& p) {
    if (left > 0) {
      page = __ldg(p.a.block_table + next.sequence * p.a.block_table_stride + next.span.first_page +
                   next.page);
    }
  }
  // No token of this pass is in the unit.
  __device__ bool is_old() const {
    return left > 0 &&
           (next.span.first_page + next.page + 1) * kKeys <= next.span.context - next.span.tokens;
  }
  template <class P>
  __device__ void ask(const P& p, int stage, int lane) {
    if (left <= 0) return;
    if (lane == 0) {
      ptx::mbarrier_expect_bytes(&full[stage], static_cast<uint32_t>(bytes));
      ptx::bulk_load(stages + stage * F::kStageBytes,
                     p.c.pages + page * p.c.page_bytes + next.head * p.c.head_bytes,
                     static_cast<uint32_t>(bytes), &full[stage]);
    }
    --left;
    advance(next, F::kWarps, p.a, p.c.kv_heads);
    look_up(p);
  }
};

template <class F>
struct State {
  uint32_t q[F::kTiles][F::kSteps][2];  // columns of mma's B
  float out[F::kTiles][F::kSteps][4];   // O^T: d at rows, queries 2 (l % 4) and the next
  float top[F::kTiles][2], sum[F::kTiles][2];
  float q_scale[F::kTiles][2];  // codes: what q was divided by to fit f16
  float v_top, v_inverse;       // codes: weights carry v_scale / v_top, so that they fit f16
};

// Lane l holds of column l / 4 the D that its rows of K hold: 16 step + 2 (l % 4) + {0, 1, 8, 9},
// or with codes 16 step + 4 (l % 4) + {0, 2, 1, 3}.
template <class F>
__device__ void load_row(uint32_t (&q)[F::kSteps][2], const typename F::Value* from, bool inside,
                         int lane) {
#pragma unroll
  for (int step = 0; step < F::kSteps; ++step) {
    uint2 v = make_uint2(0, 0);
    if (inside && F::kCodes) {
      v = *reinterpret_cast<const uint2*>(from + 16 * step + 4 * (lane % 4));
      v = make_uint2(__byte_perm(v.x, v.y, 0x5410), __byte_perm(v.x, v.y, 0x7632));
    } else if (inside) {
      v.x = *reinterpret_cast<const uint32_t*>(from + 16 * step + 2 * (lane % 4));
      v.y = *reinterpret_cast<const uint32_t*>(from + 16 * step + 2 * (lane % 4) + 8);
    }
    q[step][0] = v.x;
    q[step][1] = v.y;
  }
}

// bf16 -> f16, times a power of two that leaves the largest of the row at 2^10; returns its
// inverse.
template <class F>
__device__ float fit_row(uint32_t (&q)[F::kSteps][2]) {
  float most = 0;
#pragma unroll
  for (int i = 0; i < 2 * F::kSteps; ++i) {
    const float2 v = __bfloat1622float2(from_bits<__nv_bfloat162>(q[i / 2][i % 2]));
    most = fmaxf(most, fmaxf(fabsf(v.x), fabsf(v.y)));
  }
  most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
  most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
  const int exponent = min(max(__float_as_int(most) >> 23, 11), 252);
  const float factor = __int_as_float((264 - exponent) << 23);
#pragma unroll
  for (int i = 0; i < 2 * F::kSteps; ++i) {
    uint32_t& two = q[i / 2][i % 2];
    const float2 v = __bfloat1622float2(from_bits<__nv_bfloat162>(two));
    two = bits_of(__floats2half2_rn(v.x * factor, v.y * factor));
  }
  return __int_as_float((exponent - 10) << 23);
}

template <class F>
__device__ void load_query(State<F>& st, const Params<typename F::Value>& p, const Cursor& at,
                           int lane) {
  const int group = p.a.heads / p.c.kv_heads, first = __ldg(p.a.query_start + at.sequence);
  st.v_top = 0;
  st.v_inverse = 0;
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
    const int row = 8 * t + lane / 4;
    load_row<F>(
        st.q[t],
        p.qkv + (first + row / group) * p.stride + (at.head * group + row % group) * F::kDim,
        row < at.span.tokens * group, lane);
    float scale = 1;
    if constexpr (F::kCodes) scale = fit_row<F>(st.q[t]);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      st.q_scale[t][i] = __shfl_sync(0xffffffffu, scale, 4 * (2 * (lane % 4) + i));
      st.top[t][i] = kLowest;
      st.sum[t][i] = 0;
    }
#pragma unroll
    for (int step = 0; step < F::kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) st.out[t][step][i] = 0;
  }
}

// The rows of ldmatrix: matrix m = lane / 8 is keys 8 (m % 2).., piece m / 2 (K, and V of codes),
// or keys 8 (m / 2).., piece m % 2 (V of 16 bits).
template <class F>
__device__ uint32_t row_address(uint32_t half, int first_piece, bool keys_first, int lane) {
  const int m = lane / 8;
  const int row = 8 * (keys_first ? m % 2 : m / 2) + lane % 8;
  const int piece = first_piece + (keys_first ? m / 2 : m % 2);
  return half + static_cast<uint32_t>(swizzled(row, piece * 16, F::kRowBytes, F::kChunk));
}

// What scores of one page need: scales of the lane's two keys, and where queries see nothing.
struct PageView {
  float k_scale[2], v_scale[2];  // k_scale times log2 e where there is no cap
  int key0;
  bool masked;
};

// scores[t][i]: key l / 4 + 8 (i / 2), query 8 t + 2 (l % 4) + i % 2.
template <class F>
__device__ void scores_of(const State<F>& st, uint32_t keys, const PageView& view, int lane,
                          float (&scores)[F::kTiles][4]) {
  using T = typename F::Math;
  float part[2][F::kTiles][4] = {};  // two chains: half the latency
#pragma unroll
  for (int step = 0; step < F::kSteps; ++step) {
    uint32_t a[4];
    if constexpr (F::kCodes) {
      if (step % 2 == 1) continue;
      uint32_t w[4];
      ptx::load_matrix_x4(w, row_address<F>(keys, step, true, lane));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        decode_codes<F::kKind>(w[2 * half], a[0], a[2]);
        decode_codes<F::kKind>(w[2 * half + 1], a[1], a[3]);
#pragma unroll
        for (int t = 0; t < F::kTiles; ++t)
          ptx::mma_16(part[half][t], a, st.q[t][step + half][0], st.q[t][step + half][1], T{});
      }
    } else {
      ptx::load_matrix_x4(a, row_address<F>(keys, 2 * step, true, lane));
#pragma unroll
      for (int t = 0; t < F::kTiles; ++t)
        ptx::mma_16(part[step % 2][t], a, st.q[t][step][0], st.q[t][step][1], T{});
    }
  }
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      scores[t][i] = (part[0][t][i] + part[1][t][i]) * view.k_scale[i / 2] *
                     (F::kCodes ? st.q_scale[t][i % 2] : 1.0f);
}

template <class F>
__device__ PageView view_page(const Params<typename F::Value>& p, const Cursor& at, int page,
                              const unsigned char* stage, int lane) {
  PageView v;
  v.key0 = (at.span.first_page + page) * kKeys;
  const int first = at.span.context - at.span.tokens;  // position of the first query
  v.masked =
      v.key0 + kKeys - 1 > first || (p.a.window > 0 && v.key0 <= at.span.context - 1 - p.a.window);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    v.k_scale[i] = p.a.scale * (p.a.soft_cap > 0 ? 1.0f : kLog2E);
    v.v_scale[i] = 1;
    if (!F::kCodes) continue;
    const auto* scales = reinterpret_cast<const float*>(stage + 2 * F::kHalfBytes);
    const int key = lane / 4 + 8 * i;
    v.k_scale[i] *= p.c.scaled ? scales[key] : p.c.k_scale;
    if (p.c.scaled) v.v_scale[i] = v.key0 + key < at.span.context ? scales[kKeys + key] : 0.0f;
  }
  return v;
}

// log2 e cap tanh(s / cap), by tanh(y) = 1 - 2 / (e^(2 y) + 1).
template <class F>
__device__ void cap_scores(float cap, float (&scores)[F::kTiles][4]) {
  const float in = 2 * kLog2E / cap;
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float e = ptx::exp2_approx(scores[t][i] * in);
      scores[t][i] = kLog2E * (cap - 2 * cap * ptx::reciprocal_approx(e + 1));
    }
  }
}
template <class F>
__device__ void mask_scores(const Params<typename F::Value>& p, const Cursor& at, int key0,
                            int lane, float (&scores)[F::kTiles][4]) {
  const int group = p.a.heads / p.c.kv_heads, first = at.span.context - at.span.tokens;
  const int reach = p.a.window > 0 ? p.a.window : 1 << 30;
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = key0 + lane / 4 + 8 * (i / 2);
      const int row = 8 * t + 2 * (lane % 4) + i % 2;
      const int position = first + min(row / group, at.span.tokens - 1);
      if (key > position || key <= position - reach) scores[t][i] = -INFINITY;
    }
  }
}

// New maxima, of scores and of the scales of V; sums and earlier results follow.
template <class F>
__device__ void raise(State<F>& st, const PageView& v, const float (&scores)[F::kTiles][4]) {
  float v_shrink = 1;
  if constexpr (F::kCodes) {
    float top = fmaxf(v.v_scale[0], v.v_scale[1]);
    for (int step = 4; step < 32; step *= 2)
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    top = fmaxf(top, st.v_top);
    v_shrink = st.v_top / top;
    st.v_top = top;
    st.v_inverse = 1.0f / top;
  }
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = fmaxf(scores[t][i], scores[t][i + 2]);
      for (int step = 4; step < 32; step *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
      top = fmaxf(top, st.top[t][i]);
      const float shrink = ptx::exp2_approx(st.top[t][i] - top);
      st.top[t][i] = top;
      st.sum[t][i] *= shrink;
#pragma unroll
      for (int step = 0; step < F::kSteps; ++step) {
        st.out[t][step][i] *= shrink * v_shrink;
        st.out[t][step][i + 2] *= shrink * v_shrink;
      }
    }
  }
}

// Scores -> weights, as columns of mma's B (weights[t][i]: keys 8 i + 2 (l % 4) and the next, query
// 8 t + l / 4); sums and earlier results follow a new maximum.
template <class F>
__device__ void weigh(State<F>& st, const Params<typename F::Value>& p, const Cursor& at,
                      const PageView& v, int lane, float (&scores)[F::kTiles][4],
                      uint32_t (&weights)[F::kTiles][2]) {
  using T = typename F::Math;
  if (p.a.soft_cap > 0) cap_scores<F>(p.a.soft_cap, scores);
  if (v.masked) mask_scores<F>(p, at, v.key0, lane, scores);
  bool above = F::kCodes && fmaxf(v.v_scale[0], v.v_scale[1]) > 16 * st.v_top;
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) above = above || scores[t][i] > st.top[t][i % 2] + kSlack;
  if (__any_sync(0xffffffffu, above)) raise(st, v, scores);
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
    float w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      w[i] = ptx::exp2_approx(scores[t][i] - st.top[t][i % 2]);
      st.sum[t][i % 2] += w[i];
      if (F::kCodes) w[i] *= v.v_scale[i / 2] * st.v_inverse;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      typename Pair<T>::Type two;
      two.x = from_f32<T>(w[2 * i]);
      two.y = from_f32<T>(w[2 * i + 1]);
      weights[t][i] = ptx::transpose_matrix(bits_of(two));
    }
  }
}

// O^T += V^T P^T. Rows r and r + 8 of step s are d = 16 s + r and + 8, or with codes 16 s + 2 r and
// the next.
template <class F>
__device__ void add_values(State<F>& st, uint32_t values, int lane,
                           const uint32_t (&weights)[F::kTiles][2]) {
  using T = typename F::Math;
#pragma unroll
  for (int step = 0; step < F::kSteps; ++step) {
    uint32_t a[4];
    if constexpr (F::kCodes) {
      if (step % 2 == 1) continue;
      uint32_t w[4];
      ptx::load_matrix_x4_transposed(w, row_address<F>(values, step, true, lane));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        decode_codes<F::kKind>(w[2 * half], a[0], a[1]);
        decode_codes<F::kKind>(w[2 * half + 1], a[2], a[3]);
#pragma unroll
        for (int t = 0; t < F::kTiles; ++t)
          ptx::mma_16(st.out[t][step + half], a, weights[t][0], weights[t][1], T{});
      }
    } else {
      ptx::load_matrix_x4_transposed(a, row_address<F>(values, 2 * step, false, lane));
#pragma unroll
      for (int t = 0; t < F::kTiles; ++t)
        ptx::mma_16(st.out[t][step], a, weights[t][0], weights[t][1], T{});
    }
  }
}

// Rows of V beyond the context hold anything, NaN too, which a weight of 0 would not take away.
template <class F>
__device__ void clear_values(unsigned char* values, int rows, int lane) {
  constexpr int kPieces = F::kRowBytes / 16;
  for (int i = rows * kPieces + lane; i < kKeys * kPieces; i += 32) {
    *reinterpret_cast<uint4*>(values + swizzled(i / kPieces, i % kPieces * 16, F::kRowBytes,
                                                F::kChunk)) = make_uint4(0, 0, 0, 0);
  }
  ptx::fence_async_shared();  // before the copy engine writes there again
  __syncwarp();               // the zeros are there
}

template <class F>
__device__ void add_page(State<F>& st, const Params<typename F::Value>& p, const Cursor& at,
                         int page, unsigned char* stage, int lane) {
  const PageView view = view_page<F>(p, at, page, stage, lane);
  unsigned char* values = stage + F::kHalfBytes;
  if (view.key0 + kKeys > at.span.context)
    clear_values<F>(values, at.span.context - view.key0, lane);
  float scores[F::kTiles][4];
  uint32_t weights[F::kTiles][2];
  scores_of(st, ptx::shared_address(stage), view, lane, scores);
  weigh(st, p, at, view, lane, scores, weights);
  add_values(st, ptx::shared_address(values), lane, weights);
}

// Results of the warps: [kWarps][kRows][kMergeStride] sums, [kWarps][kRows][2] maxima and sums.
template <class F>
__device__ void leave_results(State<F>& st, float* merge, int rows, int warp, int lane) {
  float* sums = merge + warp * F::kRows * F::kMergeStride;
  float* tops = merge + F::kWarps * F::kRows * F::kMergeStride + warp * F::kRows * 2;
#pragma unroll
  for (int t = 0; t < F::kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = st.sum[t][i];
      for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      const int row = 8 * t + 2 * (lane % 4) + i;
      if (row >= rows) continue;
      if (lane < 4) {
        tops[2 * row] = st.top[t][i];
        tops[2 * row + 1] = sum;
      }
      float* to = sums + row * F::kMergeStride;
#pragma unroll
      for (int step = 0; step < F::kSteps; ++step) {
        const float factor = F::kCodes ? st.v_top : 1.0f;
        const float a = st.out[t][step][i] * factor, b = st.out[t][step][i + 2] * factor;
        if (F::kCodes) {
          *reinterpret_cast<float2*>(to + 16 * step + 2 * (lane / 4)) = make_float2(a, b);
        } else {
          to[16 * step + lane / 4] = a;
          to[16 * step + lane / 4 + 8] = b;
        }
      }
    }
  }
}

// Four sums of one row over `parts` parts: values(part) and top(part) -> {maximum, sum}.
struct Merged {
  float top, sum;
  float4 value;
};
template <class Top, class Values>
__device__ Merged merge_parts(int parts, const Top& top, const Values& values) {
  Merged m{kLowest, 0, make_float4(0, 0, 0, 0)};
  for (int i = 0; i < parts; ++i) m.top = fmaxf(m.top, top(i).x);
#pragma unroll 4
  for (int i = 0; i < parts; ++i) {
    const float2 t = top(i);
    const float weight = ptx::exp2_approx(t.x - m.top);
    const float4 v = values(i);
    m.sum = fmaf(weight, t.y, m.sum);
    m.value.x = fmaf(weight, v.x, m.value.x);
    m.value.y = fmaf(weight, v.y, m.value.y);
    m.value.z = fmaf(weight, v.z, m.value.z);
    m.value.w = fmaf(weight, v.w, m.value.w);
  }
  return m;
}

template <class T>
__device__ void store_four(const Params<T>& p, const Cursor& at, int row, int d, const Merged& m) {
  const int group = p.a.heads / p.c.kv_heads;
  const float factor = p.c.v_scale / m.sum;
  typename Pair<T>::Type ab, cd;
  ab.x = from_f32<T>(m.value.x * factor);
  ab.y = from_f32<T>(m.value.y * factor);
  cd.x = from_f32<T>(m.value.z * factor);
  cd.y = from_f32<T>(m.value.w * factor);
  T* to = p.out + (__ldg(p.a.query_start + at.sequence) + row / group) * p.out_stride +
          (at.head * group + row % group) * p.c.head_dim + d;
  *reinterpret_cast<uint2*>(to) = make_uint2(bits_of(ab), bits_of(cd));
}

// The parts of one (sequence, head) that several blocks hold: block `first` and those after it.
struct Chain {
  int first, parts;
  bool first_is_whole;  // it starts with the first unit of block `first`
  __device__ int slot(int part) const {
    return 2 * (first + part) + (part == 0 && !first_is_whole ? 1 : 0);
  }
};

// The last block to arrive merges.
template <class F>
__device__ void finish_chain(const Params<typename F::Value>& p, const Cursor& at,
                             const Chain& chain, int rows, int* last) {
  __threadfence();
  __syncthreads();  // this block's part is written
  if (threadIdx.x == 0) {
    const int before = atomicAdd(p.state.arrivals + chain.first, 1);
    *last = before == chain.parts - 1;
    if (*last) p.state.arrivals[chain.first] = 0;
  }
  __syncthreads();  // *last is known
  if (!*last) return;
  __threadfence();
  for (int i = threadIdx.x; i < rows * (F::kDim / 4); i += F::kWarps * 32) {
    const int row = i / (F::kDim / 4), d = i % (F::kDim / 4) * 4;
    const Merged m = merge_parts(
        chain.parts,
        [&](int part) {
          return __ldcg(reinterpret_cast<const float2*>(p.state.tops) +
                        chain.slot(part) * kDecodeRows + row);
        },
        [&](int part) {
          return __ldcg(reinterpret_cast<const float4*>(
              p.state.sums + (chain.slot(part) * kDecodeRows + row) * F::kDim + d));
        });
    store_four(p, at, row, d, m);
  }
}

// A stretch of units of one (sequence, head) in this block.
struct Segment {
  int64_t head_begin, head_end;  // units of the (sequence, head)
  int64_t begin, end;            // those of this block
};

template <class F>
__device__ void finish_segment(const Params<typename F::Value>& p, const Cursor& at,
                               const Segment& s, const Cut& cut, float* merge, int* last) {
  const int rows = at.span.tokens * (p.a.heads / p.c.kv_heads);
  const bool whole = s.begin == s.head_begin && s.end == s.head_end;
  Chain chain{0, 1, true};
  if (!whole) {
    chain.first = cut.owner(s.head_begin);
    chain.parts = cut.owner(s.head_end - 1) - chain.first + 1;
    chain.first_is_whole = cut.begin(chain.first) == s.head_begin;
  }
  const float* tops = merge + F::kWarps * F::kRows * F::kMergeStride;
  __syncthreads();  // every warp's results are there
  for (int i = threadIdx.x; i < rows * (F::kDim / 4); i += F::kWarps * 32) {
    const int row = i / (F::kDim / 4), d = i % (F::kDim / 4) * 4;
    const Merged m = merge_parts(
        F::kWarps,
        [&](int w) { return *reinterpret_cast<const float2*>(tops + (w * F::kRows + row) * 2); },
        [&](int w) {
          return *reinterpret_cast<const float4*>(merge + (w * F::kRows + row) * F::kMergeStride +
                                                  d);
        });
    if (whole) {
      store_four(p, at, row, d, m);
      continue;
    }
    const int64_t slot = chain.slot(static_cast<int>(blockIdx.x) - chain.first) * kDecodeRows + row;
    if (d == 0) reinterpret_cast<float2*>(p.state.tops)[slot] = make_float2(m.top, m.sum);
    *reinterpret_cast<float4*>(p.state.sums + slot * F::kDim + d) = m.value;
  }
  if (whole) {
    __syncthreads();  // the results have been read
  } else {
    finish_chain<F>(p, at, chain, rows, last);
  }
}

template <class F>
__global__ void __launch_bounds__(F::kWarps * 32, F::kShare)
    attention_decode_kernel__sm90(const Params<typename F::Value> p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  __shared__ int last;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  auto* merge = reinterpret_cast<float*>(shared + F::kWarps * F::kStages * F::kStageBytes);
  Fetch<F> fetch{
      .stages = shared + warp * F::kStages * F::kStageBytes,
      .full = reinterpret_cast<uint64_t*>(merge + F::kMergeBytes / 4) + warp * F::kStages,
      .next = {},
      .left = 0,
      .page = 0,
      .bytes = p.c.head_bytes};
  if (lane < F::kStages) ptx::mbarrier_init(&fetch.full[lane], 1);
  ptx::fence_barrier_init();
  __syncwarp();  // the ring's barriers exist

  Cut cut{units_of(p.a, p.c.kv_heads, lane), 0};
  cut.blocks = static_cast<int>(
      min(int64_t{gridDim.x}, (cut.units + int64_t{kUnitsLeast} - 1) / int64_t{kUnitsLeast}));
  if (static_cast<int>(blockIdx.x) >= cut.blocks) return ptx::grid_dependency_wait();
  const int block = static_cast<int>(blockIdx.x);
  const int64_t begin = cut.begin(block), end = cut.begin(block + 1);
  Cursor at = find_unit(p.a, p.c.kv_heads, begin, lane);
  fetch.next = at;
  fetch.left = static_cast<int>((end - begin - warp + F::kWarps - 1) / F::kWarps);
  if (fetch.left > 0) advance(fetch.next, warp, p.a, p.c.kv_heads);
  fetch.look_up(p);
  int asked = 0;
  while (asked < F::kStages && fetch.is_old()) fetch.ask(p, asked++, lane);
  ptx::grid_dependency_wait();  // q, and K and V of the new tokens
  while (asked < F::kStages) fetch.ask(p, asked++, lane);
  ptx::grid_dependency_launch();

  int64_t mine = begin + warp;
  int stage = 0;
  uint32_t parity = 0;
  for (int64_t unit = begin; unit < end;) {
    Segment s{.head_begin = unit - at.page,
              .head_end = unit - at.page + at.span.pages,
              .begin = unit,
              .end = 0};
    s.end = min(s.head_end, end);
    State<F> st;
    load_query(st, p, at, lane);
    for (; mine < s.end; mine += F::kWarps) {
      ptx::mbarrier_wait(&fetch.full[stage], parity);
      add_page(st, p, at, static_cast<int>(mine - s.head_begin),
               fetch.stages + stage * F::kStageBytes, lane);
      __syncwarp();  // every lane has read the stage
      fetch.ask(p, stage, lane);
      if (++stage == F::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    leave_results(st, merge, at.span.tokens * (p.a.heads / p.c.kv_heads), warp, lane);
    finish_segment<F>(p, at, s, cut, merge, &last);
    unit = s.end;
    if (unit < end) advance(at, static_cast<int>(s.end - s.begin), p.a, p.c.kv_heads);
  }
}

template <class F>
void launch_kernel(const AttentionCall& call) {
  using T = typename F::Value;
  static const bool configured = [] {
    cuda_check(cudaFuncSetAttribute(attention_decode_kernel__sm90<F>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, F::kSharedBytes),
               "giving attention its shared memory");
    return true;
  }();
  (void)configured;
  const Params<T> p{.out = reinterpret_cast<T*>(call.out.data),
                    .out_stride = call.out.stride,
                    .qkv = reinterpret_cast<const T*>(call.qkv.data),
                    .stride = call.qkv.stride,
                    .a = call.args,
                    .c = call.cache,
                    .state = attention_state(call.queue)};
  launch("launching attention_decode", attention_decode_kernel__sm90<F>,
         {.grid = static_cast<unsigned>(multiprocessors() * F::kShare),
          .block = F::kWarps * 32,
          .shared_bytes = F::kSharedBytes},
         call.queue.stream.get(), p);
}

template <class T, CellKind kKind, int kDim>
void launch_rows(const AttentionCall& call) {
  rows_of(call).most <= 8 ? launch_kernel<Format<T, kKind, kDim, 1>>(call)
                          : launch_kernel<Format<T, kKind, kDim, 2>>(call);
}
template <class T, CellKind kKind>
void launch_format(const AttentionCall& call) {
  const int dim = call.cache.head_dim;
  if (dim == 64) return launch_rows<T, kKind, 64>(call);
  if (dim == 128) return launch_rows<T, kKind, 128>(call);
  if constexpr (sm90_has_all_dims(kKind)) {
    if (dim == 96) return launch_rows<T, kKind, 96>(call);
    if (dim == 256) return launch_rows<T, kKind, 256>(call);
  }
  check(false, "a head size of attention_sm90");
}

}  // namespace

void attention_decode__sm90(const AttentionCall& call) {
  if (*call.qkv.elem == kF16) return launch_format<__half, CellKind::kRunDtype>(call);
  switch (call.cache.kind) {
    case CellKind::kRunDtype:
      return launch_format<__nv_bfloat16, CellKind::kRunDtype>(call);
    case CellKind::kE4M3:
      return launch_format<__nv_bfloat16, CellKind::kE4M3>(call);
    case CellKind::kE5M2:
      return launch_format<__nv_bfloat16, CellKind::kE5M2>(call);
    case CellKind::kInt8:
      return launch_format<__nv_bfloat16, CellKind::kInt8>(call);
  }
}

}  // namespace mantissa::cuda
