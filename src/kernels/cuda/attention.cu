// Rotary embedding with cache writes, and attention over the paged cache, for any GPU from Ampere
// on; attention_sm80.cu takes what tensor cores can.
#include <cfloat>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

__device__ uint8_t encode_cell(CellKind kind, float x) {
  if (kind == CellKind::kE4M3) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  if (kind == CellKind::kE5M2) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
  return static_cast<uint8_t>(
      static_cast<int8_t>(__float2int_rn(fminf(fmaxf(x, -128.0f), 127.0f))));
}
template <class T>
__device__ float decode_cell(const Cache& c, const unsigned char* cell, int d) {
  if (c.kind == CellKind::kRunDtype) return to_f32(reinterpret_cast<const T*>(cell)[d]);
  if (c.kind == CellKind::kInt8) return static_cast<int8_t>(cell[d]);
  const __nv_fp8_interpretation_t kind = c.kind == CellKind::kE4M3 ? __NV_E4M3 : __NV_E5M2;
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(cell[d], kind)));
}

struct RopeArgs {
  const float* inv_freq;
  int half;
  float factor;
  int heads;
  const int32_t *positions, *slots;
};

// A block per token, a warp per head in turn.
template <class T>
__global__ void rope_write_kernel(T* qkv, int64_t stride, RopeArgs a, Cache c) {
  T* row = qkv + blockIdx.x * stride;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const auto position = static_cast<float>(a.positions[blockIdx.x]);
  const int64_t page = a.slots[blockIdx.x] / c.page_tokens;
  const int offset = a.slots[blockIdx.x] % c.page_tokens;
  for (int head = warp; head < a.heads + 2 * c.kv_heads; head += warps) {
    T* x = row + head * c.head_dim;
    if (head < a.heads + c.kv_heads) {
      for (int i = lane; i < a.half; i += 32) {
        float sine, cosine;
        sincosf(position * a.inv_freq[i], &sine, &cosine);
        sine *= a.factor;
        cosine *= a.factor;
        const float u = to_f32(x[i]), v = to_f32(x[i + a.half]);
        x[i] = from_f32<T>(u * cosine - v * sine);
        x[i + a.half] = from_f32<T>(v * cosine + u * sine);
      }
      __syncwarp();  // the rotated head is read below by other lanes
    }
    if (head < a.heads) continue;
    const bool is_v = head >= a.heads + c.kv_heads;
    const int kv_head = head - a.heads - (is_v ? c.kv_heads : 0);
    unsigned char* cell = cell_at(c, page, offset, kv_head, is_v);
    if (c.kind == CellKind::kRunDtype) {
      for (int d = lane; d < c.head_dim; d += 32) reinterpret_cast<T*>(cell)[d] = x[d];
      continue;
    }
    float scale = is_v ? c.v_scale : c.k_scale;
    if (c.scaled) {
      float amax = 0;
      for (int d = lane; d < c.head_dim; d += 32) amax = fmaxf(amax, fabsf(to_f32(x[d])));
      scale = fmaxf(fminf(warp_max(amax), FLT_MAX) / c.limit, FLT_MIN);
      if (lane == 0) *scale_at(c, page, offset, kv_head, is_v) = scale;
    }
    const float inverse = 1.0f / scale;
    for (int d = lane; d < c.head_dim; d += 32) {
      const float value = to_f32(x[d]);
      cell[d] = encode_cell(c.kind, c.scaled ? value / scale : value * inverse);
    }
  }
}

constexpr int kHeadDimMax = 256;
constexpr int kAttentionWarps = 4;

