// Attention of the layers' kernel (decode_layers.cuh): a block has a KV head, or a part of its
// context. Pages come through the ring, before q is known.
#pragma once

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/decode_layers_block.cuh"
#include "kernels/cuda/layer_math.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/row_exchange.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kSplitPages = 16;  // of a block in attention, at least, before heads are split
constexpr int kGroupMax = 8;     // query heads of a KV head

// ---- attention: which block has which pages

__device__ Pages pages_of(const DecodeCommon& d, int window, int context) {
  const int heads = d.cache.kv_heads;
  Pages p{};
  p.context = context;
  p.begin = window > 0 ? max(0, context - window) / kKeys : 0;
  const int pages = (context + kKeys - 1) / kKeys - p.begin;
  p.splits = max(1, min(static_cast<int>(gridDim.x) / heads, pages / kSplitPages));
  p.split = static_cast<int>(blockIdx.x) / heads;
  p.head = static_cast<int>(blockIdx.x) % heads;
  if (p.split >= p.splits) return p;
  p.first = p.begin + pages * p.split / p.splits;
  p.count = p.begin + pages * (p.split + 1) / p.splits - p.first;
  return p;
}
__device__ int pages_a_stage(const DecodeCommon& d, const Ring& ring) {
  return min(kMultiplyWarps, ring.stage_bytes / d.cache.head_bytes);
}

// The loading warp: the block's pages, a stage's worth at a time; lane i moves page i.
__device__ void produce_pages(const DecodeCommon& d, unsigned char* cache, const Ring& ring,
                              unsigned char* shared, const RingBarriers& barriers, const Pages& p,
                              LoadCursor& at) {
  const int lane = static_cast<int>(threadIdx.x) % 32, each = pages_a_stage(d, ring);
  for (int i = 0; i < p.count; i += each) {
    const int count = min(each, p.count - i);
    at.claim(ring, barriers.full, barriers.empty);
    if (lane == 0) ptx::mbarrier_expect_bytes(barriers.full + at.slot, count * d.cache.head_bytes);
    __syncwarp();  // the bytes are expected
    if (lane < count) {
      const int64_t page = __ldg(d.attention.block_table + p.first + i + lane);
      ptx::bulk_load(shared + at.slot * ring.stage_bytes + lane * d.cache.head_bytes,
                     cache + page * d.cache.page_bytes + p.head * d.cache.head_bytes,
                     d.cache.head_bytes, barriers.full + at.slot);
    }
    at.next_stage(ring);
  }
}

// ---- attention: by the warps that multiply

template <class A>
struct AttentionWork {
  const DecodeCommon& d;
  const DecodePlan& plan;
  unsigned char *shared, *cache;
  const Pages& p;
  int thread;

