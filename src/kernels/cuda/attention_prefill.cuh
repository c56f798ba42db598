// Prefill attention's tiles and producers (attention_prefill_sm90.cu has the kernel): which rows
// and keys a block takes next, and the warps that bring queries, keys and values to shared memory.
#pragma once

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cell_decode.cuh"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/ptx.cuh"

namespace mantissa::cuda::prefill {

constexpr int kStages = 2;
constexpr int kProducerBarrier = 1;             // all of them; and up: a group has written a tile
constexpr int64_t kSharedByHeads = 24ll << 20;  // K and V of tiles in flight: half of L2

template <class T, CellKind kKindOf, int kDimOf>
struct Format {
  using Value = T;
  static constexpr CellKind kKind = kKindOf;
  static constexpr bool kCodes = kKind != CellKind::kRunDtype;
  static constexpr int kDim = kDimOf;
  static constexpr int kGroups = kDim <= 64 && !kCodes ? 3 : 2;  // of consumers
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kProducers = kCodes && kDim <= 128 ? 2 : 1;  // warp groups
  static constexpr int kThreads = 128 * (kGroups + kProducers);
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
  static constexpr int kProducerRegisters = kProducers == 2 ? 56
                                            : kCodes        ? 88
                                            : kGroups == 2  ? 40
                                                            : 32;
  static constexpr int kConsumerRegisters =
      (kLaunchRegisters * (kGroups + kProducers) - kProducerRegisters * kProducers) / kGroups / 8 *
      8;
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
  // work_full: the tile's record is there. query_empty: every thread has read it (racecheck follows
  // no arrival for other lanes), and wgmma the queries.
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
  __device__ void advance() { ptx::next_stage(stage, parity, kStages); }
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
    const Holder h = holder_of(index, tiles * p.c.kv_heads);
    index -= h.before;
    if (h.lane >= 0)
      return tile_of<F>(p, base + h.lane, __shfl_sync(0xffffffffu, tiles, h.lane), index);
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

// One warp: tile `index` to *sh.work, once nobody reads the one before, and its queries; after the
// last tile, the counters.
template <class F>
__device__ Work begin_tile(const Shared<F>& sh, const Params<typename F::Value>& p,
                           const CUtensorMap& map, int index, uint32_t& query_parity, int lane) {
  const Work w = find_tile<F>(p, index, lane);
  ptx::mbarrier_wait(sh.query_empty, query_parity);
  query_parity ^= 1;
  if (lane != 0) return w;
  *sh.work = w;
  ptx::mbarrier_arrive(sh.work_full);
  if (w.sequence < 0) {
    reset_tiles(p);
  } else {
    load_query(sh, p, map, w);
  }
  return w;
}

// One warp.
template <class F>
__device__ void produce(const Shared<F>& sh, const Params<typename F::Value>& p,
                        const CUtensorMap& map, int lane) {
  At at;
  uint32_t query_parity = 1;
  int index = static_cast<int>(blockIdx.x);
  for (;;) {
    const Work w = begin_tile(sh, p, map, index, query_parity, lane);
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

// ---- the producers of codes. A thread has 16 codes of one row in each pass, and half of a tile's
// on their way while it turns the other half into bf16.

__device__ inline const unsigned char* from_lane(const unsigned char* of_lane, int lane) {
  return reinterpret_cast<const unsigned char*>(
      __shfl_sync(0xffffffffu, reinterpret_cast<uint64_t>(of_lane), lane));
}

template <class F>
struct CodePieces {
  static constexpr int kPerRow = F::kDim / 16;
  static constexpr int kPassRows = 128 / kPerRow / 8 * 8;
  static constexpr int kCount = F::kKeys / kPassRows / 2;  // of a half
  static_assert(kCount * kPassRows * 2 == F::kKeys);
  uint4 codes[kCount];
  static __device__ int row() { return static_cast<int>(threadIdx.x) % 128 / kPerRow; }
  static __device__ int piece() { return static_cast<int>(threadIdx.x) % 128 % kPerRow; }
};

// pages: page_of() of this tile's pages, one a lane.
template <class F>
__device__ void read_codes(CodePieces<F>& c, const Params<typename F::Value>& p, const Work& w,
                           int tile, int half, bool values, const unsigned char* pages) {
  using Pieces = CodePieces<F>;
#pragma unroll
  for (int i = 0; i < Pieces::kCount; ++i) {
    const int row = (half * Pieces::kCount + i) * Pieces::kPassRows + Pieces::row();
    const unsigned char* from = from_lane(pages, row / kSm90PageTokens % F::kPages);
    c.codes[i] = make_uint4(0, 0, 0, 0);
    if (Pieces::row() >= Pieces::kPassRows || tile * F::kKeys + row >= w.context) continue;
    c.codes[i] = ptx::load_streamed(
        from + (values ? p.c.half_bytes : 0) +
        swizzled(row % kSm90PageTokens, Pieces::piece() * 16, F::kDim, chunk_bytes_of(F::kDim)));
  }
}
template <class F>
__device__ void write_codes(const CodePieces<F>& c, unsigned char* to, int half) {
  using Pieces = CodePieces<F>;
  if (Pieces::row() >= Pieces::kPassRows) return;
  to += half * Pieces::kCount * Pieces::kPassRows * F::kRowBytes;
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    unsigned char* at =
        to + swizzled(Pieces::row(), Pieces::piece() * 32 + side * 16, F::kRowBytes, F::kChunk);
#pragma unroll
    for (int i = 0; i < Pieces::kCount; ++i) {
      const uint4& v = c.codes[i];
      const uint32_t a = side == 0 ? v.x : v.z, b = side == 0 ? v.y : v.w;
      *reinterpret_cast<uint4*>(at + i * Pieces::kPassRows * F::kRowBytes) =
          make_uint4(decode_lower<F::kKind>(a), decode_upper<F::kKind>(a),
                     decode_lower<F::kKind>(b), decode_upper<F::kKind>(b));
    }
  }
}
// K's or V's scale of this thread's key; 0 beyond the context.
template <class F>
__device__ float read_scale(const Params<typename F::Value>& p, const Work& w, int tile,
                            bool values, const unsigned char* pages) {
  const int key = static_cast<int>(threadIdx.x) % 128;
  const unsigned char* page = from_lane(pages, key / kSm90PageTokens % F::kPages);
  if (key >= F::kKeys || tile * F::kKeys + key >= w.context) return 0;
  if (!p.c.scaled) return values ? p.c.v_scale : p.c.k_scale;
  const auto* scales = reinterpret_cast<const float*>(page + 2 * p.c.half_bytes);
  return __ldg(scales + (values ? kSm90PageTokens : 0) + key % kSm90PageTokens);
}

// K or V, tile after tile, the last first; by a warp group.
template <class F>
struct CodeStream {
  const Params<typename F::Value>& p;
  const Work& w;
  unsigned char* tiles;
  float* scales;
  uint64_t *full, *empty;
  bool values;
  const unsigned char* pages;  // of the tile that put() takes next
  CodePieces<F> now;           // its first half

  __device__ CodeStream(const Shared<F>& sh, const Params<typename F::Value>& params,
                        const Work& work, bool of_values)
      : p(params),
        w(work),
        tiles(of_values ? sh.values : sh.keys),
        scales(of_values ? sh.v_scales : sh.k_scales),
        full(of_values ? sh.values_full : sh.keys_full),
        empty(of_values ? sh.values_empty : sh.keys_empty),
        values(of_values),
        pages(pages_of(w.hi)) {
    read_codes(now, p, w, w.hi, 0, values, pages);
  }
  __device__ void put(int tile, const At& at) {
    const int key = static_cast<int>(threadIdx.x) % 128;
    CodePieces<F> other;
    read_codes(other, p, w, tile, 1, values, pages);
    const float scale = read_scale<F>(p, w, tile, values, pages);
    if (tile > w.lo) pages = pages_of(tile - 1);
    ptx::mbarrier_wait(&empty[at.stage], at.parity ^ 1);
    unsigned char* const to = tiles + at.stage * F::kTileBytes;
    write_codes(now, to, 0);
    if (tile > w.lo) read_codes(now, p, w, tile - 1, 0, values, pages);
    write_codes(other, to, 1);
    if (key < F::kKeys) scales[at.stage * F::kKeys + key] = scale;
    ptx::fence_async_shared();  // codes are for the tensor cores, scales for ordinary loads
    ptx::named_barrier(kProducerBarrier + 1 + (values ? 1 : 0), 128);
    if (key == 0) ptx::mbarrier_arrive(&full[at.stage]);
  }

 private:
  __device__ const unsigned char* pages_of(int tile) const {
    return page_of<F>(p, w, tile, static_cast<int>(threadIdx.x) % 32);
  }
};

// All producers.
template <class F>
__device__ void produce_codes(const Shared<F>& sh, const Params<typename F::Value>& p,
                              const CUtensorMap& map, int lane) {
  At at;
  uint32_t query_parity = 1;
  int index = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x) - F::kGroups * 128;
  for (;;) {
    if (thread < 32) {
      const Work w = begin_tile(sh, p, map, index, query_parity, lane);
      if (w.sequence >= 0) index = next_tile(p, lane);
    }
    ptx::named_barrier(kProducerBarrier, F::kProducers * 128);  // *sh.work is this tile
    const Work w = *sh.work;
    if (w.sequence < 0) return;
    if constexpr (F::kProducers == 2) {
      CodeStream<F> stream(sh, p, w, thread >= 128);
      for (int tile = w.hi; tile >= w.lo; --tile, at.advance()) stream.put(tile, at);
    } else {
      CodeStream<F> keys(sh, p, w, false), values(sh, p, w, true);
      for (int tile = w.hi; tile >= w.lo; --tile, at.advance()) {
        keys.put(tile, at);
        values.put(tile, at);
      }
    }
    ptx::named_barrier(kProducerBarrier, F::kProducers * 128);  // everyone has read *sh.work
  }
}

}  // namespace mantissa::cuda::prefill
