// Attention of many queries over the paged cache, on Hopper's warp-group products. A persistent
// block takes tiles of 128 or 192 rows (query tokens x query heads of one KV head) from a common
// counter:
//
//   producer warp group   Q by a tensor map; K and V, 128 keys at a time, by a bulk copy per page
//                         (pages are stored as wgmma reads them), into rings of kStages tiles;
//                         8-bit codes become bf16 on the way
//   2 or 3 consumer groups   64 rows each: S = Q K^T, softmax in registers, O += P V
//
// A consumer issues the scores of the next keys before the values of these ones, so that its
// softmax runs beside a product; the groups take turns issuing, so that one's softmax runs beside
// the other's products. Keys go from the last to the first: the tiles that need a mask are the
// ends. docs/kernels/cuda-attention.md.
#include <algorithm>

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cell_decode.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace mantissa::cuda {
namespace {

constexpr int kStages = 2;
constexpr int kProducerBarrier = 1, kTurnBarrier = 2;  // kTurnBarrier + g: the turn of group g
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e37f;               // below every score
constexpr int64_t kSharedByHeads = 24ll << 20;  // K and V of tiles in flight: half of L2

template <class T, CellKind kKindOf, int kDimOf>
struct Format {
  using Value = T;
  static constexpr CellKind kKind = kKindOf;
  static constexpr bool kCodes = kKind != CellKind::kRunDtype;
  static constexpr int kDim = kDimOf;
  static constexpr int kGroups = kDim <= 64 && !kCodes ? 3 : 2;  // of consumers
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kKeys = kDim <= 128 ? 128 : 64;  // of a tile
  static constexpr int kRowBytes = kDim * 2;            // in shared memory
  static constexpr int kChunk = chunk_bytes_of(kRowBytes);
  static constexpr int kPages = kKeys / kSm90PageTokens;
  static constexpr int kTileBytes = kKeys * kRowBytes;
  static constexpr int kQueryBytes = kRows * kRowBytes;
  static constexpr int kOutCols = kDim <= 128 ? kDim : 128;  // that leave at once
  static constexpr int kOutBytes = kRows * kOutCols * 2;
  static constexpr int kScaleBytes = kCodes ? 2 * kStages * kKeys * 4 : 0;
  // Of a thread; all warp groups together have what the launch gave them.
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
  static constexpr int kProducerRegisters = kCodes ? 88 : kGroups == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters =
      (kLaunchRegisters * (kGroups + 1) - kProducerRegisters) / kGroups / 8 * 8;
};

template <class F>
constexpr int kPageBytes = kSm90PageTokens* F::kRowBytes;  // K or V of a page, in shared memory

template <class T>
struct Params {
  T* out;
  int64_t out_stride;
  AttentionArgs a;
  Cache c;
  int* tiles;      // AttentionState::prefill_tiles
  int token_box;   // tokens of a tile: F::rows / group
  bool short_too;  // rows that decode would take are here as well
};

// A tile: rows (token, head) of `tokens` tokens from `token` on, and the key tiles lo..hi they see.
struct Work {
  int sequence;  // -1: there is none left
  int kv_head, token, tokens;
  int position;  // of the first token
  int context, lo, hi;
};

template <class F>
struct Shared {
  unsigned char *query, *keys, *values, *out;
  float *k_scales, *v_scales;  // [kStages][kKeys]
  // work_full: the tile's record is there (racecheck does not follow it and reports its readers).
  uint64_t *work_full, *query_full, *query_empty, *keys_full, *keys_empty, *values_full,
      *values_empty;
  Work* work;
  static constexpr int kBytes = F::kQueryBytes + 2 * kStages * F::kTileBytes + F::kOutBytes +
                                F::kScaleBytes + (3 + 4 * kStages) * 8 + 64;
  __device__ explicit Shared(unsigned char* base)
      : query(base),
        keys(query + F::kQueryBytes),
        values(keys + kStages * F::kTileBytes),
        out(values + kStages * F::kTileBytes),
        k_scales(reinterpret_cast<float*>(out + F::kOutBytes)),
        v_scales(k_scales + F::kScaleBytes / 8),
        work_full(reinterpret_cast<uint64_t*>(k_scales + F::kScaleBytes / 4)),
        query_full(work_full + 1),
        query_empty(query_full + 1),
        keys_full(query_full + 2),
        keys_empty(keys_full + kStages),
        values_full(keys_empty + kStages),
        values_empty(values_full + kStages),
        work(reinterpret_cast<Work*>(values_empty + kStages)) {}
};

// Where a ring stands.
struct At {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// ---- the tiles

template <class T>
__device__ int tiles_of(const Params<T>& p, int s) {
  const int tokens = __ldg(p.a.query_start + s + 1) - __ldg(p.a.query_start + s);
  const int group = p.a.heads / p.c.kv_heads;
  if (tokens <= 0 || (!p.short_too && tokens * group <= kDecodeRows)) return 0;
  return (tokens + p.token_box - 1) / p.token_box;
}

// Tile `index` of sequence s: heads in sections whose K and V stay in L2, in a section the longest
// tiles first.
template <class F>
__device__ Work tile_of(const Params<typename F::Value>& p, int s, int tiles, int index) {
  const int context = __ldg(p.a.context_len + s), first = __ldg(p.a.query_start + s);
  const int tokens = __ldg(p.a.query_start + s + 1) - first;
  const int64_t head_bytes = int64_t{context} * p.c.row_bytes * 2;
  const int most =
      static_cast<int>(min(int64_t{p.c.kv_heads}, max(int64_t{1}, kSharedByHeads / head_bytes)));
  const int section = index / (tiles * most), in = index % (tiles * most);
  const int heads = min(most, p.c.kv_heads - section * most);
  const int tile = tiles - 1 - in / heads;
  Work w;
  w.sequence = s;
  w.kv_head = section * most + in % heads;
  w.token = first + tile * p.token_box;
  w.tokens = min(p.token_box, first + tokens - w.token);
  w.position = context - tokens + tile * p.token_box;
  w.context = context;
  w.lo = p.a.window > 0 ? max(0, w.position - p.a.window + 1) / F::kKeys : 0;
  w.hi = (w.position + w.tokens - 1) / F::kKeys;
  return w;
}

// All lanes of a warp.
template <class F>
__device__ Work find_tile(const Params<typename F::Value>& p, int index, int lane) {
  for (int base = 0; base < p.a.sequences; base += 32) {
    const int tiles = base + lane < p.a.sequences ? tiles_of(p, base + lane) : 0;
    int up_to = tiles * p.c.kv_heads;
    for (int step = 1; step < 32; step *= 2) {
      const int below = __shfl_up_sync(0xffffffffu, up_to, step);
      if (lane >= step) up_to += below;
    }
    const uint32_t holders = __ballot_sync(0xffffffffu, index < up_to);
    if (holders != 0) {
      const int owner = __ffs(static_cast<int>(holders)) - 1;
      const int before = __shfl_sync(0xffffffffu, up_to - tiles * p.c.kv_heads, owner);
      return tile_of<F>(p, base + owner, __shfl_sync(0xffffffffu, tiles, owner), index - before);
    }
    index -= __shfl_sync(0xffffffffu, up_to, 31);
  }
  return {-1, 0, 0, 0, 0, 0, 0, 0};
}

// ---- the producer

// Pages of key tile `tile`: lane i has the i-th page's place of this head; nullptr beyond the
// context.
template <class F>
__device__ const unsigned char* page_of(const Params<typename F::Value>& p, const Work& w, int tile,
                                        int i) {
  const int page = tile * F::kPages + i;
  if (i >= F::kPages || page * kSm90PageTokens >= w.context) return nullptr;
  const int64_t id = __ldg(p.a.block_table + w.sequence * p.a.block_table_stride + page);
  return p.c.pages + id * p.c.page_bytes + w.kv_head * p.c.head_bytes;
}

template <class F>
__device__ void load_keys(const Shared<F>& sh, const At& at, const unsigned char* page, int lane) {
  ptx::mbarrier_wait(&sh.keys_empty[at.stage], at.parity ^ 1);
  const uint32_t pages = __ballot_sync(0xffffffffu, page != nullptr);
  if (lane == 0) ptx::mbarrier_expect_bytes(&sh.keys_full[at.stage], __popc(pages) * kPageBytes<F>);
  __syncwarp();  // the bytes are expected
  if (page != nullptr) {
    ptx::bulk_load(sh.keys + at.stage * F::kTileBytes + lane * kPageBytes<F>, page, kPageBytes<F>,
                   &sh.keys_full[at.stage]);
  }
}

// Values beyond the context are zeros: the page may hold NaN there, which no weight takes away.
template <class F>
__device__ void load_values(const Shared<F>& sh, const At& at, const unsigned char* page, int keys,
                            int lane) {
  ptx::mbarrier_wait(&sh.values_empty[at.stage], at.parity ^ 1);
  unsigned char* to = sh.values + at.stage * F::kTileBytes;
  const int whole = min(keys / kSm90PageTokens, F::kPages);
  if (whole < F::kPages) {
    const auto last = reinterpret_cast<const unsigned char*>(
        __shfl_sync(0xffffffffu, reinterpret_cast<uint64_t>(page), whole));
    for (int i = whole * kPageBytes<F> + lane * 16; i < F::kTileBytes; i += 32 * 16) {
      const int in = i % kPageBytes<F>;  // the swizzle keeps rows within rows
      const int row = in / (8 * F::kRowBytes) * 8 + in % (8 * F::kChunk) / F::kChunk;
      const bool inside = i / kPageBytes<F> * kSm90PageTokens + row < keys;
      *reinterpret_cast<uint4*>(to + i) =
          inside ? *reinterpret_cast<const uint4*>(last + kPageBytes<F> + in)
                 : make_uint4(0, 0, 0, 0);
    }
    ptx::fence_async_shared();
    __syncwarp();  // every lane's stores are visible to the tensor cores
  }
  if (lane == 0) ptx::mbarrier_expect_bytes(&sh.values_full[at.stage], whole * kPageBytes<F>);
  __syncwarp();  // the bytes are expected
  if (lane < whole) {
    ptx::bulk_load(to + lane * kPageBytes<F>, page + kPageBytes<F>, kPageBytes<F>,
                   &sh.values_full[at.stage]);
  }
}

template <class F>
__device__ void load_query(const Shared<F>& sh, const Params<typename F::Value>& p,
                           const CUtensorMap& map, const Work& w) {
  const int group = p.a.heads / p.c.kv_heads;
  ptx::mbarrier_expect_bytes(sh.query_full, p.token_box * group * F::kRowBytes);
  for (int i = 0; i < F::kRowBytes / F::kChunk; ++i) {
    ptx::tensor_load_3d(sh.query + i * F::kRows * F::kChunk, &map,
                        {i * F::kChunk / 2, w.kv_head * group, w.token}, sh.query_full);
  }
}

// The next tile's index, known to all lanes.
template <class T>
__device__ int next_tile(const Params<T>& p, int lane) {
  int index = 0;
  if (lane == 0) index = static_cast<int>(gridDim.x) + atomicAdd(p.tiles, 1);
  return __shfl_sync(0xffffffffu, index, 0);
}
// The last block to come here leaves the counters as it found them.
template <class T>
__device__ void reset_tiles(const Params<T>& p) {
  if (atomicAdd(p.tiles + 1, 1) != static_cast<int>(gridDim.x) - 1) return;
  p.tiles[0] = 0;
  p.tiles[1] = 0;
}

// One warp.
template <class F>
__device__ void produce(const Shared<F>& sh, const Params<typename F::Value>& p,
                        const CUtensorMap& map, int lane) {
  At at;
  uint32_t query_parity = 1;
  int index = static_cast<int>(blockIdx.x);
  for (;;) {
    const Work w = find_tile<F>(p, index, lane);
    ptx::mbarrier_wait(sh.query_empty, query_parity);
    query_parity ^= 1;
    if (lane == 0) {
      *sh.work = w;
      ptx::mbarrier_arrive(sh.work_full);
      if (w.sequence < 0) {
        reset_tiles(p);
      } else {
        load_query(sh, p, map, w);
      }
    }
    if (w.sequence < 0) return;
    index = next_tile(p, lane);
    const unsigned char* page = page_of<F>(p, w, w.hi, lane);
    for (int tile = w.hi; tile >= w.lo; --tile) {
      const unsigned char* now = page;
      if (tile > w.lo) page = page_of<F>(p, w, tile - 1, lane);
      load_keys(sh, at, now, lane);
      load_values(sh, at, now, w.context - tile * F::kKeys, lane);
      at.advance();
    }
  }
}

// ---- the producer of codes: four warps; a thread has 16 codes of one row in each pass

template <class F>
struct CodePieces {
  static constexpr int kPerRow = F::kDim / 16;
  static constexpr int kPassRows = 128 / kPerRow / 8 * 8;
  static constexpr int kCount = F::kKeys / kPassRows;
  uint4 codes[kCount];
  static __device__ int row() { return static_cast<int>(threadIdx.x) % 128 / kPerRow; }
  static __device__ int piece() { return static_cast<int>(threadIdx.x) % 128 % kPerRow; }
};

template <class F>
__device__ void read_codes(CodePieces<F>& c, const Params<typename F::Value>& p, const Work& w,
                           int tile, bool values) {
  using Pieces = CodePieces<F>;
#pragma unroll
  for (int i = 0; i < Pieces::kCount; ++i) {
    const int row = i * Pieces::kPassRows + Pieces::row();
    c.codes[i] = make_uint4(0, 0, 0, 0);
    if (Pieces::row() >= Pieces::kPassRows || tile * F::kKeys + row >= w.context) continue;
    const unsigned char* half =
        page_of<F>(p, w, tile, row / kSm90PageTokens) + (values ? p.c.half_bytes : 0);
    c.codes[i] = ptx::load_streamed(half + swizzled(row % kSm90PageTokens, Pieces::piece() * 16,
                                                    F::kDim, chunk_bytes_of(F::kDim)));
  }
}
template <class F>
__device__ void write_tile(const CodePieces<F>& c, unsigned char* to) {
  using Pieces = CodePieces<F>;
  if (Pieces::row() >= Pieces::kPassRows) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    unsigned char* at =
        to + swizzled(Pieces::row(), Pieces::piece() * 32 + half * 16, F::kRowBytes, F::kChunk);
#pragma unroll
    for (int i = 0; i < Pieces::kCount; ++i) {
      const uint4& v = c.codes[i];
      const uint32_t a = half == 0 ? v.x : v.z, b = half == 0 ? v.y : v.w;
      *reinterpret_cast<uint4*>(at + i * Pieces::kPassRows * F::kRowBytes) =
          make_uint4(decode_lower<F::kKind>(a), decode_upper<F::kKind>(a),
                     decode_lower<F::kKind>(b), decode_upper<F::kKind>(b));
    }
  }
}
// K's or V's scale of this thread's key; 0 beyond the context.
template <class F>
__device__ float read_scale(const Params<typename F::Value>& p, const Work& w, int tile,
                            bool values) {
  const int key = static_cast<int>(threadIdx.x) % 128;
  if (key >= F::kKeys || tile * F::kKeys + key >= w.context) return 0;
  if (!p.c.scaled) return values ? p.c.v_scale : p.c.k_scale;
  const auto* scales = reinterpret_cast<const float*>(
      page_of<F>(p, w, tile, key / kSm90PageTokens) + 2 * p.c.half_bytes);
  return __ldg(scales + (values ? kSm90PageTokens : 0) + key % kSm90PageTokens);
}

template <class F>
__device__ void put_tile(const CodePieces<F>& c, float scale, unsigned char* to, float* scales,
                         uint64_t* full) {
  write_tile(c, to);
  if (threadIdx.x % 128 < F::kKeys) scales[threadIdx.x % 128] = scale;
  ptx::fence_async_shared();  // codes are for the tensor cores, scales for ordinary loads
  ptx::mbarrier_arrive(full);
}

// Four warps.
template <class F>
__device__ void produce_codes(const Shared<F>& sh, const Params<typename F::Value>& p,
                              const CUtensorMap& map, int lane) {
  At at;
  uint32_t query_parity = 1;
  int index = static_cast<int>(blockIdx.x);
  const bool leads = threadIdx.x % 128 < 32;
  for (;;) {
    if (leads) {
      const Work w = find_tile<F>(p, index, lane);
      ptx::mbarrier_wait(sh.query_empty, query_parity);
      query_parity ^= 1;
      if (lane == 0) {
        *sh.work = w;
        ptx::mbarrier_arrive(sh.work_full);
        if (w.sequence < 0) {
          reset_tiles(p);
        } else {
          load_query(sh, p, map, w);
        }
      }
      if (w.sequence >= 0) index = next_tile(p, lane);
    }
    ptx::named_barrier(kProducerBarrier, 128);  // *sh.work is this tile
    const Work w = *sh.work;
    if (w.sequence < 0) return;
    CodePieces<F> codes;
    read_codes(codes, p, w, w.hi, false);
    for (int tile = w.hi; tile >= w.lo; --tile) {
      float scale = read_scale<F>(p, w, tile, false);
      ptx::mbarrier_wait(&sh.keys_empty[at.stage], at.parity ^ 1);
      put_tile(codes, scale, sh.keys + at.stage * F::kTileBytes, sh.k_scales + at.stage * F::kKeys,
               &sh.keys_full[at.stage]);
      read_codes(codes, p, w, tile, true);
      scale = read_scale<F>(p, w, tile, true);
      ptx::mbarrier_wait(&sh.values_empty[at.stage], at.parity ^ 1);
      put_tile(codes, scale, sh.values + at.stage * F::kTileBytes,
               sh.v_scales + at.stage * F::kKeys, &sh.values_full[at.stage]);
      if (tile > w.lo) read_codes(codes, p, w, tile - 1, false);
      at.advance();
    }
    ptx::named_barrier(kProducerBarrier, 128);  // everyone has read *sh.work
  }
}

// ---- the consumers

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

// One arrival a warp group for what only wgmma read; one a thread where it read scales itself.
template <class F>
__device__ void release(uint64_t* empty) {
  if (F::kCodes || threadIdx.x % 128 == 0) ptx::mbarrier_arrive(empty);
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
  __syncwarp();  // every lane has read the work
  if (lane == 0) ptx::mbarrier_arrive(sh.query_empty);
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
    const int writers = F::kCodes ? 128 : 1, readers = F::kGroups * (F::kCodes ? 128 : 1);
    ptx::tensor_prefetch(&query);
    ptx::mbarrier_init(sh.work_full, 1);
    ptx::mbarrier_init(sh.query_full, 1);
    ptx::mbarrier_init(sh.query_empty, F::kGroups * 4);  // a warp each
    for (int s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(&sh.keys_full[s], writers);
      ptx::mbarrier_init(&sh.keys_empty[s], readers);
      ptx::mbarrier_init(&sh.values_full[s], writers);
      ptx::mbarrier_init(&sh.values_empty[s], readers);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();  // the barriers exist
  ptx::grid_dependency_wait();
  ptx::grid_dependency_launch();
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  if (group == F::kGroups) {
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
  static const bool configured = [] {
    cuda_check(cudaFuncSetAttribute(attention_prefill_kernel__sm90<F>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
               "giving attention its shared memory");
    return true;
  }();
  (void)configured;
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