  __device__ int group() const { return d.attention.heads / d.cache.kv_heads; }
  __device__ __nv_bfloat16* query() const {
    return reinterpret_cast<__nv_bfloat16*>(shared + plan.query);
  }
  __device__ float2 turn(int pair) const {
    return reinterpret_cast<const float2*>(shared + plan.turn)[pair];
  }
  // The group's queries, then K and V of the new token: [group + 2][D], queries and K rotated.
  // `row`: the layer's q, k, v, of which a thread waits for what it rotates.
  __device__ void stage_heads(const uint32_t* row) const {
    constexpr int kHeadUnits = A::kDim / kUnitCols, kPairs = kHeadUnits / 2;
    const int i = thread, of = i / kPairs, pair = i % kPairs;
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // nobody reads x any more
    if (of < group() + 2) {
      const int head = of < group()    ? p.head * group() + of
                       : of == group() ? d.attention.heads + p.head
                                       : d.attention.heads + d.cache.kv_heads + p.head;
      // Units 0.. are rotated with those half a rotation further on; what follows is as it is.
      const int turning = of <= group() ? d.rope_half / kUnitCols : 0;
      const int first = pair < turning ? pair : 2 * pair;
      const int second = pair < turning ? pair + turning : 2 * pair + 1;
      const auto* from = reinterpret_cast<const uint4*>(row) + head * kHeadUnits;
      uint4 u, v;
      do {
        u = ptx::load_relaxed(from + first);
        v = ptx::load_relaxed(from + second);
      } while (!is_there(u) || !is_there(v));
      if (pair < turning) turn_units(u, v, pair * kUnitCols);
      auto* to = reinterpret_cast<uint4*>(query()) + of * kHeadUnits;
      to[first] = u;
      to[second] = v;
    }
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // they are there
  }
  __device__ void turn_units(uint4& u, uint4& v, int first_pair) const {
    float a[kUnitCols], b[kUnitCols];
    unpack<__nv_bfloat16>(a, u);
    unpack<__nv_bfloat16>(b, v);
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i) {
      const float2 uv = turned(a[i], b[i], turn(first_pair + i));
      a[i] = uv.x;
      b[i] = uv.y;
    }
    u = pack<__nv_bfloat16>(a);
    v = pack<__nv_bfloat16>(b);
  }

  // The token of this pass: its K and V to the cache, and into the stage, which was read before
  // they were there. A warp.
  __device__ void add_token(unsigned char* stage, int slot, int lane) const {
    const int offset = slot % kKeys;
    unsigned char* page =
        cache + int64_t{slot / kKeys} * d.cache.page_bytes + p.head * d.cache.head_bytes;
    constexpr int kHeadUnits = A::kDim / kUnitCols;
    const auto* values = reinterpret_cast<const uint4*>(query() + group() * A::kDim);
    for (int i = lane; i < 2 * kHeadUnits; i += 32) {
      const int at = i / kHeadUnits * A::kHalfBytes +
                     swizzled(offset, i % kHeadUnits * 16, A::kRowBytes, A::kChunk);
      *reinterpret_cast<uint4*>(page + at) = values[i];
      *reinterpret_cast<uint4*>(stage + at) = values[i];
    }
    ptx::fence_async_shared();  // before the copy engine writes there again
    __syncwarp();               // the row is there
  }
};

// Four columns of a head, merged, to the attended row.
__device__ void exchange_four(const DecodeCommon& d, int layer, int head, int col,
                              const Merged& m) {
  const float factor = d.cache.v_scale / m.sum;
  const uint2 words =
      make_uint2(bits_of(__floats2bfloat162_rn(m.value.x * factor, m.value.y * factor)),
                 bits_of(__floats2bfloat162_rn(m.value.z * factor, m.value.w * factor)));
  uint32_t* to = d.rows.row(layer, kAttendedRow) + (head * d.cache.head_dim + col) / 2;
  exchange(d.rows, reinterpret_cast<uint2*>(to), layer, words);
}

// The parts of all warps, then of all splits -> the attended row of the block's heads.
template <class A>
__device__ void merge_heads(const AttentionWork<A>& w, int layer, int warps, int* last) {
  const DecodeCommon& d = w.d;
  const int rows = w.group();
  const auto* sums = reinterpret_cast<const float*>(w.shared + w.plan.merge);
  const float* tops = sums + kMultiplyWarps * rows * A::kMergeStride;
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's results are there
  const auto slot = [&](int split) { return (w.p.head * w.p.splits + split) * kDecodeRows; };
  for (int i = w.thread; i < rows * (A::kDim / 4); i += kMultiplyThreads) {
    const int row = i / (A::kDim / 4), col = i % (A::kDim / 4) * 4;
    const Merged m = merge_parts(
        warps,
        [&](int part) { return *reinterpret_cast<const float2*>(tops + (part * rows + row) * 2); },
        [&](int part) {
          return *reinterpret_cast<const float4*>(sums + (part * rows + row) * A::kMergeStride +
                                                  col);
        });
    if (w.p.splits == 1) {
      exchange_four(d, layer, w.p.head * rows + row, col, m);
      continue;
    }
    const int to = slot(w.p.split) + row;
    if (col == 0) reinterpret_cast<float2*>(d.part_tops)[to] = make_float2(m.top, m.sum);
    *reinterpret_cast<float4*>(d.part_sums + int64_t{to} * A::kDim + col) = m.value;
  }
  if (w.p.splits == 1) return;
  __threadfence();
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // the block's part is written
  if (w.thread == 0) {
    *last = atomicAdd(d.part_arrivals + w.p.head, 1) == w.p.splits - 1;
    if (*last) d.part_arrivals[w.p.head] = 0;
    __threadfence();
  }
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // *last is known
  if (!*last) return;
  for (int i = w.thread; i < rows * (A::kDim / 4); i += kMultiplyThreads) {
    const int row = i / (A::kDim / 4), col = i % (A::kDim / 4) * 4;
    const Merged m = merge_parts(
        w.p.splits,
        [&](int part) {
          return __ldcg(reinterpret_cast<const float2*>(d.part_tops) + slot(part) + row);
        },
        [&](int part) {
          return __ldcg(reinterpret_cast<const float4*>(d.part_sums +
                                                        int64_t{slot(part) + row} * A::kDim + col));
        });
    exchange_four(d, layer, w.p.head * rows + row, col, m);
  }
}

