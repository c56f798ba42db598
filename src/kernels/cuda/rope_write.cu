// Rotary embedding and cache writes in one pass: every value of q, k and v is read once and written
// where it belongs.
#include <algorithm>
#include <cfloat>
#include <type_traits>

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layer_math.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreadsMax = 384;
constexpr int kHeadDimMax = 256;

struct RopeArgs {
  const float* inv_freq;
  int half;  // of the rotated part
  float factor;
  int heads, heads_per_block, lanes;
  const int32_t *positions, *slots;
};

__device__ uint8_t encode_cell(CellKind kind, float x) {
  if (kind == CellKind::kE4M3) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  if (kind == CellKind::kE5M2) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
  return static_cast<uint8_t>(
      static_cast<int8_t>(__float2int_rn(fminf(fmaxf(x, -128.0f), 127.0f))));
}

template <class V, int kSize>
struct alignas(kSize * sizeof(V)) Vector {
  V v[kSize];
};

// What a lane holds of a head: kRuns times two runs of kRun consecutive elements. Where the head is
// rotated these are partners, half of the rotated part apart.
template <int kRun, int kRuns>
struct Part {
  float value[kRuns][2][kRun];
  int at[kRuns][2];  // first element; -1: none
};

// lanes: of a warp that share a head; lane: among them.
template <int kRun, int kRuns>
__device__ void place(Part<kRun, kRuns>& part, int dim, int half, int lanes, int lane) {
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
    const int u = r * lanes + lane, pairs = half / kRun;
    const int first = u < pairs ? u * kRun : (2 * pairs + 2 * (u - pairs)) * kRun;
    const bool inside = 2 * u * kRun < dim;
    part.at[r][0] = inside ? first : -1;
    part.at[r][1] = inside ? first + (u < pairs ? half : kRun) : -1;
  }
}

template <class T, int kRun, int kRuns>
__device__ void load_part(Part<kRun, kRuns>& part, const T* x) {
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Vector<T, kRun> v{};
      if (part.at[r][i] >= 0) v = *reinterpret_cast<const Vector<T, kRun>*>(x + part.at[r][i]);
#pragma unroll
      for (int e = 0; e < kRun; ++e) part.value[r][i][e] = to_f32(v.v[e]);
    }
  }
}

// Rotates the pairs and writes them back; values are then as the run dtype holds them.
template <class T, int kRun, int kRuns>
__device__ void rotate(Part<kRun, kRuns>& part, T* x, int half, const float2* turn) {
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
    if (part.at[r][0] < 0 || part.at[r][0] >= half) continue;
    Vector<T, kRun> out[2];
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      const float2 uv = turned(part.value[r][0][e], part.value[r][1][e], turn[part.at[r][0] + e]);
      out[0].v[e] = from_f32<T>(uv.x);
      out[1].v[e] = from_f32<T>(uv.y);
      part.value[r][0][e] = to_f32(out[0].v[e]);
      part.value[r][1][e] = to_f32(out[1].v[e]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) *reinterpret_cast<Vector<T, kRun>*>(x + part.at[r][i]) = out[i];
  }
}

// The online scale of a cell; NaN where a value is (kv_cache.cuh). Every lane of the head calls.
template <int kRun, int kRuns>
__device__ float2 scale_of(const Part<kRun, kRuns>& part, const Cache& c, int lanes) {
  float amax = 0;
  bool nan = false;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) {
        amax = fmaxf(amax, fabsf(part.value[r][i][e]));
        nan = nan || isnan(part.value[r][i][e]);
      }
    }
  }
  float bad = nan ? 1.0f : 0.0f;
  for (int step = lanes / 2; step > 0; step /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    bad = fmaxf(bad, __shfl_xor_sync(0xffffffffu, bad, step));
  }
  const float scale = fmaxf(fminf(amax, FLT_MAX) / c.limit, FLT_MIN);
  return make_float2(scale, bad > 0 && c.kind != CellKind::kInt8 ? NAN : scale);
}

// One cell of the cache of 8-bit codes where kCodes; `half`: K or V of the (page, head), `scale`:
// to divide codes by.
template <bool kCodes, class T, int kRun, int kRuns>
__device__ void write_cell(const Part<kRun, kRuns>& part, const Cache& c, unsigned char* half,
                           int offset, float scale) {
  const float inverse = kCodes ? 1.0f / scale : 1.0f;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int d = part.at[r][i];
      if (d < 0) continue;
      if constexpr (!kCodes) {
        Vector<T, kRun> out;
#pragma unroll
        for (int e = 0; e < kRun; ++e) out.v[e] = from_f32<T>(part.value[r][i][e]);
        constexpr int kSize = sizeof(T);
        *reinterpret_cast<Vector<T, kRun>*>(half + cell_byte(c, offset, d * kSize)) = out;
      } else {
        Vector<uint8_t, kRun> out;
#pragma unroll
        for (int e = 0; e < kRun; ++e) {
          const float x = part.value[r][i][e];
          out.v[e] = encode_cell(c.kind, c.scaled ? x / scale : x * inverse);
        }
        *reinterpret_cast<Vector<uint8_t, kRun>*>(half + cell_byte(c, offset, d)) = out;
      }
    }
  }
}

