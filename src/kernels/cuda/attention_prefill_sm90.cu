// Attention of many queries over the paged cache, on Hopper's warp-group products. A persistent
// block takes tiles of 128 or 192 rows (query tokens x query heads of one KV head) from a common
// counter:
//
//   producer warp group   Q by a tensor map; K and V, 128 keys at a time, by a bulk copy per page
//                         (pages are stored as wgmma reads them), into rings of kStages tiles.
//                         8-bit codes become bf16 on the way (a warp group for K, one for V,
//                         where their registers suffice)
//   2 or 3 consumer groups   64 rows each: S = Q K^T, softmax in registers, O += P V
//
// A consumer issues the scores of the next keys before the values of these ones, so that its
// softmax runs beside a product; the groups take turns issuing, so that one's softmax runs beside
// the other's products. Keys go from the last to the first: the tiles that need a mask are the
// ends. docs/kernels/cuda-attention.md.
#include <algorithm>

#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace mantissa::cuda {
namespace {

using namespace prefill;

constexpr int kTurnBarrier = 4;  // and up: the turn of a group of consumers
constexpr int kReadBarrier = 7;  // and up: a group of them has read scales
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e37f;  // below every score

// A tile in shared memory as wgmma reads it: eight rows and 16-byte pieces apart.
template <class F>
__device__ uint64_t matrix_descriptor(const unsigned char* at, int leading_bytes,
                                      int eight_rows_bytes) {
  constexpr uint64_t kSwizzle = F::kChunk == 128 ? 1 : F::kChunk == 64 ? 2 : 3;
  return ((ptx::shared_address(at) & 0x3ffff) >> 4) |
         static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(eight_rows_bytes >> 4) << 32 | kSwizzle << 62;
}

template <class F>
struct State {
  using T = typename F::Value;
  float out[F::kDim / 2];
  float scores[F::kKeys / 2];
  uint32_t weights[F::kKeys / 4];
  float top[2], sum[2];
  int upper[2];  // keys up to this one are seen: positions of the lane's rows
};

template <class F>
__device__ void issue_scores(State<F>& st, const Shared<F>& sh, const At& at, int group) {
  constexpr int kPerChunk = F::kChunk / 32;
  const uint64_t q = matrix_descriptor<F>(sh.query + group * 64 * F::kChunk, 16, 8 * F::kChunk);
  const uint64_t k = matrix_descriptor<F>(sh.keys + at.stage * F::kTileBytes, 16, 8 * F::kRowBytes);
#pragma unroll
  for (int i = 0; i < F::kDim / 16; ++i) {
    const int in = i % kPerChunk * 2, chunk = i / kPerChunk;  // units of 16 bytes
    ptx::wgmma_ss(st.scores, q + in + chunk * (F::kRows * F::kChunk >> 4),
                  k + in + chunk * (8 * F::kChunk >> 4), i > 0, typename F::Value{});
  }
  ptx::wgmma_commit();
}

template <class F>
__device__ void issue_values(State<F>& st, const Shared<F>& sh, const At& at) {
  const uint64_t v =
      matrix_descriptor<F>(sh.values + at.stage * F::kTileBytes, 8 * F::kChunk, 8 * F::kRowBytes);
#pragma unroll
  for (int i = 0; i < F::kKeys / 16; ++i) {
    ptx::wgmma_rs(st.out, st.weights + 4 * i, v + i * (16 * F::kRowBytes >> 4),
                  typename F::Value{});
  }
  ptx::wgmma_commit();
}

// Scales of keys and the cap, then the mask. Element 4 j + 2 r + i: row lane / 4 + 8 r, key
// 8 j + 2 (lane % 4) + i of the tile.
template <class F>
__device__ void finish_scores(State<F>& st, const Params<typename F::Value>& p, const Work& w,
                              int tile, const float* k_scales, int lane) {
  if constexpr (F::kCodes) {
#pragma unroll
    for (int j = 0; j < F::kKeys / 8; ++j) {
      const float2 scale = *reinterpret_cast<const float2*>(k_scales + 8 * j + 2 * (lane % 4));
#pragma unroll
      for (int i = 0; i < 4; ++i) st.scores[4 * j + i] *= i % 2 == 0 ? scale.x : scale.y;
    }
  }
  if (p.a.soft_cap > 0) {  // cap tanh(x / cap), tanh(y) = 1 - 2 / (e^(2 y) + 1)
    const float in = 2 * kLog2E * p.a.scale / p.a.soft_cap;
#pragma unroll
    for (int i = 0; i < F::kKeys / 2; ++i) {
      const float e = ptx::exp2_approx(st.scores[i] * in);
      st.scores[i] = p.a.soft_cap - 2 * p.a.soft_cap * ptx::reciprocal_approx(e + 1);
    }
  }
  const int first = tile * F::kKeys;
  const bool causal = first + F::kKeys - 1 > w.position;
  const bool windowed = p.a.window > 0 && first <= w.position + w.tokens - 1 - p.a.window;
  if (!causal && !windowed) return;
  const int reach = windowed ? p.a.window : 1 << 30;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int upper = st.upper[r] - first - 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < F::kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = 8 * j + i;
        if (key > upper || key <= upper - reach) st.scores[4 * j + 2 * r + i] = -INFINITY;
      }
    }
  }
}

