// One page after another of attention for few queries, by a warp: shared by
// attention_decode_sm90.cu and the layers of decode_layers_sm90.cu. Scores are computed transposed,
// S^T = K Q^T and O^T = V^T P^T: keys and D fill mma's 16 rows, the queries its 8 columns. F: what
// a format must have stands at DecodeFormat.
#pragma once

#include <cfloat>

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cell_decode.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda {

constexpr int kKeys = kSm90PageTokens;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e37f;  // below every score
constexpr float kSlack = 8;        // a maximum may lag behind by 2^8 before sums are rescaled

// T: run dtype; kTiles: of 8 rows (query tokens x query heads of a KV head) each.
template <class T, CellKind kKindOf, int kDimOf, int kTilesOf>
struct DecodeFormat {
  using Value = T;
  static constexpr CellKind kKind = kKindOf;
  static constexpr bool kCodes = kKind != CellKind::kRunDtype;
  using Math = std::conditional_t<kCodes, __half, T>;  // of mma: f16 holds every code
  static constexpr int kDim = kDimOf, kTiles = kTilesOf, kRows = 8 * kTiles;
  static constexpr int kRowBytes = kDim * (kCodes ? 1 : 2);
  static constexpr int kChunk = chunk_bytes_of(kRowBytes);
  static constexpr int kHalfBytes = kKeys * kRowBytes;
  static constexpr int kMergeStride = kDim + 4;  // floats of a row; rows then differ in bank
  static constexpr int kSteps = kDim / 16;
};

template <class T>
struct DecodeParams {
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
// A unit: page `page` of the span, for KV head `head`.
struct PageCursor {
  int sequence, head, page;
  Span span;
};
template <class F>
struct DecodeState {
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
__device__ void load_query(DecodeState<F>& st, const DecodeParams<typename F::Value>& p,
                           const PageCursor& at, int lane) {
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
__device__ void scores_of(const DecodeState<F>& st, uint32_t keys, const PageView& view, int lane,
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
__device__ PageView view_page(const DecodeParams<typename F::Value>& p, const PageCursor& at,
                              int page, const unsigned char* stage, int lane) {
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
__device__ void mask_scores(const DecodeParams<typename F::Value>& p, const PageCursor& at,
                            int key0, int lane, float (&scores)[F::kTiles][4]) {
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
__device__ void raise(DecodeState<F>& st, const PageView& v, const float (&scores)[F::kTiles][4]) {
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
__device__ void weigh(DecodeState<F>& st, const DecodeParams<typename F::Value>& p,
                      const PageCursor& at, const PageView& v, int lane,
                      float (&scores)[F::kTiles][4], uint32_t (&weights)[F::kTiles][2]) {
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
__device__ void add_values(DecodeState<F>& st, uint32_t values, int lane,
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
__device__ void add_page(DecodeState<F>& st, const DecodeParams<typename F::Value>& p,
                         const PageCursor& at, int page, unsigned char* stage, int lane) {
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

// A warp's results: sums [rows][kMergeStride], tops [rows][2] maxima and sums of weights.
template <class F>
__device__ void leave_results(DecodeState<F>& st, float* sums, float* tops, int rows, int lane) {
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
__device__ void store_four(const DecodeParams<T>& p, const PageCursor& at, int row, int d,
                           const Merged& m) {
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

}  // namespace mantissa::cuda
