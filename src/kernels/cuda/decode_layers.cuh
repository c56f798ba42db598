// All layers of one token's pass in one persistent kernel: a block on every multiprocessor, whose
// copies of weights (and of K and V) never stop at the end of an operation.
// docs/kernels/cuda-decode.md.
//
//   1 warp     streams the block's tiles of qkv, its pages of K and V, its tiles of out, gate_up,
//              down, then the next layer's, into one ring: it waits for room, never for activations
//   8 warps    norm or read the row that the other blocks made, quantize it, multiply; attention
//   1 warp     adds parts up, applies scales, bias, residual and gate, stores, tells the other
//   blocks
//
// Every linear needs all of the row before it, so operations are separated by barriers of the grid
// (an arrival of each block at one counter); norms and quantization are done by every block for
// itself. Values are rounded where separate operations round them, and summed in the same order.
#pragma once

#include <algorithm>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/decode_layers.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layer_math.cuh"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/weight_ring.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kUnitsMax = 8;  // of 8 columns, of a thread: rows of up to 16384
constexpr int kRowMax = kUnitsMax * kMultiplyThreads * kUnitCols;
constexpr int kSplitPages = 16;  // of a block in attention, at least, before heads are split
constexpr int kInFlight = 2;     // stages: two cover the memory's latency at its full rate
constexpr int kGroupMax = 8;     // query heads of a KV head
constexpr uint32_t kMultiplyBarrier = 1;

// What the launcher works out.
struct RolePlan {
  Plan plan;
  int piece, pieces;
};
struct DecodePlan {
  Ring ring;
  RolePlan roles[kDecodeLinears];
  int query, merge, turn, fold, layers, known, x_scale;  // bytes: where these lie in shared memory
};

// What a block knows of the launch: in shared memory, because parameters, which lie in constant
// memory, lose their place in its small cache from one operation to the next.
struct Known {
  DecodeCommon common;
  DecodePlan plan;
  Share shares[kDecodeLinears];
  int slot, context;
};

template <class F>
struct Block {
  const DecodeCommon& d;
  const DecodePlan& plan;
  const Known& known;
  unsigned char* shared;
  RingBarriers barriers;

  // Copied from the parameters: what constant memory does not hold comes from afar.
  __device__ const LayerArgs& layer(int i) const {
    return reinterpret_cast<const LayerArgs*>(shared + plan.layers)[i];
  }
  // Of one linear, as the ring's functions want it.
  __device__ GemvArgs args(int layer, int role) const {
    const LayerLinear& l = this->layer(layer).linears[role];
    const RoleShape& s = d.roles[role];
    GemvArgs a;
    a.w = l.w;
    a.row_bytes = s.row_bytes;
    a.w_scale = l.w_scale;
    a.w_zero = l.w_zero;
    a.bias = l.bias;
    if (!std::is_same_v<typename F::Value, __nv_bfloat16>)
      a.x_scale = reinterpret_cast<const float*>(shared + plan.x_scale);
    a.m = 1;
    a.n = s.n;
    a.k = s.k;
    return a;
  }
  __device__ Ring ring(int role) const {
    Ring r = plan.ring;
    r.piece = plan.roles[role].piece;
    r.pieces = plan.roles[role].pieces;
    return r;
  }
  __device__ const Share& share(int role) const { return known.shares[role]; }
};

// ---- barriers of the grid

struct GridBarrier {
  unsigned* arrivals;
  unsigned target;

  // One thread, whose block's writes were ordered before it. The blocks' writes are then visible to
  // those that wait.
  __device__ void arrive() const {
    __threadfence();
    atomicAdd(arrivals, 1u);
  }
  // One thread; the n-th call returns once every block arrived n times.
  __device__ void wait() {
    target += gridDim.x;
    while (static_cast<int>(ptx::load_acquire(arrivals) - target) < 0) {
    }
  }
};

// ---- attention: which block has which pages

struct Pages {
  int head, first, count;  // of the sequence's table; count 0: none
  int split, splits;
  int context, begin;  // begin: the first page that the window reaches
};
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

