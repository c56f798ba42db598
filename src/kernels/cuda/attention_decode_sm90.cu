// Attention of few queries over the paged cache: the whole GPU streams K and V once, at the speed
// of the memory. docs/kernels/cuda-attention.md.
//
// The work is a line of units (sequence, KV head, page), cut into equal pieces, one a block,
// whatever the lengths. Each warp takes every kWarps-th unit of its block and keeps its own ring of
// units on the way from memory (one bulk copy each: K, V and scales of a head lie together in the
// page). Scores are computed transposed, S^T = K Q^T and O^T = V^T P^T: keys and D fill mma's 16
// rows, the queries its 8 columns, scales of keys are scales of rows. Warps of a block are merged
// through shared memory; what is left of a (sequence, head) in several blocks by the last of them.
#include <algorithm>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kSharedBytesMax = 227 * 1024;
constexpr int kStagesMax = 6;
constexpr int kUnitsLeast = 8;  // of a block: fewer are not worth the merge

template <class T, CellKind kKindOf, int kDimOf, int kTilesOf>
struct Format : DecodeFormat<T, kKindOf, kDimOf, kTilesOf> {
  using Base = DecodeFormat<T, kKindOf, kDimOf, kTilesOf>;
  using Base::kCodes, Base::kDim, Base::kTiles, Base::kRows;
  // Blocks of a multiprocessor: of two, one may wait or merge while the other reads. Codes cannot
  // afford that: decoding them needs every warp.
  static constexpr int kShare = !kCodes && kTiles == 1 && kDim <= 128 ? 2 : 1;
  static constexpr int kWarps =  // as many as leave room for two stages and registers for the sums
      (kCodes && kTiles == 1 ? 12 : 8) / (kDim > 128 ? 2 : 1) / kShare;
  static constexpr int kStageBytes = 2 * Base::kHalfBytes + (kCodes ? 8 * kKeys : 0);
  static constexpr int kMergeBytes = kWarps * kRows * (Base::kMergeStride + 2) * 4;
  static constexpr int kStages = std::min(
      kStagesMax, (kSharedBytesMax / kShare - kMergeBytes - 2048) / (kWarps * (kStageBytes + 8)));
  static constexpr int kSharedBytes = kMergeBytes + kStages * kWarps * (kStageBytes + 8);
  static_assert(kStages >= 2 && Base::kSteps % 2 == 0 && kShare <= kDecodeShareMax);
};

__device__ Span span_of(const AttentionArgs& a, int kv_heads, int s) {
  const int tokens = __ldg(a.query_start + s + 1) - __ldg(a.query_start + s);
  const int context = __ldg(a.context_len + s);
  if (tokens <= 0 || tokens * (a.heads / kv_heads) > kDecodeRows) return {0, 0, 0, 0};
  const int first = a.window > 0 ? max(0, context - tokens - a.window + 1) / kKeys : 0;
  return {tokens, context, first, (context + kKeys - 1) / kKeys - first};
}

__device__ void advance(PageCursor& at, int units, const AttentionArgs& a, int kv_heads) {
  at.page += units;
  while (at.page >= at.span.pages) {
    at.page -= at.span.pages;
    if (++at.head < kv_heads) continue;
    at.head = 0;
    do {
      if (++at.sequence >= a.sequences) return;  // beyond the last unit: nobody asks for it
      at.span = span_of(a, kv_heads, at.sequence);
    } while (at.span.pages == 0);
  }
}

// All lanes of a warp: the number of units, and where unit `unit` is.
__device__ int64_t units_of(const AttentionArgs& a, int kv_heads, int lane) {
  int64_t units = 0;
  for (int base = 0; base < a.sequences; base += 32) {
    int pages = base + lane < a.sequences ? span_of(a, kv_heads, base + lane).pages : 0;
    for (int step = 16; step > 0; step /= 2) pages += __shfl_xor_sync(0xffffffffu, pages, step);
    units += int64_t{pages} * kv_heads;
  }
  return units;
}
__device__ PageCursor find_unit(const AttentionArgs& a, int kv_heads, int64_t unit, int lane) {
  for (int base = 0; base < a.sequences; base += 32) {
    const int pages = base + lane < a.sequences ? span_of(a, kv_heads, base + lane).pages : 0;
    const int up_to = warp_sum_up_to(pages);
    const uint32_t holders = __ballot_sync(0xffffffffu, unit < int64_t{up_to} * kv_heads);
    if (holders != 0) {
      const int owner = __ffs(static_cast<int>(holders)) - 1;
      const int64_t before = int64_t{__shfl_sync(0xffffffffu, up_to - pages, owner)} * kv_heads;
      const Span span = span_of(a, kv_heads, base + owner);
      const auto in = static_cast<int>(unit - before);
      return {base + owner, in / span.pages, in % span.pages, span};
    }
    unit -= int64_t{__shfl_sync(0xffffffffu, up_to, 31)} * kv_heads;
  }
  return {a.sequences, 0, 0, {0, 0, 0, 0}};
}