// Scores -> weights 2^((s - top) factor), left in st.scores; shrink: what earlier sums are to be
// multiplied by.
template <class F>
__device__ void weigh(State<F>& st, float factor, float (&shrink)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = st.top[r];
#pragma unroll
    for (int j = 0; j < F::kKeys / 8; ++j)
      top = fmaxf(top, fmaxf(st.scores[4 * j + 2 * r], st.scores[4 * j + 2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    shrink[r] = ptx::exp2_approx((st.top[r] - top) * factor);
    st.top[r] = top;
    const float offset = -top * factor;
    float sum = st.sum[r] * shrink[r];
#pragma unroll
    for (int j = 0; j < F::kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& s = st.scores[4 * j + 2 * r + i];
        s = ptx::exp2_approx(fmaf(s, factor, offset));
        sum += s;
      }
    }
    st.sum[r] = sum;
  }
}

template <class T>
__device__ uint32_t pack(float a, float b) {
  typename Pair<T>::Type p;
  p.x = from_f32<T>(a);
  p.y = from_f32<T>(b);
  return bits_of(p);
}

// Weights as wgmma's A, times the scales of V.
template <class F>
__device__ void pack_weights(State<F>& st, const float* v_scales, int lane) {
#pragma unroll
  for (int j = 0; j < F::kKeys / 8; ++j) {
    float2 scale = make_float2(1, 1);
    if constexpr (F::kCodes)
      scale = *reinterpret_cast<const float2*>(v_scales + 8 * j + 2 * (lane % 4));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float a = st.scores[4 * j + 2 * r], b = st.scores[4 * j + 2 * r + 1];
      if constexpr (F::kCodes) {
        a *= scale.x;
        b *= scale.y;
      }
      st.weights[2 * j + r] = pack<typename F::Value>(a, b);
    }
  }
}

// One arrival a warp group. Scales were read by its threads themselves: they meet before.
template <class F>
__device__ void release(uint64_t* empty) {
  if constexpr (F::kCodes) ptx::named_barrier(kReadBarrier + threadIdx.x / 128, 128);
  if (threadIdx.x % 128 == 0) ptx::mbarrier_arrive(empty);
}

template <class F>
__device__ void shrink_out(State<F>& st, const float (&shrink)[2]) {
#pragma unroll
  for (int i = 0; i < F::kDim / 2; ++i) st.out[i] *= shrink[i / 2 % 2];
}

// Each warp's 16 rows leave by themselves, through its part of shared memory.
template <class F>
__device__ void store(State<F>& st, const Shared<F>& sh, const Params<typename F::Value>& p,
                      const Work& w, int group, int lane) {
  using T = typename F::Value;
  constexpr int kPieces = F::kOutCols / 8;  // of 16 bytes in a row
  constexpr int kOutRow = F::kOutCols * 2, kOutChunk = chunk_bytes_of(kOutRow);
  const int heads = p.a.heads / p.c.kv_heads;
  const int warp_row = group * 64 + static_cast<int>(threadIdx.x) / 32 % 4 * 16;
  unsigned char* mine = sh.out + warp_row * kOutRow;
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = st.sum[r];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    inverse[r] = 1.0f / sum;
  }
  const int matrix = lane / 8, row = lane % 8 + 8 * (matrix % 2);
