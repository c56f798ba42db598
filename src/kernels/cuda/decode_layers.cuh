// All layers of one token's pass in one persistent kernel: a block on every multiprocessor, whose
// copies of weights (and of K and V) never stop at the end of an operation.
// docs/kernels/cuda-decode.md.
//
//   1 warp     streams the block's tiles of qkv, its pages of K and V, its tiles of out, gate_up,
//              down, then the next layer's, into one ring: it waits for room, never for activations
//   8 warps    wait for the row that the other blocks make, norm, quantize, multiply; attention
//   1 warp     adds parts up, applies scales, bias, residual and gate, tells the other blocks
//   2 warps    only lend their registers
//
// Every linear needs all of the row before it. Its words say themselves that they are there
// (row_exchange.cuh); norms and quantization are done by every block for itself. Values are rounded
// where separate operations round them, and summed in the same order.
#pragma once

#include <algorithm>

#include "kernels/cuda/decode_layers_attention.cuh"
#include "kernels/cuda/decode_layers_rows.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

// Stages of a linear that keep their places until its row has been seen: what would be copied there
// would delay the row's words by what is on its way in all of the memory's queues.
constexpr int kKeeps = 2;
constexpr int kFarLooks = 3;  // by a lane a warp, for the row of attention

// ---- the warp that loads

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

// What row `row` of a linear is finished with, asked for before its sum is there.
template <class F>
__device__ Finish finish_of(const GemvArgs& a, int row, const void* residual) {
  Finish f{1, 1, 0, 0};
  if (F::kGlobals && a.w_global != nullptr) f.w_scale = a.w_global[row];
  if (a.bias != nullptr) f.bias = a.bias[row];
  if (residual != nullptr) f.residual = run_value(a, residual, row);
  return f;
}
// Row lane % 16 of a tile, by the 16 lanes that are there for it (others get nothing).
template <class F>
__device__ float finish_tile(const Block<F>& b, const GemvArgs& a, const Ring& ring,
                             const RingCursor& at, Finish f, bool there) {
  constexpr bool kRowScales = F::kScales && F::kSubs == 0;
  const int row = static_cast<int>(threadIdx.x) % kRows;
  if (kRowScales) ptx::mbarrier_wait(b.barriers.params_full + at.of_tile(), at.tile_parity());
  ptx::mbarrier_wait(b.barriers.parts_full + at.of_tile(), at.tile_parity());
  if (a.x_scale != nullptr) f.x_scale = *a.x_scale;
  typename F::Sum sum = 0;
  if (there) {
    sum = sum_parts<F>(ring, b.shared, 1, at.of_tile(), row);
    if (!F::kGlobals) f.w_scale = row_scale<F>(ring, b.shared, at.of_tile(), row);
  }
  __syncwarp();  // parts and scales have been read, and all lanes have seen that they were there
  if (there) {
    ptx::mbarrier_arrive(b.barriers.parts_empty + at.of_tile());
    if (kRowScales) ptx::mbarrier_arrive(b.barriers.params_empty + at.of_tile());
  }
  return finished(sum, f);
}

// Gate rows and up rows of the block's tiles, by a half of the warp each -> the gated row.
template <class F>
__device__ void finish_gate(const Block<F>& b, int layer, RingCursor& at) {
  const int lane = static_cast<int>(threadIdx.x) % 32, which = lane / kRows;
  const GemvArgs a = b.args(layer, kDecodeGateUp);
  const Ring ring = b.ring(kDecodeGateUp);
  const Share share = b.share(kDecodeGateUp);
  uint32_t* words = b.d.rows.row(layer, kDecodeGateUp);
  for (int i = 0; i < share.count; i += 2, at.tile += 2) {
    const int row = share.tile(i + which) * kRows + lane % kRows;
    RingCursor mine = at;
    mine.tile += which;
    const float value =
        rounded<__nv_bfloat16>(finish_tile(b, a, ring, mine, finish_of<F>(a, row, nullptr), true));
    const float up = __shfl_down_sync(0xffffffffu, value, kRows);
    exchange_tile(b.d.rows, words + share.tile(i) * kRows / 2, layer,
                  gate_value(b.d.gate, value) * up);
  }
}

