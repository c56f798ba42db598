// Attention over the paged cache on mma.sync. Rows of a tile are (token, query head) pairs of one
// KV head, so that grouped heads read K and V once; both go from memory to registers in 16-byte
// loads, in whatever order of D and of the keys suits mma. Long queries: a warp per 16 rows. Short
// ones (decode): warps and blocks share out the context, and a second kernel merges their parts.
// docs/kernels/cuda-attention.md.
#include <algorithm>
#include <cfloat>

#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarps = 4, kRows = 16;  // rows: mma's M
constexpr int kStep = 16;              // keys of one turn
constexpr float kLog2E = 1.4426950408889634f;

template <class T, bool kCodesOf, int kDimOf, bool kSplitOf>
struct Format {
  using Value = T;                          // run dtype
  static constexpr bool kCodes = kCodesOf;  // cells are e4m3, else the run dtype
  static constexpr int kDim = kDimOf;
  static constexpr bool kSplit = kSplitOf;                        // warps share out keys, else rows
  static constexpr int kKeyLoads = kDim * (kCodes ? 1 : 2) / 64;  // 64 bytes of a key: four lanes
  static constexpr int kStepsPerLoad = kCodes ? 4 : 2;            // mma of K that a load feeds
  static constexpr int kDimBlocks = kDim / 64;                    // of V: 8 lanes x 8 values
  using Unit = std::conditional_t<kCodes, uint2, uint4>;          // 8 values of V
  static constexpr int kRowBytes = kDim * (kCodes ? 1 : 2);
  __device__ static int place(int row, int byte) {
    return swizzled(row, byte, kRowBytes, chunk_bytes_of(kRowBytes));
  }
};

struct Places {
  int parts;     // of the context, with kSplit
  int rows_max;  // rows of a part in scratch
  float* sums;   // [tile][KV heads][parts][rows_max][D]
  float* tops;   // [tile][KV heads][parts][rows_max][2]: maximum (of base 2), sum of weights
};
struct Tile {
  int sequence, first_row;  // -1: none
  int first_token, tokens, context;
};

__device__ bool is_short(int tokens, int group) {
  return tokens * group <= kRows;
}
// The index-th tile of the sequences whose queries are short, or long. Uniform in a warp.
template <bool kShort>
__device__ Tile tile_at(const AttentionArgs& a, int index, int group) {
  constexpr int kTileRows = kShort ? kRows : kRows * kWarps;
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < a.sequences; base += 32) {
    const int s = base + lane;
    int tokens = 0;
    if (s < a.sequences) tokens = a.query_start[s + 1] - a.query_start[s];
    const bool mine = tokens > 0 && is_short(tokens, group) == kShort;
    const int tiles = mine ? (tokens * group + kTileRows - 1) / kTileRows : 0;
    const Holder h = holder_of(index, tiles);
    index -= h.before;
    if (h.lane >= 0) {
      const int seq = base + h.lane;
      return {seq, index * kTileRows, a.query_start[seq], __shfl_sync(0xffffffffu, tokens, h.lane),
              a.context_len[seq]};
    }
  }
  return {-1, 0, 0, 0, 0};
}

template <class F>
struct State {
  uint32_t q[F::kDim / 16][4];
  uint4 k[2][F::kKeyLoads];              // keys l / 4 and l / 4 + 8
  typename F::Unit v[4][F::kDimBlocks];  // keys 2 (l % 4), the next, and those + 8
  float k_scale[4], v_scale[4];          // of those four keys
  float out[F::kDim / 8][4] = {};        // (row, d), (row, d + 8), (row + 8, ...)
  float top[2] = {-1e30f, -1e30f}, sum[2] = {};
};

template <class F>
__device__ void load_query(State<F>& st, const typename F::Value* qkv, int64_t stride,
                           const Tile& tile, int row0, int kv_head, int group, int lane) {
  constexpr int kWidth = F::kCodes ? 64 : 32, kLane = kWidth / 4;  // of K: a load of four lanes
  const int rows = tile.tokens * group;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(row0 + lane / 4 + r * 8, rows - 1);
    const auto* from =
        qkv + (tile.first_token + row / group) * stride + (kv_head * group + row % group) * F::kDim;
#pragma unroll
    for (int step = 0; step < F::kDim / 16; ++step) {
      const int d =
          step / F::kStepsPerLoad * kWidth + lane % 4 * kLane + step % F::kStepsPerLoad * 4;
      const uint2 four = *reinterpret_cast<const uint2*>(from + d);
      st.q[step][r] = four.x;
      st.q[step][2 + r] = four.y;
    }
  }
}