#pragma unroll
  for (int first = 0; first < F::kDim; first += F::kOutCols) {
#pragma unroll
    for (int j = 0; j < F::kOutCols / 16; ++j) {
      const float* o = st.out + first / 2 + 8 * j;
      const int piece = 2 * j + matrix / 2;
      ptx::store_matrix_x4(mine + swizzled(row, piece * 16, kOutRow, kOutChunk),
                           pack<T>(o[0] * inverse[0], o[1] * inverse[0]),
                           pack<T>(o[2] * inverse[1], o[3] * inverse[1]),
                           pack<T>(o[4] * inverse[0], o[5] * inverse[0]),
                           pack<T>(o[6] * inverse[1], o[7] * inverse[1]));
    }
    __syncwarp();  // the warp's rows are there
    for (int i = lane; i < 16 * kPieces; i += 32) {
      const int r = i / kPieces, piece = i % kPieces, at = warp_row + r;
      if (at >= w.tokens * heads) break;
      const uint4 v =
          *reinterpret_cast<const uint4*>(mine + swizzled(r, piece * 16, kOutRow, kOutChunk));
      T* to = p.out + (w.token + at / heads) * p.out_stride +
              (w.kv_head * heads + at % heads) * F::kDim + first + piece * 8;
      *reinterpret_cast<uint4*>(to) = v;
    }
    __syncwarp();  // the rows have been read
  }
}

// One tile; the group's turns are counted by kTurnBarrier.
template <class F>
__device__ void consume_tile(const Shared<F>& sh, const Params<typename F::Value>& p, const Work& w,
                             At& at, int group) {
  const int lane = static_cast<int>(threadIdx.x) % 32, heads = p.a.heads / p.c.kv_heads;
  const float factor = kLog2E * (p.a.soft_cap > 0 ? 1.0f : p.a.scale);
  State<F> st;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = group * 64 + static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane / 4 + 8 * r;
    st.upper[r] = w.position + min(row / heads, w.tokens - 1);
    st.top[r] = kLowest;
    st.sum[r] = 0;
  }
#pragma unroll
  for (int i = 0; i < F::kDim / 2; ++i) st.out[i] = 0;

  float shrink[2];
  ptx::mbarrier_wait(&sh.keys_full[at.stage], at.parity);
  ptx::named_barrier(kTurnBarrier + group, 256);  // this group's turn to issue
  ptx::wgmma_fence();
  issue_scores(st, sh, at, group);
  ptx::named_barrier_arrive(kTurnBarrier + (group + 1) % F::kGroups, 256);
  ptx::wgmma_wait<0>();
  ptx::fence_registers(st.scores);
  finish_scores(st, p, w, w.hi, sh.k_scales + at.stage * F::kKeys, lane);
  release<F>(&sh.keys_empty[at.stage]);
  weigh(st, factor, shrink);
  At values = at;
  at.advance();
  for (int tile = w.hi - 1; tile >= w.lo; --tile) {
    if constexpr (F::kCodes) ptx::mbarrier_wait(&sh.values_full[values.stage], values.parity);
    pack_weights(st, sh.v_scales + values.stage * F::kKeys, lane);
    ptx::mbarrier_wait(&sh.keys_full[at.stage], at.parity);
    ptx::named_barrier(kTurnBarrier + group, 256);  // this group's turn to issue
    ptx::fence_registers(st.scores);
    ptx::fence_registers(st.out);
    ptx::wgmma_fence();
    issue_scores(st, sh, at, group);
    if constexpr (!F::kCodes) ptx::mbarrier_wait(&sh.values_full[values.stage], values.parity);
    issue_values(st, sh, values);
    ptx::named_barrier_arrive(kTurnBarrier + (group + 1) % F::kGroups, 256);
    ptx::wgmma_wait<1>();
    ptx::fence_registers(st.scores);
    finish_scores(st, p, w, tile, sh.k_scales + at.stage * F::kKeys, lane);
    release<F>(&sh.keys_empty[at.stage]);
    weigh(st, factor, shrink);
    ptx::fence_registers(st.scores);  // weights are computed beside the product, not after it
    ptx::wgmma_wait<0>();
    ptx::fence_registers(st.out);
    release<F>(&sh.values_empty[values.stage]);
    shrink_out(st, shrink);
    values = at;
    at.advance();
  }
  ptx::mbarrier_arrive(sh.query_empty);
  ptx::mbarrier_wait(&sh.values_full[values.stage], values.parity);
  pack_weights(st, sh.v_scales + values.stage * F::kKeys, lane);
  ptx::fence_registers(st.out);
  ptx::wgmma_fence();
  issue_values(st, sh, values);
  ptx::wgmma_wait<0>();
  ptx::fence_registers(st.out);
  release<F>(&sh.values_empty[values.stage]);
  store(st, sh, p, w, group, lane);
}