// Tiles of another linear -> its row; of the last one -> x.
template <class F>
__device__ void finish_row(const Block<F>& b, int layer, int role, RingCursor& at) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const DecodeCommon& d = b.d;
  const GemvArgs a = b.args(layer, role);
  const Ring ring = b.ring(role);
  const Share share = b.share(role);
  // What the result is added to: the block's own words, stored by this warp.
  const void* stream = nullptr;
  if (role == kDecodeOut)
    stream = layer == 0 ? d.x : static_cast<void*>(d.rows.row(layer - 1, kDecodeDown));
  if (role == kDecodeDown) stream = d.rows.row(layer, kDecodeOut);
  const bool ends = role == kDecodeDown && layer == d.layer_count - 1;
  for (int i = 0; i < share.count; ++i, ++at.tile) {
    const int row = share.tile(i) * kRows + lane % kRows;
    const Finish f = finish_of<F>(a, row, stream);
    const float value = finish_tile(b, a, ring, at, f, lane < kRows);
    if (!ends) {
      exchange_tile(d.rows, d.rows.row(layer, role) + share.tile(i) * kRows / 2, layer, value);
    } else if (lane < kRows) {
      d.x[row] = from_f32<__nv_bfloat16>(value);
      if (lane % 2 == 0) clear_word(d.rows, d.rows.row(layer, role) + row / 2, layer);
    }
  }
}

template <class F>
__device__ void finish_all(const Block<F>& b) {
  RingCursor at;
  for (int layer = 0; layer < b.d.layer_count; ++layer) {
#pragma unroll 1
    for (int role = 0; role < kDecodeLinears; ++role) {
      if (role == kDecodeGateUp) {
        finish_gate(b, layer, at);
      } else {
        finish_row(b, layer, role, at);
      }
      __syncwarp();  // words that other lanes read as what is added to
    }
  }
}

// ---- the warps that multiply: everything in order

// The row that a linear reads -> operands; kUnits: of a thread, at most.
struct RowSource {
  const void* x;
  const float *gain, *x_scale;  // null: no norm; no static scale
  bool awaited;
};
template <int kUnits, class F>
__device__ void stage_row(const Block<F>& b, int layer, int role, const RowSource& from,
                          Consumer<F>& reader, Ahead<F>& ahead, Kept& kept, Fold& fold) {
  HeldRow<kUnits> row(b.d.roles[role].k);
  HeldGains gains{};
  if (from.gain != nullptr) gains.load(row, from.gain);
  load_row_units(row, from.x, from.awaited, role == kDecodeOut ? kFarLooks : 0, [&] {
    if (F::kLimbs > 0) reader.look_ahead(ahead);
  });
  kept.release(reader.ring, b.barriers);
  if (from.gain != nullptr) norm_units(row, gains, from.gain, b.d.eps, fold);
  if constexpr (F::kCodeLimbs) {
    reader.take_scale(stage_code_limbs(b, row, role, from.x_scale, fold));
  } else if constexpr (F::kLimbs > 0) {
    reader.take_scale(stage_row_limbs(b, row, role, fold));
  } else if constexpr (F::kTiles) {
    stage_groups(b, row, role);
  } else {
    stage_units(b, row, role, from.x_scale, fold);
  }
}

template <class F, class A>
__device__ void multiply_all(const Block<F>& b) {
  const DecodeCommon& d = b.d;
  RingCursor at;
  Fold fold{reinterpret_cast<float*>(b.shared + b.plan.fold), 0};
  Ahead<F> ahead;
  Kept kept{0, 0};
  // One copy of the code for all roles: with four of them it did not stay in the caches.
#pragma unroll 1
  for (int layer = 0; layer < d.layer_count; ++layer) {
#pragma unroll 1
    for (int role = 0; role < kDecodeLinears; ++role) {
      const Share share = b.share(role);
      const LayerArgs& l = b.layer(layer);
      if (share.count > 0) {
        const float* gain = role == kDecodeQkv      ? l.attention_gain
                            : role == kDecodeGateUp ? l.mlp_gain
                                                    : nullptr;
        const bool first = layer == 0 && role == kDecodeQkv;
        const GemvArgs a = b.args(layer, role);
        const Plan plan = b.plan.roles[role].plan;
        const Ring ring = b.ring(role);
        const RingCursor tile = at;
        const int stages = share.count * ring.pieces;
        Consumer<F> reader{a, plan, ring, b.shared, b.barriers, at, stages};
        reader.keeps = b.plan.keeps;
        ahead.held = false;
        const RowSource source{first ? static_cast<const void*>(d.x) : b.input(layer, role), gain,
                               l.linears[role].x_scale, !first};
        if (d.roles[role].k <= kUnitsFew * kMultiplyThreads * kUnitCols) {
          stage_row<kUnitsFew>(b, layer, role, source, reader, ahead, kept, fold);
        } else {
          stage_row<kUnitsMax>(b, layer, role, source, reader, ahead, kept, fold);
        }
        consume(reader, ahead, tile, stages);
        kept = {at.slot, min(reader.keeps, stages)};
      } else {
        kept.release(b.plan.ring, b.barriers);
      }
      if (role == kDecodeQkv) attend<A>(b, layer, at, kept);
    }
  }
}

// By the whole block; sizes are multiples of 4 bytes.
__device__ void copy_words(void* to, const void* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 4; i += kDecodeThreads)
    static_cast<uint32_t*>(to)[i] = static_cast<const uint32_t*>(from)[i];
}