// A block's part of the line.
struct Cut {
  int64_t units;
  int blocks;
  __device__ int64_t begin(int block) const { return units * block / blocks; }
  __device__ int owner(int64_t unit) const {
    return static_cast<int>(((unit + 1) * blocks - 1) / units);
  }
};

// A warp's ring of units from memory.
template <class F>
struct Fetch {
  unsigned char* stages;
  uint64_t* full;   // [kStages]
  PageCursor next;  // the unit to ask for
  int left;         // how many there are, from `next` on
  int32_t page;     // of `next`
  int bytes;        // of a unit

  template <class P>
  __device__ void look_up(const P& p) {
    if (left > 0) {
      page = __ldg(p.a.block_table + next.sequence * p.a.block_table_stride + next.span.first_page +
                   next.page);
    }
  }
  // No token of this pass is in the unit.
  __device__ bool is_old() const {
    return left > 0 &&
           (next.span.first_page + next.page + 1) * kKeys <= next.span.context - next.span.tokens;
  }
  template <class P>
  __device__ void ask(const P& p, int stage, int lane) {
    if (left <= 0) return;
    if (lane == 0) {
      ptx::mbarrier_expect_bytes(&full[stage], static_cast<uint32_t>(bytes));
      ptx::bulk_load(stages + stage * F::kStageBytes,
                     p.c.pages + page * p.c.page_bytes + next.head * p.c.head_bytes,
                     static_cast<uint32_t>(bytes), &full[stage]);
    }
    --left;
    advance(next, F::kWarps, p.a, p.c.kv_heads);
    look_up(p);
  }
};

// The parts of one (sequence, head) that several blocks hold: block `first` and those after it.
struct Chain {
  int first, parts;
  bool first_is_whole;  // it starts with the first unit of block `first`
  __device__ int slot(int part) const {
    return 2 * (first + part) + (part == 0 && !first_is_whole ? 1 : 0);
  }
};

// The last block to arrive merges.
template <class F>
__device__ void finish_chain(const DecodeParams<typename F::Value>& p, const PageCursor& at,
                             const Chain& chain, int rows, int* last) {
  __threadfence();
  __syncthreads();  // this block's part is written
  if (threadIdx.x == 0) {
    const int before = atomicAdd(p.state.arrivals + chain.first, 1);
    *last = before == chain.parts - 1;
    if (*last) p.state.arrivals[chain.first] = 0;
  }
  __syncthreads();  // *last is known
  if (!*last) return;
  __threadfence();
  for (int i = threadIdx.x; i < rows * (F::kDim / 4); i += F::kWarps * 32) {
    const int row = i / (F::kDim / 4), d = i % (F::kDim / 4) * 4;
    const Merged m = merge_parts(
        chain.parts,
        [&](int part) {
          return __ldcg(reinterpret_cast<const float2*>(p.state.tops) +
                        chain.slot(part) * kDecodeRows + row);
        },
        [&](int part) {
          return __ldcg(reinterpret_cast<const float4*>(
              p.state.sums + (chain.slot(part) * kDecodeRows + row) * F::kDim + d));
        });
    store_four(p, at, row, d, m);
  }
}

// A stretch of units of one (sequence, head) in this block.
struct Segment {
  int64_t head_begin, head_end;  // units of the (sequence, head)
  int64_t begin, end;            // those of this block
};

template <class F>
__device__ void finish_segment(const DecodeParams<typename F::Value>& p, const PageCursor& at,
                               const Segment& s, const Cut& cut, float* merge, int* last) {
  const int rows = at.span.tokens * (p.a.heads / p.c.kv_heads);
  const bool whole = s.begin == s.head_begin && s.end == s.head_end;
  Chain chain{0, 1, true};
  if (!whole) {
    chain.first = cut.owner(s.head_begin);
    chain.parts = cut.owner(s.head_end - 1) - chain.first + 1;
    chain.first_is_whole = cut.begin(chain.first) == s.head_begin;
  }
  const float* tops = merge + F::kWarps * F::kRows * F::kMergeStride;
  __syncthreads();  // every warp's results are there
  for (int i = threadIdx.x; i < rows * (F::kDim / 4); i += F::kWarps * 32) {
    const int row = i / (F::kDim / 4), d = i % (F::kDim / 4) * 4;
    const Merged m = merge_parts(
        F::kWarps,
        [&](int w) { return *reinterpret_cast<const float2*>(tops + (w * F::kRows + row) * 2); },
        [&](int w) {
          return *reinterpret_cast<const float4*>(merge + (w * F::kRows + row) * F::kMergeStride +
                                                  d);
        });
    if (whole) {
      store_four(p, at, row, d, m);
      continue;
    }
    const int64_t slot = chain.slot(static_cast<int>(blockIdx.x) - chain.first) * kDecodeRows + row;
    if (d == 0) reinterpret_cast<float2*>(p.state.tops)[slot] = make_float2(m.top, m.sum);
    *reinterpret_cast<float4*>(p.state.sums + slot * F::kDim + d) = m.value;
  }
  if (whole) {
    __syncthreads();  // the results have been read
  } else {
    finish_chain<F>(p, at, chain, rows, last);
  }
}