// Keys [key, key + 16), none beyond `last`: those repeat it (their weight is 0).
struct Keys {
  const unsigned char* page;
  int offset, most;  // in the page
};
__device__ Keys keys_at(const AttentionArgs& a, const Cache& c, const Tile& tile, int key,
                        int last) {
  const int32_t* table = a.block_table + tile.sequence * a.block_table_stride;
  const int page = key / c.page_tokens, offset = key - page * c.page_tokens;
  return {c.pages + __ldg(table + page) * c.page_bytes, offset,
          offset + min(kStep - 1, last - key)};
}
template <class F>
__device__ void load_keys(State<F>& st, const Cache& c, const Keys& keys, int kv_head, int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(keys.offset + lane / 4 + r * 8, keys.most);
    const unsigned char* half = keys.page + kv_head * c.head_bytes;
#pragma unroll
    for (int b = 0; b < F::kKeyLoads; ++b)
      st.k[r][b] =
          __ldg(reinterpret_cast<const uint4*>(half + F::place(row, lane % 4 * 16 + b * 64)));
  }
}
template <class F>
__device__ void load_values(State<F>& st, const Cache& c, const Keys& keys, int kv_head, int lane) {
  using Unit = typename F::Unit;
  const unsigned char* half = keys.page + kv_head * c.head_bytes + c.half_bytes;
  const auto* scales = reinterpret_cast<const float*>(half + c.half_bytes);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int key = min(keys.offset + lane % 4 * 2 + i % 2 + i / 2 * 8, keys.most);
#pragma unroll
    for (int b = 0; b < F::kDimBlocks; ++b) {
      st.v[i][b] = __ldg(reinterpret_cast<const Unit*>(
          half + F::place(key, (b * 8 + lane / 4) * static_cast<int>(sizeof(Unit)))));
    }
    if (F::kCodes && c.scaled) {
      st.k_scale[i] = __ldg(scales + key);
      st.v_scale[i] = __ldg(scales + c.page_tokens + key);
    }
  }
}

template <class F>
__device__ void scores_of(const State<F>& st, float (&scores)[2][4]) {
  using T = typename F::Value;
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[t][i] = 0;
#pragma unroll
    for (int step = 0; step < F::kDim / 16; ++step) {
      const uint4& k = st.k[t][step / F::kStepsPerLoad];
      const int s = step % F::kStepsPerLoad;
      if constexpr (F::kCodes) {
        const uint32_t word = word_of(k, s);
        ptx::mma_16(scores[t], st.q[step], decode_e4m3<T>(word & 0xffffu),
                    decode_e4m3<T>(word >> 16), T{});
      } else {
        ptx::mma_16(scores[t], st.q[step], word_of(k, 2 * s), word_of(k, 2 * s + 1), T{});
      }
    }
  }
}

// Two keys' values of one d, as an operand.
template <class F>
__device__ uint32_t pair_of(const typename F::Unit& a, const typename F::Unit& b, int t) {
  if constexpr (F::kCodes) {
    const uint32_t x = t < 4 ? a.x : a.y, y = t < 4 ? b.x : b.y;
    const uint32_t pick = t % 4;
    return decode_e4m3<typename F::Value>(__byte_perm(x, y, pick | (4 + pick) << 4) & 0xffffu);
  } else {
    return __byte_perm(word_of(a, t / 2), word_of(b, t / 2), t % 2 == 0 ? 0x5410 : 0x7632);
  }
}
template <class T>
__device__ uint32_t pack(float a, float b) {
  using P = typename Pair<T>::Type;
  P p;
  p.x = from_f32<T>(a);
  p.y = from_f32<T>(b);
  return bits_of(p);
}

