// What a block of the layers' kernel (decode_layers.cuh) knows of its launch.
#pragma once

#include "kernels/cuda/decode_layers.h"
#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/weight_ring.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kUnitsMax = 8;  // of 8 columns, of a thread: rows of up to 16384
constexpr int kUnitsFew = 2;  // rows of up to 4096 have code of their own
constexpr int kRowMax = kUnitsMax * kMultiplyThreads * kUnitCols;
constexpr uint32_t kMultiplyBarrier = 1;
// Registers are dealt out to groups of four warps: the two that multiply take those of the third.
constexpr int kDecodeThreads = kMultiplyThreads + 128;
constexpr int kMultiplyRegisters = 216, kOtherRegisters = 72;
static_assert(kMultiplyThreads == 256 && kDecodeThreads == 384, "groups of four warps: 2 and 1");
static_assert(kMultiplyRegisters % 8 == 0 && kOtherRegisters % 8 == 0, "what setmaxnreg takes");
static_assert(kMultiplyThreads * kMultiplyRegisters +
                      (kDecodeThreads - kMultiplyThreads) * kOtherRegisters <=
                  kDecodeThreads * (65536 / kDecodeThreads / 8 * 8),
              "no more registers than the launch gave the block");

// What the launcher works out.
struct RolePlan {
  Plan plan;
  int piece, pieces;
};
struct DecodePlan {
  Ring ring;
  RolePlan roles[kDecodeLinears];
  int query, merge, turn, fold, known, x_scale;  // bytes: where these lie in shared memory
  bool one_window;                               // of all layers
  int keeps;  // stages of a linear that stay taken until its row has been seen
};

// A block's pages in attention, of the sequence's table.
struct Pages {
  int head, first, count;  // of the sequence's table; count 0: none
  int split, splits;
  int context, begin;  // begin: the first page that the window reaches
};

// What a block knows of the launch: in shared memory, because parameters, which lie in constant
// memory, lose their place in its small cache from one operation to the next. The layers stay
// there.
struct Known {
  DecodeCommon common;
  DecodePlan plan;
  Share shares[kDecodeLinears];
  int slot, context, window;  // window: of the first layer
  Pages pages;                // there
  // 0, which the compiler does not know: what is worked out from a sum with it stays where it is,
  // instead of filling registers ahead of a loop.
  int zero;
};

template <class F>
struct Block {
  const DecodeCommon& d;
  const DecodePlan& plan;
  const Known& known;
  const LayerArgs* layers;  // parameters of the launch
  unsigned char* shared;
  RingBarriers barriers;

  // Read once an operation: in shared memory they would take the place of a stage of int4.
  __device__ const LayerArgs& layer(int i) const { return layers[i]; }
  // Of one linear, as the ring's functions want it.
  __device__ GemvArgs args(int layer, int role) const {
    const LayerLinear& l = this->layer(layer).linears[role];
    const RoleShape& s = d.roles[role];
    GemvArgs a;
    a.w = l.w;
    a.row_bytes = s.row_bytes;
    a.w_scale = l.w_scale;
    a.w_global = l.w_global;
    a.bias = l.bias;
    const bool scaled = (F::kLimbs == 0 || F::kCodeLimbs) && !F::kTiles;
    if (scaled && !std::is_same_v<typename F::Value, __nv_bfloat16>)
      a.x_scale = reinterpret_cast<const float*>(shared + plan.x_scale);
    a.m = 1;
    a.n = s.n;
    a.k = s.k;
    return a;
  }
  // The exchanged row that a linear reads; the first one of a launch reads x.
  __device__ const uint32_t* input(int layer, int role) const {
    return role == kDecodeQkv   ? d.rows.row(layer - 1, kDecodeDown)
           : role == kDecodeOut ? d.rows.row(layer, kAttendedRow)
                                : d.rows.row(layer, role - 1);
  }
  __device__ Ring ring(int role) const {
    Ring r = plan.ring;
    r.piece = plan.roles[role].piece;
    r.pieces = plan.roles[role].pieces;
    return r;
  }
  __device__ const Share& share(int role) const { return known.shares[role]; }
};

}  // namespace
}  // namespace mantissa::cuda