template <class F>
__global__ void __launch_bounds__(F::kWarps * 32, F::kShare)
    attention_decode_kernel__sm90(const DecodeParams<typename F::Value> p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  __shared__ int last;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  auto* merge = reinterpret_cast<float*>(shared + F::kWarps * F::kStages * F::kStageBytes);
  Fetch<F> fetch{
      .stages = shared + warp * F::kStages * F::kStageBytes,
      .full = reinterpret_cast<uint64_t*>(merge + F::kMergeBytes / 4) + warp * F::kStages,
      .next = {},
      .left = 0,
      .page = 0,
      .bytes = p.c.head_bytes};
  if (lane < F::kStages) ptx::mbarrier_init(&fetch.full[lane], 1);
  ptx::fence_barrier_init();
  __syncwarp();  // the ring's barriers exist

  Cut cut{units_of(p.a, p.c.kv_heads, lane), 0};
  cut.blocks = static_cast<int>(
      min(int64_t{gridDim.x}, (cut.units + int64_t{kUnitsLeast} - 1) / int64_t{kUnitsLeast}));
  if (static_cast<int>(blockIdx.x) >= cut.blocks) return ptx::grid_dependency_wait();
  const int block = static_cast<int>(blockIdx.x);
  const int64_t begin = cut.begin(block), end = cut.begin(block + 1);
  PageCursor at = find_unit(p.a, p.c.kv_heads, begin, lane);
  fetch.next = at;
  fetch.left = static_cast<int>((end - begin - warp + F::kWarps - 1) / F::kWarps);
  if (fetch.left > 0) advance(fetch.next, warp, p.a, p.c.kv_heads);
  fetch.look_up(p);
  int asked = 0;
  while (asked < F::kStages && fetch.is_old()) fetch.ask(p, asked++, lane);
  ptx::grid_dependency_wait();  // q, and K and V of the new tokens
  while (asked < F::kStages) fetch.ask(p, asked++, lane);
  ptx::grid_dependency_launch();

  int64_t mine = begin + warp;
  int stage = 0;
  uint32_t parity = 0;
  for (int64_t unit = begin; unit < end;) {
    Segment s{.head_begin = unit - at.page,
              .head_end = unit - at.page + at.span.pages,
              .begin = unit,
              .end = 0};
    s.end = min(s.head_end, end);
    DecodeState<F> st;
    load_query(st, p, at, lane);
    for (; mine < s.end; mine += F::kWarps) {
      ptx::mbarrier_wait(&fetch.full[stage], parity);
      add_page(st, p, at, static_cast<int>(mine - s.head_begin),
               fetch.stages + stage * F::kStageBytes, lane);
      __syncwarp();  // every lane has read the stage
      fetch.ask(p, stage, lane);
      ptx::next_stage(stage, parity, F::kStages);
    }
    leave_results(st, merge + warp * F::kRows * F::kMergeStride,
                  merge + F::kWarps * F::kRows * F::kMergeStride + warp * F::kRows * 2,
                  at.span.tokens * (p.a.heads / p.c.kv_heads), lane);
    finish_segment<F>(p, at, s, cut, merge, &last);
    unit = s.end;
    if (unit < end) advance(at, static_cast<int>(s.end - s.begin), p.a, p.c.kv_heads);
  }
}

template <class F>
void launch_kernel(const AttentionCall& call) {
  using T = typename F::Value;
  allow_shared<attention_decode_kernel__sm90<F>>(F::kSharedBytes,
                                                 "giving attention its shared memory");
  const DecodeParams<T> p{.out = reinterpret_cast<T*>(call.out.data),
                          .out_stride = call.out.stride,
                          .qkv = reinterpret_cast<const T*>(call.qkv.data),
                          .stride = call.qkv.stride,
                          .a = call.args,
                          .c = call.cache,
                          .state = attention_state(call.queue)};
  launch("launching attention_decode", attention_decode_kernel__sm90<F>,
         {.grid = static_cast<unsigned>(multiprocessors() * F::kShare),
          .block = F::kWarps * 32,
          .shared_bytes = F::kSharedBytes},
         call.queue.stream.get(), p);
}

template <class T, CellKind kKind, int kDim>
void launch_rows(const AttentionCall& call) {
  rows_of(call).most <= 8 ? launch_kernel<Format<T, kKind, kDim, 1>>(call)
                          : launch_kernel<Format<T, kKind, kDim, 2>>(call);
}
template <class T, CellKind kKind>
void launch_format(const AttentionCall& call) {
  const int dim = call.cache.head_dim;
  if (dim == 64) return launch_rows<T, kKind, 64>(call);
  if (dim == 128) return launch_rows<T, kKind, 128>(call);
  if constexpr (sm90_has_all_dims(kKind)) {
    if (dim == 96) return launch_rows<T, kKind, 96>(call);
    if (dim == 256) return launch_rows<T, kKind, 256>(call);
  }
  check(false, "a head size of attention_sm90");
}

}  // namespace

void attention_decode__sm90(const AttentionCall& call) {
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
