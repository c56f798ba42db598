// Rotary embedding and cache writes in one pass: every value of q, k and v is read once and written
// where it belongs.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kHeadDimMax = 512;
constexpr int kPairs = kHeadDimMax / 64;  // of a lane: elements 2 (32 k + lane) and the next

struct RopeArgs {
  const float* inv_freq;
  int half;  // of the rotated part
  float factor;
  int heads, heads_per_block;
  const int32_t *positions, *slots;
};

__device__ uint8_t encode_cell(CellKind kind, float x) {
  if (kind == CellKind::kE4M3) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  if (kind == CellKind::kE5M2) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
  return static_cast<uint8_t>(
      static_cast<int8_t>(__float2int_rn(fminf(fmaxf(x, -128.0f), 127.0f))));
}

// A warp's head: a lane holds pairs of elements, rounded to the run dtype.
struct HeadValues {
  float pair[kPairs][2];
};

// x [D] -> values, rotated where `rotates`, and then written back.
template <class T>
__device__ HeadValues rotate(T* x, int dim, int half, bool rotates, const float2* turn, int lane) {
  HeadValues v;
#pragma unroll
  for (int k = 0; k < kPairs; ++k) {
    const int d0 = 2 * (32 * k + lane);
    if (d0 >= dim) break;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int d = d0 + i;
      const float own = to_f32(x[d]);
      v.pair[k][i] = own;
      if (!rotates || d >= 2 * half) continue;
      const bool first = d < half;
      const float2 t = turn[first ? d : d - half];  // cosine, sine
      const float other = to_f32(x[first ? d + half : d - half]);
      v.pair[k][i] = rounded<T>(first ? own * t.x - other * t.y : own * t.x + other * t.y);
    }
  }
  __syncwarp();  // every lane has read its partners
  if (!rotates) return v;
#pragma unroll
  for (int k = 0; k < kPairs; ++k) {
    const int d = 2 * (32 * k + lane);
    if (d >= dim) break;
    x[d] = from_f32<T>(v.pair[k][0]);
    x[d + 1] = from_f32<T>(v.pair[k][1]);
  }
  return v;
}

template <class T>
struct alignas(2 * sizeof(T)) Two {
  T a, b;
};

// One cell of the cache: K or V of (slot, head).
template <class T>
__device__ void write_cell(const Cache& c, const HeadValues& v, int slot, int head, bool is_v,
                           int lane) {
  const int64_t page = slot / c.page_tokens;
  const int offset = slot % c.page_tokens;
  unsigned char* half = half_at(c, page, head, is_v);
  float scale = is_v ? c.v_scale : c.k_scale;
  if (c.kind != CellKind::kRunDtype && c.scaled) {
    float amax = 0;
    bool nan = false;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      if (2 * (32 * k + lane) >= c.head_dim) break;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        amax = fmaxf(amax, fabsf(v.pair[k][i]));
        nan = nan || isnan(v.pair[k][i]);
      }
    }
    scale = fmaxf(fminf(warp_max(amax), FLT_MAX) / c.limit, FLT_MIN);
    nan = __any_sync(0xffffffffu, nan) && c.kind != CellKind::kInt8;
    if (lane == 0) *scale_at(c, page, offset, head, is_v) = nan ? NAN : scale;
  }
  const float inverse = 1.0f / scale;
#pragma unroll
  for (int k = 0; k < kPairs; ++k) {
    const int d = 2 * (32 * k + lane);
    if (d >= c.head_dim) break;
    if (c.kind == CellKind::kRunDtype) {
      *reinterpret_cast<Two<T>*>(half + cell_byte(c, offset, d * static_cast<int>(sizeof(T)))) = {
          from_f32<T>(v.pair[k][0]), from_f32<T>(v.pair[k][1])};
      continue;
    }
    uint8_t code[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = v.pair[k][i];
      code[i] = encode_cell(c.kind, c.scaled ? x / scale : x * inverse);
    }
    *reinterpret_cast<Two<uint8_t>*>(half + cell_byte(c, offset, d)) = {code[0], code[1]};
  }
}

// Grid: tokens, parts of the heads (H of q, then KV of k, then KV of v). A warp per head in turn.
template <class T>
__global__ void __launch_bounds__(kThreads)
    rope_write_kernel__any(T* qkv, int64_t stride, RopeArgs a, Cache c) {
  __shared__ float2 turn[kHeadDimMax / 2];
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto position = static_cast<float>(a.positions[blockIdx.x]);
  const int slot = a.slots[blockIdx.x];
  for (int i = threadIdx.x; i < a.half; i += kThreads) {
    float sine, cosine;
    sincosf(position * a.inv_freq[i], &sine, &cosine);
    turn[i] = make_float2(cosine * a.factor, sine * a.factor);
  }
  __syncthreads();  // turn is complete
  T* row = qkv + blockIdx.x * stride;
  const int first = static_cast<int>(blockIdx.y) * a.heads_per_block;
  const int last = min(first + a.heads_per_block, a.heads + 2 * c.kv_heads);
  for (int head = first + warp; head < last; head += kWarps) {
    const HeadValues v = rotate(row + int64_t{head} * c.head_dim, c.head_dim, a.half,
                                head < a.heads + c.kv_heads, turn, lane);
    if (head < a.heads) continue;
    const bool is_v = head >= a.heads + c.kv_heads;
    write_cell<T>(c, v, slot, head - a.heads - (is_v ? c.kv_heads : 0), is_v, lane);
  }
}

}  // namespace

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue) {
  if (batch.tokens == 0) return;
  if (kv.shape.head_dim > kHeadDimMax || kv.shape.head_dim % 2 != 0) {
    throw Error(text("head size ", kv.shape.head_dim, " is odd or beyond ", kHeadDimMax,
                     " of the CUDA kernels"),
                "use --device cpu");
  }
  // Few tokens: a block for every eight heads, so that all of them start at once.
  const int heads = params.heads + 2 * kv.shape.kv_heads;
  const int parts = batch.tokens >= 2 * multiprocessors() ? 1 : (heads + kWarps - 1) / kWarps;
  const RopeArgs args{.inv_freq = rope.inv_freq,
                      .half = rope.rotary_dim / 2,
                      .factor = rope.attention_factor,
                      .heads = params.heads,
                      .heads_per_block = (heads + parts - 1) / parts,
                      .positions = batch.positions,
                      .slots = batch.slots};
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    launch("launching rope_write", rope_write_kernel__any<T>,
           {.grid = dim3(static_cast<unsigned>(batch.tokens), static_cast<unsigned>(parts)),
            .block = kThreads},
           cuda_queue(queue).stream.get(), reinterpret_cast<T*>(qkv.data), qkv.stride, args,
           cache_of(kv));
  });
}

}  // namespace mantissa::cuda