// The sequence that owns token t: query_start ascends.
__device__ int sequence_of(const AttentionArgs& a, int t) {
  int low = 0, high = a.sequences - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (a.query_start[middle] <= t) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A block per (token, query head); its warps take every kAttentionWarps-th group of 32 keys: a lane
// scores one key, then the lanes share out D. Partial results are merged by their maxima.
template <class T>
__global__ void attention_kernel(T* out, int64_t out_stride, const T* qkv, int64_t stride,
                                 AttentionArgs a, Cache c) {
  __shared__ float query[kHeadDimMax];
  __shared__ float partial[kAttentionWarps][kHeadDimMax];
  __shared__ float maxima[kAttentionWarps], sums[kAttentionWarps];
  const int t = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int kv_head = head / (a.heads / c.kv_heads);
  const int s = sequence_of(a, t);
  const int last = a.context_len[s] - (a.query_start[s + 1] - t);
  const int first = a.window > 0 ? max(0, last - a.window + 1) : 0;
  const int32_t* pages = a.block_table + s * a.block_table_stride;
  for (int d = threadIdx.x; d < c.head_dim; d += blockDim.x)
    query[d] = to_f32(qkv[t * stride + head * c.head_dim + d]);
  __syncthreads();  // the query is there

  float top = -FLT_MAX, sum = 0, value[kHeadDimMax / 32] = {};
  for (int base = first + warp * 32; base <= last; base += 32 * kAttentionWarps) {
    const int j = base + lane;
    float score = -FLT_MAX, v_scale = c.v_scale;
    if (j <= last) {
      const int64_t page = pages[j / c.page_tokens];
      const int offset = j % c.page_tokens;
      const unsigned char* k = cell_at(c, page, offset, kv_head, false);
      float dot = 0;
      for (int d = 0; d < c.head_dim; ++d) dot = fmaf(query[d], decode_cell<T>(c, k, d), dot);
      float k_scale = c.k_scale;
      if (c.scaled) {
        k_scale = *scale_at(c, page, offset, kv_head, false);
        v_scale = *scale_at(c, page, offset, kv_head, true);
      }
      score = dot * k_scale * a.scale;
      if (a.soft_cap > 0) score = a.soft_cap * tanhf(score / a.soft_cap);
    }
    const float new_top = fmaxf(top, warp_max(score));
    const float p = j <= last ? expf(score - new_top) : 0.0f;
    const float shrink = expf(top - new_top);
    top = new_top;
    sum = sum * shrink + warp_sum(p);
    const float weight = p * v_scale;
#pragma unroll
    for (int i = 0; i < kHeadDimMax / 32; ++i) value[i] *= shrink;
    const int count = min(32, last - base + 1);
    for (int i = 0; i < count; ++i) {
      const float w = __shfl_sync(0xffffffffu, weight, i);
      const unsigned char* v =
          cell_at(c, pages[(base + i) / c.page_tokens], (base + i) % c.page_tokens, kv_head, true);
#pragma unroll
      for (int b = 0; b < kHeadDimMax / 32; ++b) {
        const int d = b * 32 + lane;
        if (d < c.head_dim) value[b] = fmaf(w, decode_cell<T>(c, v, d), value[b]);
      }
    }
  }
  if (lane == 0) {
    maxima[warp] = top;
    sums[warp] = sum;
  }
#pragma unroll
  for (int b = 0; b < kHeadDimMax / 32; ++b) partial[warp][b * 32 + lane] = value[b];
  __syncthreads();  // every warp's part is there
  float all_top = maxima[0];
  for (int w = 1; w < kAttentionWarps; ++w) all_top = fmaxf(all_top, maxima[w]);
  float all_sum = 0;
  for (int w = 0; w < kAttentionWarps; ++w) all_sum += sums[w] * expf(maxima[w] - all_top);
  for (int d = threadIdx.x; d < c.head_dim; d += blockDim.x) {
    float v = 0;
    for (int w = 0; w < kAttentionWarps; ++w) v += partial[w][d] * expf(maxima[w] - all_top);
    out[t * out_stride + head * c.head_dim + d] = from_f32<T>(v / all_sum);
  }
}

}  // namespace

int64_t kv_page_bytes(const KvShape& s) {
  if (s.elem->bits() <= 8 && s.scaled == s.is_static()) {
    throw Error(text("a KV cache of ", s.elem->name, " with ",
                     s.scaled ? "both online scales and a static scale" : "no scale"),
                "keep online scales, or give --kv-scale");
  }
  const int64_t half = int64_t{s.head_dim} * s.elem->bits() / 8 * s.kv_heads * s.page_tokens;
  const int64_t scales = s.scaled ? int64_t{8} * s.kv_heads * s.page_tokens : 0;
  return (2 * half + scales + 63) / 64 * 64;
}

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue) {
  if (batch.tokens == 0) return;
  const RopeArgs args{.inv_freq = rope.inv_freq,
                      .half = rope.rotary_dim / 2,
                      .factor = rope.attention_factor,
                      .heads = params.heads,
                      .positions = batch.positions,
                      .slots = batch.slots};
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    rope_write_kernel<<<static_cast<unsigned>(batch.tokens), 256, 0,
                        cuda_queue(queue).stream.get()>>>(reinterpret_cast<T*>(qkv.data),
                                                          qkv.stride, args, cache_of(kv));
  });
  cuda_check(cudaGetLastError(), "launching rope_write");
}

void attention(const Activation& out, ConstView qkv, const AttentionParams& params,
               const Batch& batch, const KvLayer& kv, Queue* queue) {
  if (batch.tokens == 0) return;
  if (kv.shape.head_dim > kHeadDimMax) {
    throw Error(text("head size ", kv.shape.head_dim, " is beyond ", kHeadDimMax,
                     " of the CUDA attention kernel"),
                "use --device cpu");
  }
  check(!out.high.empty(), "attention writes the run dtype, then its codes");
  const AttentionArgs args{.heads = params.heads,
                           .sequences = batch.sequences,
                           .window = params.window,
                           .scale = params.scale,
                           .soft_cap = params.soft_cap,
                           .query_start = batch.query_start,
                           .context_len = batch.context_len,
                           .block_table = batch.block_table,
                           .block_table_stride = batch.block_table_stride};
  if (try_attention_sm80(out.high, qkv, args, batch, cache_of(kv), cuda_queue(queue))) {
    quantize_rows(out, queue);
    return;
  }
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    const dim3 grid(static_cast<unsigned>(batch.tokens), static_cast<unsigned>(params.heads));
    attention_kernel<<<grid, 32 * kAttentionWarps, 0, cuda_queue(queue).stream.get()>>>(
        reinterpret_cast<T*>(out.high.data), out.high.stride, reinterpret_cast<const T*>(qkv.data),
        qkv.stride, args, cache_of(kv));
  });
  cuda_check(cudaGetLastError(), "launching attention");
  quantize_rows(out, queue);
}

}  // namespace mantissa::cuda