// Masks, the running maximum, and weights as operands: high parts and what they leave out (kSplit:
// there the tensor cores idle, so weights keep twice the digits).
template <class F>
__device__ void weigh(State<F>& st, const AttentionArgs& a, const Cache& c, float (&scores)[2][4],
                      int key, const int (&position)[2], int lane, uint32_t (&high)[4],
                      uint32_t (&low)[4]) {
  using T = typename F::Value;
  const float scale = a.scale * (F::kCodes ? c.k_scale : 1.0f);
  float most[2] = {-FLT_MAX, -FLT_MAX};
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int j = key + t * 8 + lane % 4 * 2 + i % 2, r = i / 2;
      float s = scores[t][i] * scale;
      if (F::kCodes && c.scaled) s *= st.k_scale[t * 2 + i % 2];
      if (a.soft_cap > 0) s = a.soft_cap * tanhf(s / a.soft_cap);
      const bool seen = j <= position[r] && (a.window <= 0 || j > position[r] - a.window);
      scores[t][i] = seen ? s * kLog2E : -INFINITY;
      most[r] = fmaxf(most[r], scores[t][i]);
    }
  }
  float shrink[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 1));
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 2));
    most[r] = fmaxf(most[r], st.top[r]);
    shrink[r] = exp2f(st.top[r] - most[r]);
    st.top[r] = most[r];
    st.sum[r] *= shrink[r];
  }
  if (__any_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
    for (int n = 0; n < F::kDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) st.out[n][i] *= shrink[i / 2];
  }
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float p[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        p[i] = exp2f(scores[t][2 * r + i] - st.top[r]);
        st.sum[r] += p[i];
        if (F::kCodes && c.scaled) p[i] *= st.v_scale[t * 2 + i];
      }
      high[2 * t + r] = pack<T>(p[0], p[1]);
      low[2 * t + r] = pack<T>(p[0] - rounded<T>(p[0]), p[1] - rounded<T>(p[1]));
    }
  }
}

template <class F>
__device__ void add_values(State<F>& st, const uint32_t (&high)[4], const uint32_t (&low)[4]) {
  using T = typename F::Value;
#pragma unroll
  for (int b = 0; b < F::kDimBlocks; ++b) {
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const uint32_t b0 = pair_of<F>(st.v[0][b], st.v[1][b], t);
      const uint32_t b1 = pair_of<F>(st.v[2][b], st.v[3][b], t);
      ptx::mma_16(st.out[b * 8 + t], high, b0, b1, T{});
      if (F::kSplit) ptx::mma_16(st.out[b * 8 + t], low, b0, b1, T{});
    }
  }
}

// Row r of a lane: 8 consecutive d at 64 b + 8 (2 (l % 4) + c), in turn for b and c.
template <class F, class Put>
__device__ void for_each_eight(const State<F>& st, int r, float factor, int lane, const Put& put) {
#pragma unroll
  for (int b = 0; b < F::kDimBlocks; ++b) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float eight[8];
#pragma unroll
      for (int t = 0; t < 8; ++t) eight[t] = st.out[b * 8 + t][2 * r + c] * factor;
      put(64 * b + 8 * (2 * (lane % 4) + c), eight);
    }
  }
}

template <class F>
__device__ void store(State<F>& st, const Cache& c, const Tile& tile, const Places& places,
                      typename F::Value* out, int64_t out_stride, int row0, int kv_head, int group,
                      int lane) {
  using T = typename F::Value;
  const int rows = tile.tokens * group;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    st.sum[r] += __shfl_xor_sync(0xffffffffu, st.sum[r], 1);
    st.sum[r] += __shfl_xor_sync(0xffffffffu, st.sum[r], 2);
    const int row = row0 + lane / 4 + r * 8;
    if (row >= rows) continue;
    const float v_scale = F::kCodes ? c.v_scale : 1.0f;
    if constexpr (F::kSplit) {
      const int part = blockIdx.z * kWarps + threadIdx.x / 32;
      const int64_t at =
          ((int64_t{blockIdx.x} * c.kv_heads + kv_head) * places.parts + part) * places.rows_max +
          row;
      if (lane % 4 == 0) {
        places.tops[2 * at] = st.top[r];
        places.tops[2 * at + 1] = st.sum[r];
      }
      for_each_eight(st, r, v_scale, lane, [&](int d, const float(&v)[8]) {
        auto* to = reinterpret_cast<float4*>(places.sums + at * F::kDim + d);
        to[0] = {v[0], v[1], v[2], v[3]};
        to[1] = {v[4], v[5], v[6], v[7]};
      });
    } else {
      T* to = out + (tile.first_token + row / group) * out_stride +
              (kv_head * group + row % group) * F::kDim;
      for_each_eight(st, r, v_scale / st.sum[r], lane, [&](int d, const float(&v)[8]) {
        *reinterpret_cast<uint4*>(to + d) = {pack<T>(v[0], v[1]), pack<T>(v[2], v[3]),
                                             pack<T>(v[4], v[5]), pack<T>(v[6], v[7])};
      });
    }
  }
}