// Waits for a word of every tile of a row that the block does not need. Only where it stores words
// of a later row of the layer, so that these are not cleared meanwhile (row_exchange.cuh).
__device__ void see_row(const uint32_t* row, int tiles, int thread) {
  const auto* first = reinterpret_cast<const uint4*>(row);
  constexpr int kTileUnits = kRows / kUnitCols;
  for (int tile = thread; tile < tiles; tile += kMultiplyThreads) {
    while (!is_there(ptx::load_relaxed(first + tile * kTileUnits))) {
    }
  }
  __syncwarp();  // all of its words
}

template <class A, class F>
__device__ void attend(const Block<F>& b, int layer, RingCursor& at, Kept& kept) {
  const DecodeCommon& d = b.d;
  const int thread = static_cast<int>(threadIdx.x) + b.known.zero, warp = thread / 32;
  const int lane = thread % 32;
  // A layer's parameters come late.
  const int window = b.plan.one_window ? b.known.window : b.layer(layer).window;
  const Pages p = b.plan.one_window ? b.known.pages : pages_of(d, window, b.known.context);
  const uint32_t* row = d.rows.row(layer, kDecodeQkv);
  if (p.count == 0) {
    if (kept.count > 0 && b.share(kDecodeOut).count > 0)
      see_row(row, d.roles[kDecodeQkv].n / kRows, thread);
    return kept.release(b.plan.ring, b.barriers);
  }
  const AttentionWork<A> work{d, b.plan, b.shared, b.layer(layer).pages, p, thread};
  work.stage_heads(row);
  kept.release(b.plan.ring, b.barriers);
  PageCursor cursor{0, 0, 0, {1, p.context, p.begin, 0}};
  DecodeParams<__nv_bfloat16> params{.out = nullptr,  // merge_heads stores
                                     .out_stride = 0,
                                     .qkv = work.query(),
                                     .stride = 0,
                                     .a = d.attention,
                                     .c = d.cache,
                                     .state = {}};
  params.a.window = window;
  DecodeState<A> st;
  load_query(st, params, cursor, lane);
  const int each = pages_a_stage(d, b.plan.ring), new_page = (p.context - 1) / kKeys;
  for (int i = 0; i < p.count; i += each) {
    ptx::mbarrier_wait(b.barriers.full + at.slot, at.parity);
    // The warp's page of this stage, if it has one: warps take pages by turns.
    const int in = (warp - i % kMultiplyWarps + kMultiplyWarps) % kMultiplyWarps, page = i + in;
    if (in < each && page < p.count) {
      unsigned char* stage = b.shared + at.slot * b.plan.ring.stage_bytes + in * d.cache.head_bytes;
      if (p.first + page == new_page) work.add_token(stage, b.known.slot, lane);
      add_page(st, params, cursor, p.first - p.begin + page, stage, lane);
    }
    ptx::mbarrier_arrive(b.barriers.empty + at.slot);  // the lane has read the stage
    at.next_stage(b.plan.ring);
  }
  const int rows = work.group();
  float* merge = reinterpret_cast<float*>(b.shared + b.plan.merge);
  leave_results(st, merge + warp * rows * A::kMergeStride,
                merge + kMultiplyWarps * rows * A::kMergeStride + warp * rows * 2, rows, lane);
  merge_heads(work, layer, min(kMultiplyWarps, p.count),
              reinterpret_cast<int*>(b.shared + b.plan.x_scale) + 1);
  // Limbs of the next row come where parts were, by each warp as soon as it has the row.
  if (F::kLimbs > 0) ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);
}

}  // namespace
}  // namespace mantissa::cuda