template <class F, class A>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_layers_kernel__sm90(const __grid_constant__ DecodeArgs d,
                               const __grid_constant__ DecodePlan plan) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto* known = reinterpret_cast<Known*>(shared + plan.known);
  const RingBarriers barriers(shared + plan.ring.barriers);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  if (warp == kLoadWarp) barriers.init(plan.ring.stages, F::kSubs > 0, kRows);
  copy_words(&known->common, static_cast<const DecodeCommon*>(&d), sizeof(DecodeCommon));
  copy_words(&known->plan, &plan, sizeof(DecodePlan));
  if (thread < kDecodeLinears) {
    const int tiles = (d.roles[thread].n + kRows - 1) / kRows;
    const int stride = thread == kDecodeGateUp ? tiles / 2 : 0;
    known->shares[thread] = share_of(deal_of(tiles - stride, static_cast<int>(gridDim.x)), stride);
  }
  __syncthreads();  // the barriers exist, and what is known of the launch
  const Block<F> b{known->common, known->plan, *known, d.layers, shared, barriers};
  if (warp >= kMultiplyWarps) {
    ptx::registers_lower<kOtherRegisters>();
    if (warp == kLoadWarp) load_all(b);
    if (warp == kFinishWarp) {
      ptx::grid_dependency_wait();  // x and the batch are there, nobody reads what is written here
      ptx::grid_dependency_launch();
      finish_all(b);
    }
  } else {
    ptx::registers_raise<kMultiplyRegisters>();
    ptx::grid_dependency_wait();
    ptx::grid_dependency_launch();  // every block runs: those of the next kernel take no place
    if (thread == 0) {
      known->slot = __ldg(d.slots);
      known->context = __ldg(d.attention.context_len);
      known->window = d.layers[0].window;
      known->pages = pages_of(known->common, known->window, known->context);
      known->zero = 0;
    }
    const auto position = static_cast<float>(__ldg(d.positions));
    for (int i = thread; i < d.rope_half; i += kMultiplyThreads) {
      reinterpret_cast<float2*>(shared + plan.turn)[i] =
          turn_of(position, d.inv_freq[i], d.rope_factor);
    }
    ptx::named_barrier(kMultiplyBarrier, kMultiplyThreads);  // table and token are complete
    multiply_all<F, A>(b);
  }
  end_exchange(d.rows, d.layer_count);
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
  const int fold_bytes = 2 * kFoldParts * 4;
  constexpr int kKnownBytes = (sizeof(Known) + 15) / 16 * 16;
  const int own = turn_bytes + fold_bytes + kKnownBytes + 32;
  lay_out<F>(p.ring, needs, kPieceMax, kRingSharedMax - own);
  p.ring.in_flight = std::min(p.ring.stages, kInFlight);
  p.one_window = std::all_of(d.layers, d.layers + d.layer_count, [&](const LayerArgs& layer) {
    return layer.window == d.layers[0].window;
  });
  // Of 16 bits, loads take so much longer than rows that they had better go on: 103.5 us a layer
  // instead of 102.7 (int4 34.9 instead of 38.3, fp8_weight_only 59.2 instead of 60.4).
  p.keeps = F::kWeight == GemvWeight::kRun ? 0 : std::min(p.ring.stages, kKeeps);
  // Where rows are exchanged as codes of 8 bits, bursts delay them: int8 64.5 us a layer instead of
  // 60.1, ptpc_fp8 72.5 instead of 69.6; fp8_weight_only gains 2.5, int4 1, fp8_block 0.7.
  const bool codes_of_rows = d.input != GemvInput::kRun && !F::kTiles;
  if (F::kWeight != GemvWeight::kS4 && codes_of_rows) p.ring.apart = true;
  p.query = p.ring.x;
  p.merge = p.query + query_bytes;
  p.turn = round_up(p.ring.bytes, 16);
  p.fold = p.turn + turn_bytes;
  p.known = p.fold + fold_bytes;
  p.x_scale = p.known + kKnownBytes;
  p.ring.bytes = p.x_scale + 16;
  return p;
}

template <class F, class A>
void launch_kernel(const DecodeArgs& d, cudaStream_t stream) {
  void (*const kernel)(DecodeArgs, DecodePlan) = decode_layers_kernel__sm90<F, A>;
  allow_shared<decode_layers_kernel__sm90<F, A>>(kRingSharedMax,
                                                 "giving the layers' kernel its shared memory");
  const DecodePlan plan = plan_all<F>(d);
  // One block a multiprocessor, all at once: they wait for each other's rows. They get there
  // because nothing else stays: kernels before this one end by themselves, those after it start
  // when all of its blocks run. Two such kernels at a time (another queue or process on this GPU)
  // could each hold some multiprocessors for ever.
  launch("launching decode_layers_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(multiprocessors())),
          .block = dim3(kDecodeThreads),
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