// Grid: tiles, KV heads, and with kSplit blocks of the context.
template <class F>
__global__ void __launch_bounds__(kWarps * 32, 2)
    attention_kernel__sm80(typename F::Value* out, int64_t out_stride, const typename F::Value* qkv,
                           int64_t stride, AttentionArgs a, Cache c, Places places) {
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, kv_head = blockIdx.y;
  const int group = a.heads / c.kv_heads;
  const Tile tile = tile_at<F::kSplit>(a, blockIdx.x, group);
  if (tile.sequence < 0) return;
  const int row0 = tile.first_row + (F::kSplit ? 0 : warp * kRows), rows = tile.tokens * group;
  if (row0 >= rows) return;
  const int before = tile.context - tile.tokens;  // keys before the first query
  int position[2];
  for (int r = 0; r < 2; ++r) position[r] = before + min(row0 + lane / 4 + r * 8, rows - 1) / group;
  const int last = before + min(row0 + kRows - 1, rows - 1) / group;
  const int first = a.window > 0 ? max(0, before + row0 / group - a.window + 1) / kStep : 0;
  const int steps = last / kStep + 1 - first;
  const int part = F::kSplit ? blockIdx.z * kWarps + warp : 0;
  const int begin = first + static_cast<int>(int64_t{steps} * part / places.parts);
  const int end = first + static_cast<int>(int64_t{steps} * (part + 1) / places.parts);

  State<F> st;
  if (begin < end) {
    load_query(st, qkv, stride, tile, row0, kv_head, group, lane);
    Keys keys = keys_at(a, c, tile, begin * kStep, last);
    load_keys(st, c, keys, kv_head, lane);
    load_values(st, c, keys, kv_head, lane);
    for (int step = begin; step < end; ++step) {
      float scores[2][4];
      uint32_t high[4], low[4];
      const bool more = step + 1 < end;
      if (more) keys = keys_at(a, c, tile, (step + 1) * kStep, last);
      scores_of(st, scores);
      if (more) load_keys(st, c, keys, kv_head, lane);
      weigh(st, a, c, scores, step * kStep, position, lane, high, low);
      add_values(st, high, low);
      if (more) load_values(st, c, keys, kv_head, lane);
    }
  }
  store(st, c, tile, places, out, out_stride, row0, kv_head, group, lane);
}

// A block per (token, head) of the short queries: thread d merges the parts.
template <class T>
__global__ void merge_parts(T* out, int64_t out_stride, AttentionArgs a, Cache c, Places places) {
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  const int group = a.heads / c.kv_heads, head = blockIdx.y, kv_head = head / group;
  const Tile tile = tile_at<true>(a, blockIdx.x, group);
  if (tile.sequence < 0) return;
  const int64_t first = (int64_t{blockIdx.x} * c.kv_heads + kv_head) * places.parts;
  for (int token = 0; token < tile.tokens; ++token) {
    const int row = token * group + head % group;
    float top = -FLT_MAX, sum = 0, value = 0;
    for (int p = 0; p < places.parts; ++p)
      top = fmaxf(top, places.tops[2 * ((first + p) * places.rows_max + row)]);
    for (int p = 0; p < places.parts; ++p) {
      const int64_t at = (first + p) * places.rows_max + row;
      const float weight = exp2f(places.tops[2 * at] - top);
      sum = fmaf(weight, places.tops[2 * at + 1], sum);
      value = fmaf(weight, places.sums[at * c.head_dim + threadIdx.x], value);
    }
    out[(tile.first_token + token) * out_stride + head * c.head_dim + threadIdx.x] =
        from_f32<T>(value / sum);
  }
}