// Grid: tokens, parts of the heads (H of q, then KV of k, then KV of v).
template <class T, int kRun, int kRuns, bool kCodes>
__global__ void __launch_bounds__(kThreadsMax, kRuns > 1 ? 1
                                               : kCodes  ? 3
                                                         : 4)
    rope_write_kernel__any(T* qkv, int64_t stride, RopeArgs a, Cache c) {
  __shared__ float2 turn[kHeadDimMax / 2];
  const int heads = a.heads + 2 * c.kv_heads;
  const int threads = static_cast<int>(blockDim.x), per_pass = threads / a.lanes;
  const int first = static_cast<int>(blockIdx.y) * a.heads_per_block;
  const int last = min(first + a.heads_per_block, heads);
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  int head = first + static_cast<int>(threadIdx.x) / a.lanes;
  Part<kRun, kRuns> part;
  place(part, c.head_dim, a.half, a.lanes, lane);
  T* row = qkv + blockIdx.x * stride;
  const auto head_at = [&](int h) { return row + int64_t{min(h, last - 1)} * c.head_dim; };
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();  // after the wait: attention_decode__sm90 relies on it
  load_part(part, head_at(head));
  const auto position = static_cast<float>(a.positions[blockIdx.x]);
  const int slot = a.slots[blockIdx.x], offset = slot % c.page_tokens;
  const int64_t page = slot / c.page_tokens;
  for (int i = static_cast<int>(threadIdx.x); i < a.half; i += threads)
    turn[i] = turn_of(position, a.inv_freq[i], a.factor);
  __syncthreads();  // turn is complete
  for (int base = first; base < last; base += per_pass, head += per_pass) {
    const bool inside = head < last, is_v = head >= a.heads + c.kv_heads;
    if (base > first) load_part(part, head_at(head));
    if (inside && !is_v) rotate(part, head_at(head), a.half, turn);
    float scale = is_v ? c.v_scale : c.k_scale;
    const int kv_head = head - a.heads - (is_v ? c.kv_heads : 0);
    if (kCodes && c.scaled) {
      const float2 online = scale_of(part, c, a.lanes);
      scale = online.x;
      if (inside && head >= a.heads && lane == 0)
        *scale_at(c, page, offset, kv_head, is_v) = online.y;
    }
    if (inside && head >= a.heads)
      write_cell<kCodes, T>(part, c, half_at(c, page, kv_head, is_v), offset, scale);
  }
}

}  // namespace

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue) {
  if (batch.tokens == 0) return;
  const int dim = kv.shape.head_dim, half = rope.rotary_dim / 2;
  if (dim > kHeadDimMax || dim % 2 != 0) {
    throw Error(text("head size ", dim, " is odd or beyond ", kHeadDimMax, " of the CUDA kernels"),
                "use --device cpu");
  }
  // Elements that a lane reads at once: eight of 16 bits, else four, else one.
  const int64_t bytes = qkv.elem_bytes();
  const auto by = [&](int run) {
    return dim % (2 * run) == 0 && half % run == 0 && qkv.stride % run == 0 && run * bytes <= 16 &&
           reinterpret_cast<uintptr_t>(qkv.data) % static_cast<uintptr_t>(run * bytes) == 0;
  };
  const int run = by(8) ? 8 : by(4) ? 4 : 1;
  int lanes = 32;  // the power of two that holds a head, two runs a lane
  while (run > 1 && lanes / 2 * 2 * run >= dim) lanes /= 2;
  // Many tokens: a block has all heads of one at once, if it can. Few: blocks of few heads, so that
  // all of them start at once.
  const int heads = params.heads + 2 * kv.shape.kv_heads;
  const bool many = batch.tokens >= 2 * multiprocessors();
  const int threads = many ? std::min(kThreadsMax, (heads * lanes + 31) / 32 * 32) : 128;
  const int per_pass = threads / lanes, parts = many ? 1 : (heads + per_pass - 1) / per_pass;
  const RopeArgs args{.inv_freq = rope.inv_freq,
                      .half = half,
                      .factor = rope.attention_factor,
                      .heads = params.heads,
                      .heads_per_block = (heads + parts - 1) / parts,
                      .lanes = lanes,
                      .positions = batch.positions,
                      .slots = batch.slots};
  with_run_dtype(*qkv.elem, [&](auto t) {
    using T = decltype(t);
    constexpr int kMost = sizeof(T) == 2 ? 8 : 4;
    const LaunchShape shape{
        .grid = dim3(static_cast<unsigned>(batch.tokens), static_cast<unsigned>(parts)),
        .block = dim3(static_cast<unsigned>(threads))};
    const Cache cache = cache_of(kv);
    const auto with = [&](auto codes) {
      constexpr bool kCodes = decltype(codes)::value;
      launch("launching rope_write",
             run == 8   ? rope_write_kernel__any<T, kMost, 1, kCodes>
             : run == 4 ? rope_write_kernel__any<T, 4, 1, kCodes>
                        : rope_write_kernel__any<T, 1, 4, kCodes>,
             shape, cuda_queue(queue).stream.get(), reinterpret_cast<T*>(qkv.data), qkv.stride,
             args, cache);
    };
    if (cache.kind == CellKind::kRunDtype) return with(std::false_type{});
    with(std::true_type{});
  });
}

}  // namespace mantissa::cuda
