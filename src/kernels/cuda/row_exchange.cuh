// Rows that the blocks of one grid make together and read whole, without barriers: a word of two
// bf16 says itself that it is there.
//
// A word that is not there is kNotThere, two NaN of a kind that no conversion to bf16 gives (it
// makes every NaN 0x7fff). All words are so between launches. In a launch each layer has rows of
// its own; a block stores its words of a row once, and readers load until they see them: the store,
// its way and the load are all that an exchange takes.
//
// Clearing. A block that stores words of a row of layer l clears its words of that row of layer
// l - 1. Whoever reads them has done so: only blocks that store words of the next row (attention:
// all readers of a head's q, k, v) read a row, and do it before they store. The block has seen the
// whole row before its own, whose writers had seen the whole row before that, and so on round the
// layer: the row after (l - 1)'s was complete, so its writers had read. The last layer's words are
// cleared by the block that ends last.
//
// Order. Words carry no other data than themselves, so relaxed loads and stores do. A word is
// stored and cleared by the same warp (attention with a split context: by blocks that the arrivals
// of their parts order), and to one address stores keep their order.
//
// No deadlock. All blocks of the grid run at once, rows depend on earlier rows only, and the warp
// that stores waits for nothing but the warps that read.
#pragma once

#include "kernels/cuda/decode_layers.h"
#include "kernels/cuda/device_types.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace mantissa::cuda {

constexpr uint32_t kNotThere = 0xffffffffu;

__device__ inline bool is_there(const uint4& v) {
  return max(max(v.x, v.y), max(v.z, v.w)) != kNotThere;
}

// Clears words of the layer before `layer`, where `words` would be this one's.
template <class Words>
__device__ void clear_word(const RowExchange& e, Words* words, int layer) {
  if (layer == 0) return;
  Words none;
  memset(&none, 0xff, sizeof none);
  ptx::store_relaxed(words - e.layer_words * 4 / static_cast<int>(sizeof none), none);
}
// Stores at `words`, clears the same ones of the layer before.
template <class Words>
__device__ void exchange(const RowExchange& e, Words* words, int layer, const Words& value) {
  ptx::store_relaxed(words, value);
  clear_word(e, words, layer);
}

// Of a tile of 16 columns that begins at `words`; lane l < 16 holds column l.
__device__ inline void exchange_tile(const RowExchange& e, uint32_t* words, int layer,
                                     float value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float next = __shfl_down_sync(0xffffffffu, value, 1);
  const uint32_t word = bits_of(__floats2bfloat162_rn(value, next));
  if (lane < 16 && lane % 2 == 0) exchange(e, words + lane / 2, layer, word);
}

// The whole block, when all of its threads are through with everything.
__device__ inline void end_exchange(const RowExchange& e, int layers) {
  __shared__ bool is_last;
  __syncthreads();  // they are through
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(e.ended, 1u) == gridDim.x - 1;
    if (is_last) *e.ended = 0;
    __threadfence();
  }
  __syncthreads();  // is_last is known
  if (!is_last) return;
  auto* row = reinterpret_cast<uint4*>(e.words + int64_t{layers - 1} * e.layer_words);
  for (int i = threadIdx.x; i < e.layer_words / 4; i += blockDim.x)
    row[i] = make_uint4(kNotThere, kNotThere, kNotThere, kNotThere);
}

}  // namespace mantissa::cuda