template <class F>
__device__ void load_all(const Block<F>& b) {
  LoadCursor at;
  bool batch_is_there = false;
  for (int layer = 0; layer < b.d.layer_count; ++layer) {
#pragma unroll 1
    for (int role = 0; role < kDecodeLinears; ++role) {
      const GemvArgs a = b.args(layer, role);
      produce<F>(a, b.plan.roles[role].plan, b.ring(role), b.shared, b.barriers, b.share(role), at);
      if (role != kDecodeQkv) continue;
      if (!batch_is_there) ptx::grid_dependency_wait();
      batch_is_there = true;
      const LayerArgs& l = b.layer(layer);
      const Pages pages = pages_of(b.d, l.window, __ldg(b.d.attention.context_len));
      produce_pages(b.d, l.pages, b.plan.ring, b.shared, b.barriers, pages, at);
    }
  }
}

// ---- the warp that finishes

// Gate rows and up rows of the block's tiles -> the gated row.
template <class F>
__device__ void finish_gate(const Block<F>& b, const GemvArgs& a, const Ring& ring,
                            const Share& share, RingCursor& at) {
  constexpr bool kRowScales = F::kScales && F::kSubs == 0;
  const int lane = static_cast<int>(threadIdx.x) % 32, which = lane / kRows;
  for (int i = 0; i < share.count; i += 2, at.tile += 2) {
    const int row = share.tile(i + which) * kRows + lane % kRows;
    const float bias = a.bias != nullptr ? a.bias[row] : 0.0f;
    RingCursor mine = at;
    mine.tile += which;
    if (kRowScales) ptx::mbarrier_wait(b.barriers.params_full + mine.of_tile(), mine.tile_parity());
    ptx::mbarrier_wait(b.barriers.parts_full + mine.of_tile(), mine.tile_parity());
    const auto sum = sum_parts<F>(ring, b.shared, 1, mine.of_tile(), lane % kRows);
    const float scale = row_scale<F>(ring, b.shared, mine.of_tile(), lane % kRows);
    const float x_scale = a.x_scale != nullptr ? *a.x_scale : 1.0f;
    __syncwarp();  // parts and scales of both tiles have been read
    if (lane % kRows == 0) {
      ptx::mbarrier_arrive(b.barriers.parts_empty + mine.of_tile());
      if (kRowScales) ptx::mbarrier_arrive(b.barriers.params_empty + mine.of_tile());
    }
    const float value = rounded<__nv_bfloat16>(finished(sum, {scale, x_scale, bias, 0}));
    const float up = __shfl_down_sync(0xffffffffu, value, kRows);
    if (which == 0) b.d.gated[row] = from_f32<__nv_bfloat16>(gate_value(b.d.gate, value) * up);
  }
}

template <class F>
__device__ void finish_all(const Block<F>& b, GridBarrier grid) {
  RingCursor at;
  for (int layer = 0; layer < b.d.layer_count; ++layer) {
#pragma unroll 1
    for (int role = 0; role < kDecodeLinears; ++role) {
      GemvArgs a = b.args(layer, role);
      const bool joins = role == kDecodeOut || role == kDecodeDown;
      a.out = joins ? b.d.x : b.d.qkv;
      a.residual = joins ? b.d.x : nullptr;
      const Ring ring = b.ring(role);
      if (role == kDecodeGateUp) {
        finish_gate(b, a, ring, b.share(role), at);
      } else {
        finish<F>(a, ring, b.shared, b.barriers, b.share(role), at);
      }
      __syncwarp();  // every lane has stored
      if (threadIdx.x % 32 == 0 && b.share(role).count > 0) grid.arrive();
    }
  }
}

// ---- rows: by the warps that multiply

// A thread's units of a row; 0 beyond it.
struct HeldRow {
  uint4 v[kUnitsMax];
};
__device__ int unit_col(int u) {
  return (u * kMultiplyThreads + static_cast<int>(threadIdx.x)) * kUnitCols;
}
__device__ void load_row_units(HeldRow& row, const __nv_bfloat16* x, int cols) {
#pragma unroll
  for (int u = 0; u < kUnitsMax; ++u) {
    row.v[u] = make_uint4(0, 0, 0, 0);
    if (unit_col(u) < cols) row.v[u] = __ldcg(reinterpret_cast<const uint4*>(x + unit_col(u)));
  }
}
// Partial results of the warps, [kUnitsMax][16]; used by turns, so that one barrier is enough.
struct Fold {
  float* partial;
  int turn;