template <class F>
__device__ void consume(const Shared<F>& sh, const Params<typename F::Value>& p, int group) {
  At at;
  uint32_t parity = 0;
  if (group == F::kGroups - 1) ptx::named_barrier_arrive(kTurnBarrier, 256);  // group 0 goes first
  for (;;) {
    ptx::mbarrier_wait(sh.work_full, parity);
    const Work w = *sh.work;
    if (w.sequence < 0) break;
    ptx::mbarrier_wait(sh.query_full, parity);
    parity ^= 1;
    consume_tile(sh, p, w, at, group);
  }
  if (group == 0) ptx::named_barrier(kTurnBarrier, 256);  // the turn that is left over
}

template <class F>
__global__ void __launch_bounds__(F::kThreads, 1)
    attention_prefill_kernel__sm90(const __grid_constant__ CUtensorMap query,
                                   const Params<typename F::Value> p) {
  extern __shared__ __align__(1024) unsigned char memory[];  // the swizzle counts from 1024
  const Shared<F> sh(memory);
  if (threadIdx.x == 0) {
    ptx::tensor_prefetch(&query);
    ptx::mbarrier_init(sh.work_full, 1);
    ptx::mbarrier_init(sh.query_full, 1);
    ptx::mbarrier_init(sh.query_empty, F::kGroups * 128);
    for (int s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(&sh.keys_full[s], 1);
      ptx::mbarrier_init(&sh.keys_empty[s], F::kGroups);
      ptx::mbarrier_init(&sh.values_full[s], 1);
      ptx::mbarrier_init(&sh.values_empty[s], F::kGroups);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();  // the barriers exist
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  if (group >= F::kGroups) {
    ptx::registers_lower<F::kProducerRegisters>();
    if constexpr (F::kCodes) {
      produce_codes(sh, p, query, lane);
    } else {
      if (threadIdx.x % 128 < 32) produce(sh, p, query, lane);
    }
  } else {
    ptx::registers_raise<F::kConsumerRegisters>();
    consume(sh, p, group);
  }
}

template <class F>
void launch_kernel(const AttentionCall& call) {
  using T = typename F::Value;
  constexpr int kBytes = Shared<F>::kBytes;
  static_assert(kBytes <= 227 * 1024);
  allow_shared<attention_prefill_kernel__sm90<F>>(kBytes, "giving attention its shared memory");
  const int box = F::kRows / call.group();
  const CUtensorMap query =
      tensor_map_heads(call.qkv.data, call.batch.tokens, call.args.heads, F::kDim, call.qkv.stride,
                       {.rows = box, .heads = call.group(), .chunk_bytes = F::kChunk});
  const Params<T> p{.out = reinterpret_cast<T*>(call.out.data),
                    .out_stride = call.out.stride,
                    .a = call.args,
                    .c = call.cache,
                    .tiles = attention_state(call.queue).prefill_tiles,
                    .token_box = box,
                    .short_too = call.group() > kDecodeRows};
  const int64_t tiles =
      (call.batch.tokens / box + int64_t{call.batch.sequences}) * call.cache.kv_heads;
  launch("launching attention_prefill", attention_prefill_kernel__sm90<F>,
         {.grid = static_cast<unsigned>(std::min<int64_t>(multiprocessors(), tiles)),
          .block = F::kThreads,
          .shared_bytes = kBytes},
         call.queue.stream.get(), query, p);
}

template <class T, CellKind kKind>
void launch_format(const AttentionCall& call) {
  const int dim = call.cache.head_dim;
  if (dim == 64) return launch_kernel<Format<T, kKind, 64>>(call);
  if (dim == 128) return launch_kernel<Format<T, kKind, 128>>(call);
  if constexpr (sm90_has_all_dims(kKind)) {
    if (dim == 96) return launch_kernel<Format<T, kKind, 96>>(call);
    if (dim == 256) return launch_kernel<Format<T, kKind, 256>>(call);
  }
  check(false, "a head size of attention_sm90");
}

}  // namespace

void attention_prefill__sm90(const AttentionCall& call) {
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