// Blocks of the context: about four a multiprocessor in all, at least 64 keys for each warp.
int context_blocks(const AttentionCall& call) {
  const int64_t most = call.batch.block_table_stride * call.cache.page_tokens;
  const int tiles = call.batch.sequences * call.cache.kv_heads;
  const int wanted = (4 * multiprocessors() + tiles - 1) / tiles;
  return static_cast<int>(
      std::clamp<int64_t>(std::min<int64_t>(wanted, most / (kWarps * 64)), 1, 32));
}

template <class F>
void launch_kernel(const AttentionCall& call) {
  using T = typename F::Value;
  const cudaStream_t stream = call.queue.stream.get();
  const Cache& c = call.cache;
  const int group = call.group(), sequences = call.batch.sequences;
  const auto kv_heads = static_cast<unsigned>(c.kv_heads);
  T* out = reinterpret_cast<T*>(call.out.data);
  const auto* qkv = reinterpret_cast<const T*>(call.qkv.data);
  Places places{.parts = 1, .rows_max = kRows, .sums = nullptr, .tops = nullptr};
  LaunchShape shape{.grid = dim3(static_cast<unsigned>(sequences), kv_heads), .block = kWarps * 32};
  if constexpr (F::kSplit) {
    const int blocks = context_blocks(call);
    shape.grid.z = static_cast<unsigned>(blocks);
    places.parts = blocks * kWarps;
    places.rows_max = static_cast<int>(std::min<int64_t>(kRows, rows_of(call).most));
    const int64_t rows = int64_t{sequences} * c.kv_heads * places.parts * places.rows_max;
    places.sums = reinterpret_cast<float*>(call.queue.scratch(rows * (F::kDim + 2) * 4));
    places.tops = places.sums + rows * F::kDim;
  } else {
    shape.grid.x = static_cast<unsigned>(call.batch.tokens * group / (kRows * kWarps) + sequences);
  }
  launch("launching attention_sm80", attention_kernel__sm80<F>, shape, stream, out, call.out.stride,
         qkv, call.qkv.stride, call.args, c, places);
  if constexpr (F::kSplit) {
    launch("launching merge_parts", merge_parts<T>,
           {.grid = dim3(static_cast<unsigned>(sequences), static_cast<unsigned>(call.args.heads)),
            .block = F::kDim},
           stream, out, call.out.stride, call.args, c, places);
  }
}

template <class T, bool kCodes, int kDim>
void launch_both(const AttentionCall& call) {
  const RowBounds rows = rows_of(call);
  if (rows.most > kRows) launch_kernel<Format<T, kCodes, kDim, false>>(call);
  if (rows.least <= kRows) launch_kernel<Format<T, kCodes, kDim, true>>(call);
}

}  // namespace

bool try_attention_sm80(const AttentionCall& call) {
  const Cache& c = call.cache;
  const ConstView &qkv = call.qkv, &out = call.out;
  const bool codes = c.kind == CellKind::kE4M3, bf16 = *qkv.elem == kBF16;
  if (*qkv.elem == kF32 || (!codes && c.kind != CellKind::kRunDtype) || (codes && !bf16))
    return false;
  if ((c.head_dim != 64 && c.head_dim != 128) || c.page_tokens % kStep != 0) return false;
  if (qkv.stride % 4 != 0 || out.stride % 8 != 0 ||
      reinterpret_cast<uintptr_t>(out.data) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(qkv.data) % 8 != 0)
    return false;
  const bool wide = c.head_dim == 128;
  if (codes) {
    wide ? launch_both<__nv_bfloat16, true, 128>(call) : launch_both<__nv_bfloat16, true, 64>(call);
  } else if (bf16) {
    wide ? launch_both<__nv_bfloat16, false, 128>(call)
         : launch_both<__nv_bfloat16, false, 64>(call);
  } else {
    wide ? launch_both<__half, false, 128>(call) : launch_both<__half, false, 64>(call);
  }
  return true;
}

// Of partial results: blocks of a (sequence, KV head), context_blocks(), but for the last one, are
// no more than four a multiprocessor.
int64_t attention_scratch_bytes(const PassLimits& limits) {
  const int64_t blocks = limits.sequences * limits.kv.kv_heads + 4 * multiprocessors();
  return blocks * kWarps * kRows * (limits.kv.head_dim + 2) * 4;
}

}  // namespace mantissa::cuda