  __device__ float* begin() {
    turn ^= 1;
    return partial + turn * kUnitsMax * kMultiplyWarps;
  }
};

// visit(unit, u) may change a thread's unit.
template <class Visit>
__device__ void for_each_unit(HeldRow& row, int cols, const Visit& visit) {
#pragma unroll
  for (int u = 0; u < kUnitsMax; ++u) {
    if (u * kMultiplyThreads * kUnitCols >= cols) break;
    visit(row.v[u], u);
  }
}

// x / sqrt(mean(x^2) + eps) * gain, rounded; sums in the order of rows.cu for up to 8192 columns.
__device__ void norm_units(HeldRow& row, const float (&first_gains)[kUnitCols], const float* gain,
                           int cols, float eps, Fold& fold) {
  float* partial = fold.begin();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for_each_unit(row, cols, [&](uint4& unit, int u) {
    float v[kUnitCols], squares = 0;
    unpack<__nv_bfloat16>(v, unit);
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i) squares = fmaf(v[i], v[i], squares);
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) partial[u * kMultiplyWarps + warp] = squares;
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's sum is there
  const int parts = (cols + 32 * kUnitCols - 1) / (32 * kUnitCols);
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < parts; i += 8) {
    float of[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) of[j] = partial[i + j];
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += i + j < parts ? of[j] : 0.0f;
  }
  const float by = 1.0f / sqrtf(sum / static_cast<float>(cols) + eps);
  for_each_unit(row, cols, [&](uint4& unit, int u) {
    if (unit_col(u) >= cols) return;
    float v[kUnitCols], gains[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    if (u > 0) load_unit(gains, gain + unit_col(u));
#pragma unroll
    for (int i = 0; i < kUnitCols; ++i) v[i] = v[i] * by * (u > 0 ? gains[i] : first_gains[i]);
    unit = pack<__nv_bfloat16>(v);
  });
}

// The largest magnitude as bits of float32; of the finite values alone where `finite`.
__device__ uint32_t row_amax_bits(const HeldRow& row, Fold& fold, bool finite) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t amax = 0;
#pragma unroll
  for (int u = 0; u < kUnitsMax; ++u) {
    if (!finite) {
      amax = max(amax, amax_bits(row.v[u]));
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = word_of(row.v[u], i) << 16 & 0x7fff0000u;
      const uint32_t high = word_of(row.v[u], i) & 0x7fff0000u;
      amax = max(amax, max(low < kInfinity ? low : 0, high < kInfinity ? high : 0));
    }
  }
  amax = __reduce_max_sync(0xffffffffu, amax);
  auto* partial = reinterpret_cast<uint32_t*>(fold.begin());
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = amax;
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's maximum is there
  return __reduce_max_sync(0xffffffffu, partial[threadIdx.x % kMultiplyWarps]);
}

