// Attention over the paged cache for any GPU from Ampere on, and the choice of the kernel:
// attention_sm90.cu, attention_sm80.cu, or what is here.
#include <cfloat>

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

// Element d of row `row` of K or V of a head.
template <class T>
__device__ float decode_cell(const Cache& c, const unsigned char* half, int row, int d) {
  constexpr int kSize = sizeof(T);
  if (c.kind == CellKind::kRunDtype)
    return to_f32(*reinterpret_cast<const T*>(half + cell_byte(c, row, d * kSize)));
  const unsigned char code = half[cell_byte(c, row, d)];
  if (c.kind == CellKind::kInt8) return static_cast<int8_t>(code);
  const __nv_fp8_interpretation_t kind = c.kind == CellKind::kE4M3 ? __NV_E4M3 : __NV_E5M2;
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, kind)));
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
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
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
      const unsigned char* k = half_at(c, page, kv_head, false);
      float dot = 0;
      for (int d = 0; d < c.head_dim; ++d)
        dot = fmaf(query[d], decode_cell<T>(c, k, offset, d), dot);
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
      const int offset = (base + i) % c.page_tokens;
      const unsigned char* v = half_at(c, pages[(base + i) / c.page_tokens], kv_head, true);
#pragma unroll
      for (int b = 0; b < kHeadDimMax / 32; ++b) {
        const int d = b * 32 + lane;
        if (d < c.head_dim) value[b] = fmaf(w, decode_cell<T>(c, v, offset, d), value[b]);
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

bool try_attention_sm90(const AttentionCall& call) {
  const Cache& c = call.cache;
  const bool bf16 = *call.qkv.elem == kBF16;
  if (call.queue.capability / 10 != 9 || call.queue.portable_only) return false;
  if (!bf16 && (*call.qkv.elem != kF16 || c.kind != CellKind::kRunDtype)) return false;
  const int d = c.head_dim;
  const bool has_dim = d == 64 || d == 128 || (sm90_has_all_dims(c.kind) && (d == 96 || d == 256));
  if (c.page_tokens != kSm90PageTokens || !has_dim) return false;
  if (call.group() > 128 || c.page_bytes % 16 != 0) return false;
  if (call.out.stride % 8 != 0 || call.qkv.stride % 8 != 0 ||
      reinterpret_cast<uintptr_t>(call.out.data) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(call.qkv.data) % 16 != 0)
    return false;
  const RowBounds rows = rows_of(call);
  if (rows.most > kDecodeRows) attention_prefill__sm90(call);
  if (rows.least <= kDecodeRows) attention_decode__sm90(call);
  return true;
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
  const Cache cache = cache_of(kv);
  const AttentionCall call{out.high, qkv, args, batch, cache, cuda_queue(queue)};
  if (try_attention_sm90(call) || try_attention_sm80(call)) {
    quantize_rows(out, queue);
    return;
  }
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    launch("launching attention", attention_kernel<T>,
           {.grid = dim3(static_cast<unsigned>(batch.tokens), static_cast<unsigned>(params.heads)),
            .block = 32 * kAttentionWarps},
           call.queue.stream.get(), reinterpret_cast<T*>(out.high.data), out.high.stride,
           reinterpret_cast<const T*>(qkv.data), qkv.stride, args, cache);
  });
  quantize_rows(out, queue);
}

}  // namespace mantissa::cuda