// How a row becomes codes. fast: all values are finite and the scale is none of the rare ones.
struct RowCodes {
  Scale scale;
  FastCodes codes;
  bool fast;
};
template <class F>
__device__ RowCodes row_codes(const Block<F>& b, const HeldRow& row, const float* given,
                              Fold& fold) {
  constexpr CodeKind kKind = F::kIntegers ? CodeKind::kInt8 : CodeKind::kE4M3;
  float amax = __uint_as_float(row_amax_bits(row, fold, false));
  const bool finite = amax <= FLT_MAX;
  if (!finite) amax = __uint_as_float(row_amax_bits(row, fold, true));
  const Scale s = b.d.x_static ? static_scale_of(kKind, *given, 0)
                               : scale_of(kKind, b.d.x_over_tensor ? Extent::kTensor : Extent::kRow,
                                          {amax, 0, 0});
  if (threadIdx.x == 0) *reinterpret_cast<float*>(b.shared + b.plan.x_scale) = s.scale;
  RowCodes out{s, FastCodes(kKind, s), false};
  out.fast = FastCodes::fits(kKind, {{}, finite}, s) && (s.divide ? !F::kIntegers : !b.d.x_static);
  if (!s.divide) {
    out.codes.factor = s.factor;
    out.codes.rest = 0;
  }
  return out;
}
// Eight values -> eight codes.
template <class F>
__device__ uint2 codes_of_unit(const uint4& unit, const RowCodes& by) {
  constexpr CodeKind kKind = F::kIntegers ? CodeKind::kInt8 : CodeKind::kE4M3;
  if (by.fast) {
    float v[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    return make_uint2(by.codes.word(v[0], v[1], v[2], v[3]), by.codes.word(v[4], v[5], v[6], v[7]));
  }
  uint64_t codes = 0;
  for_each_value<__nv_bfloat16>(
      unit, [&](float x, int i) { codes |= uint64_t{code_of(kKind, x, by.scale)} << (8 * i); });
  return make_uint2(static_cast<uint32_t>(codes), static_cast<uint32_t>(codes >> 32));
}

template <class F>
__device__ void stage_row_limbs(const Block<F>& b, HeldRow& row, int role, Fold& fold) {
  const int cols = b.plan.roles[role].plan.lines * 2 * F::kBlockValues;
  const LimbScale s = limb_scale(row_amax_bits(row, fold, false));
  if (threadIdx.x == 0) *reinterpret_cast<float*>(b.shared + b.plan.x_scale) = limb_result_scale(s);
  for_each_unit(row, cols, [&](const uint4& unit, int u) {
    if (unit_col(u) >= cols) return;  // int4: whole warps
    float v[kUnitCols];
    unpack<__nv_bfloat16>(v, unit);
    put_limbs<F>(v, s.inverse, unit_col(u), b.shared + b.plan.ring.x,
                 reinterpret_cast<float*>(b.shared + b.plan.ring.x_sums));
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // x is there
}

// The row as operands in shared memory, quantized where the scheme does so.
template <class F>
__device__ void stage_units(const Block<F>& b, HeldRow& row, int role, const float* given,
                            Fold& fold) {
  using T = typename F::Value;
  constexpr bool kCodes = !std::is_same_v<T, __nv_bfloat16>;
  unsigned char* x = b.shared + b.plan.ring.x;
  const int cols = (b.plan.roles[role].plan.token_bytes - F::kXPad) / static_cast<int>(sizeof(T));
  RowCodes by{{}, FastCodes(CodeKind::kInt8, {}), false};
  if constexpr (kCodes) by = row_codes(b, row, given, fold);
  for_each_unit(row, cols, [&](const uint4& unit, int u) {
    const int col = unit_col(u);
    if (col >= cols) return;
    uint4 operands = unit;
    if constexpr (kCodes) {
      const uint2 codes = codes_of_unit<F>(unit, by);
      if constexpr (F::kIntegers) {
        *reinterpret_cast<uint2*>(x + col) = codes;
        return;
      } else {
        operands = make_uint4(decode_e4m3<T>(codes.x & 0xffffu), decode_e4m3<T>(codes.x >> 16),
                              decode_e4m3<T>(codes.y & 0xffffu), decode_e4m3<T>(codes.y >> 16));
      }
    }
    if constexpr (!F::kIntegers) *reinterpret_cast<uint4*>(x + col * 2) = operands;
    if constexpr (F::kSubs > 0) {
      constexpr int kLanes = 16 / F::kSubs;  // of 8 values each: a group
      auto* x_sums = reinterpret_cast<float*>(b.shared + b.plan.ring.x_sums);
      float sum = sum_of_unit<T>(operands);
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
      const int unit = col / kUnitCols;
      if (unit % kLanes == 0) x_sums[unit / kLanes * kGemvRowsMax] = sum;
    }
  });
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // x is there
}

// ---- attention: by the warps that multiply

template <class A>
struct AttentionWork {
  const DecodeCommon& d;
  const DecodePlan& plan;
  unsigned char *shared, *cache;
  const Pages& p;

  __device__ int group() const { return d.attention.heads / d.cache.kv_heads; }
  __device__ __nv_bfloat16* query() const {
    return reinterpret_cast<__nv_bfloat16*>(shared + plan.query);
  }
  __device__ float2 turn(int pair) const {
    return reinterpret_cast<const float2*>(shared + plan.turn)[pair];
  }
  // The group's queries, then K and V of the new token: [group + 2][D], queries and K rotated.
  __device__ void stage_heads() const {
    constexpr int kHeadUnits = A::kDim / kUnitCols;
    const int thread = static_cast<int>(threadIdx.x), heads = d.attention.heads;
    for (int i = thread; i < (group() + 2) * kHeadUnits; i += kMultiplyThreads) {
      const int row = i / kHeadUnits;
      const int head = row < group()    ? p.head * group() + row
                       : row == group() ? heads + p.head
                                        : heads + d.cache.kv_heads + p.head;
      reinterpret_cast<uint4*>(query())[i] =
          __ldcg(reinterpret_cast<const uint4*>(d.qkv + head * A::kDim) + i % kHeadUnits);
    }
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // they are there
    for (int row = thread / 32; row <= group(); row += kMultiplyWarps) {
      __nv_bfloat16* x = query() + row * A::kDim;
      for (int i = thread % 32; i < d.rope_half; i += 32) {
        const float2 uv = turned(to_f32(x[i]), to_f32(x[i + d.rope_half]), turn(i));
        x[i] = from_f32<__nv_bfloat16>(uv.x);
        x[i + d.rope_half] = from_f32<__nv_bfloat16>(uv.y);
      }
    }
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // and rotated
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

// The parts of all warps, then of all splits -> the attended row of the block's heads.
template <class A>
__device__ void merge_heads(const AttentionWork<A>& w, const DecodeParams<__nv_bfloat16>& params,
                            const PageCursor& at, int warps, int* last) {
  const DecodeCommon& d = w.d;
  const int rows = w.group();
  const auto* sums = reinterpret_cast<const float*>(w.shared + w.plan.merge);
  const float* tops = sums + kMultiplyWarps * rows * A::kMergeStride;
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp's results are there
  const auto slot = [&](int split) { return (at.head * w.p.splits + split) * kDecodeRows; };
  for (int i = threadIdx.x; i < rows * (A::kDim / 4); i += kMultiplyThreads) {
    const int row = i / (A::kDim / 4), col = i % (A::kDim / 4) * 4;
    const Merged m = merge_parts(
        warps,
        [&](int part) { return *reinterpret_cast<const float2*>(tops + (part * rows + row) * 2); },
        [&](int part) {
          return *reinterpret_cast<const float4*>(sums + (part * rows + row) * A::kMergeStride +
                                                  col);
        });
    if (w.p.splits == 1) {
      store_four(params, at, row, col, m);
      continue;
    }
    const int to = slot(w.p.split) + row;
    if (col == 0) reinterpret_cast<float2*>(d.part_tops)[to] = make_float2(m.top, m.sum);
    *reinterpret_cast<float4*>(d.part_sums + int64_t{to} * A::kDim + col) = m.value;
  }
  if (w.p.splits == 1) return;
  __threadfence();
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // the block's part is written
  if (threadIdx.x == 0) {
    *last = atomicAdd(d.part_arrivals + at.head, 1) == w.p.splits - 1;
    if (*last) d.part_arrivals[at.head] = 0;
    __threadfence();
  }
  ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // *last is known
  if (!*last) return;
  for (int i = threadIdx.x; i < rows * (A::kDim / 4); i += kMultiplyThreads) {
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
    store_four(params, at, row, col, m);
  }
}

template <class A, class F>
__device__ void attend(const Block<F>& b, int layer, RingCursor& at) {
  const DecodeCommon& d = b.d;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Pages p = pages_of(d, b.layer(layer).window, b.known.context);
  if (p.count == 0) return;
  const AttentionWork<A> work{d, b.plan, b.shared, b.layer(layer).pages, p};
  work.stage_heads();
  PageCursor cursor{0, 0, 0, {1, p.context, p.begin, 0}};
  DecodeParams<__nv_bfloat16> params{.out = d.attended,
                                     .out_stride = 0,
                                     .qkv = work.query(),
                                     .stride = 0,
                                     .a = d.attention,
                                     .c = d.cache,
                                     .state = {}};
  params.a.window = b.layer(layer).window;
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
    __syncwarp();  // every lane has read the stage
    if (lane == 0) ptx::mbarrier_arrive(b.barriers.empty + at.slot);
    at.next_stage(b.plan.ring);
  }
  const int rows = work.group();
  float* merge = reinterpret_cast<float*>(b.shared + b.plan.merge);
  leave_results(st, merge + warp * rows * A::kMergeStride,
                merge + kMultiplyWarps * rows * A::kMergeStride + warp * rows * 2, rows, lane);
  cursor.head = p.head;
  merge_heads(work, params, cursor, min(kMultiplyWarps, p.count),
              reinterpret_cast<int*>(b.shared + b.plan.x_scale) + 1);
}

// ---- the warps that multiply: everything in order

template <class F, class A>
__device__ void multiply_all(const Block<F>& b, GridBarrier grid) {
  const DecodeCommon& d = b.d;
  RingCursor at;
  Fold fold{reinterpret_cast<float*>(b.shared + b.plan.fold), 0};
  const auto wait = [&] {
    if (threadIdx.x == 0) grid.wait();
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // what other blocks wrote is visible
  };
  // One copy of the code for all roles: with four of them it did not stay in the caches.
#pragma unroll 1
  for (int layer = 0; layer < d.layer_count; ++layer) {
#pragma unroll 1
    for (int role = 0; role < kDecodeLinears; ++role) {
      const LayerArgs& l = b.layer(layer);
      const float* gain = role == kDecodeQkv      ? l.attention_gain
                          : role == kDecodeGateUp ? l.mlp_gain
                                                  : nullptr;
      const __nv_bfloat16* x = role == kDecodeOut    ? d.attended
                               : role == kDecodeDown ? d.gated
                                                     : d.x;
      HeldRow row;
      float gains[kUnitCols] = {};
      const int cols = d.roles[role].k;
      if (gain != nullptr && unit_col(0) < cols) load_unit(gains, gain + unit_col(0));
      if (layer > 0 || role > 0) wait();
      load_row_units(row, x, cols);
      if (gain != nullptr) norm_units(row, gains, gain, cols, d.eps, fold);
      if constexpr (F::kLimbs > 0) {
        stage_row_limbs(b, row, role, fold);
      } else {
        stage_units(b, row, role, l.linears[role].x_scale, fold);
      }
      const Share share = b.share(role);
      consume<F>(b.args(layer, role), b.plan.roles[role].plan, b.ring(role), b.shared, b.barriers,
                 share, at);
      // The warp that finishes does it for blocks with tiles.
      if (share.count == 0 && threadIdx.x == 0) grid.arrive();
      if (role != kDecodeQkv) continue;
      wait();
      attend<A>(b, layer, at);
      ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // every warp has stored
      if (threadIdx.x == 0) grid.arrive();
    }
  }
  wait();
  // Every block has read the count of before this launch.
  if (blockIdx.x == 0 && threadIdx.x == 0) d.barrier[1] = grid.target;
}

// By the whole block; sizes are multiples of 4 bytes.
__device__ void copy_words(void* to, const void* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 4; i += kRingThreads)
    static_cast<uint32_t*>(to)[i] = static_cast<const uint32_t*>(from)[i];
}

template <class F, class A>
__global__ void __launch_bounds__(kRingThreads, 1)
    decode_layers_kernel__sm90(const __grid_constant__ DecodeArgs d,
                               const __grid_constant__ DecodePlan plan) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto* known = reinterpret_cast<Known*>(shared + plan.known);
  const RingBarriers barriers(shared + plan.ring.barriers);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  if (thread == kLoadWarp * 32) barriers.init(plan.ring.stages, F::kSubs > 0);
  copy_words(&known->common, static_cast<const DecodeCommon*>(&d), sizeof(DecodeCommon));
  copy_words(&known->plan, &plan, sizeof(DecodePlan));
  copy_words(shared + plan.layers, d.layers, d.layer_count * static_cast<int>(sizeof(LayerArgs)));
  if (thread < kDecodeLinears) {
    const int tiles = (d.roles[thread].n + kRows - 1) / kRows;
    known->shares[thread] =
        thread == kDecodeGateUp ? share_of(tiles / 2, tiles / 2) : share_of(tiles);
  }
  __syncthreads();  // the barriers exist, and what is known of the launch
  const Block<F> b{known->common, known->plan, *known, shared, barriers};
  if (warp == kLoadWarp) return load_all(b);
  ptx::grid_dependency_wait();  // x and the batch are there, and nobody reads what is written here
  ptx::grid_dependency_launch();  // every block runs: those of the next kernel take no place
  const GridBarrier grid{d.barrier, __ldcg(d.barrier + 1)};
  if (warp == kFinishWarp) return finish_all(b, grid);
  if (thread == 0) {
    known->slot = __ldg(d.slots);
    known->context = __ldg(d.attention.context_len);
  }
  const auto position = static_cast<float>(__ldg(d.positions));
  for (int i = thread; i < d.rope_half; i += kMultiplyThreads) {
    reinterpret_cast<float2*>(shared + plan.turn)[i] =
        turn_of(position, d.inv_freq[i], d.rope_factor);
  }
  // Table and token are complete at the barriers of the first norm.
  multiply_all<F, A>(b, grid);
}

// ---- host

template <class F>
DecodePlan plan_all(const DecodeArgs& d) {
  DecodePlan p{};
  RingNeeds needs{.x_bytes = 0, .x_sums_bytes = 0, .groups = 0, .m = 1};
  for (int r = 0; r < kDecodeLinears; ++r) {
    const RoleShape& s = d.roles[r];
    GemvArgs a;
    a.row_bytes = s.row_bytes;
    a.group_cols = s.group_cols;
    a.m = 1;
    a.n = s.n;
    a.k = s.k;
    Ring cut{};
    cut_rows(cut, static_cast<int>(s.row_bytes), kPieceMax);
    p.roles[r] = {ring_plan_of<F>(a), cut.piece, cut.pieces};
    needs.x_bytes = std::max(needs.x_bytes, p.roles[r].plan.token_bytes);
    needs.x_sums_bytes = std::max(needs.x_sums_bytes, x_sum_count<F>(p.roles[r].plan.lines) * 4);
    needs.groups = std::max(needs.groups, p.roles[r].plan.groups);
  }
  // Attention's queries and results of the warps take the place of x.
  const int group = d.attention.heads / d.cache.kv_heads, dim = d.cache.head_dim;
  const int query_bytes = round_up((group + 2) * dim * 2, 128);  // and K, V of the new token
  const int merge_bytes = kMultiplyWarps * group * (dim + 4 + 2) * 4;
  needs.x_bytes = round_up(std::max(needs.x_bytes, query_bytes + merge_bytes), 128);
  const int turn_bytes = round_up(d.rope_half * 8, 16);
  const int fold_bytes = 2 * kUnitsMax * kMultiplyWarps * 4;
  const int layer_bytes = round_up(d.layer_count * static_cast<int>(sizeof(LayerArgs)), 16);
  constexpr int kKnownBytes = (sizeof(Known) + 15) / 16 * 16;
  const int own = turn_bytes + fold_bytes + layer_bytes + kKnownBytes + 32;
  lay_out<F>(p.ring, needs, kPieceMax, kRingSharedMax - own);
  p.ring.in_flight = std::min(p.ring.stages, kInFlight);
  p.query = p.ring.x;
  p.merge = p.query + query_bytes;
  p.turn = round_up(p.ring.bytes, 16);
  p.fold = p.turn + turn_bytes;
  p.layers = p.fold + fold_bytes;
  p.known = p.layers + layer_bytes;
  p.x_scale = p.known + kKnownBytes;
  p.ring.bytes = p.x_scale + 16;
  return p;
}

template <class F, class A>
void launch_kernel(const DecodeArgs& d, cudaStream_t stream) {
  void (*const kernel)(DecodeArgs, DecodePlan) = decode_layers_kernel__sm90<F, A>;
  static const bool configured = [&] {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingSharedMax),
        "giving the layers' kernel its shared memory");
    return true;
  }();
  (void)configured;
  const DecodePlan plan = plan_all<F>(d);
  // One block a multiprocessor, all at once: none ends before the last barrier. They get there
  // because nothing else stays: kernels before this one end by themselves, those after it start
  // when all of its blocks run.
  launch("launching decode_layers_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(multiprocessors())),
          .block = dim3(kRingThreads),
          .shared_bytes = static_cast<size_t>(plan.ring.bytes)},
         stream, d, plan);
}

template <class F>
void launch_format(const DecodeArgs& d, cudaStream_t stream) {
  if (d.cache.head_dim == 64)
    return launch_kernel<F, DecodeFormat<__nv_bfloat16, CellKind::kRunDtype, 64, 1>>(d, stream);
  launch_kernel<F, DecodeFormat<__nv_bfloat16, CellKind::kRunDtype, 128, 1>>(d, stream);
}

}  // namespace
}  // namespace mantissa::cuda
