// Rows that the blocks of one grid make together and read whole, without barriers: a word of two
// bf16 says itself that it is there.
//
// A word that is not there is kNotThere, two NaN of a kind that no conversion to bf16 gives (it
// makes every NaN 0x7fff). All words are so between launches. In a launch each layer has rows of
// its own; a block stores its words of a row once, and readers load until they see them: the store,
// its way and the load are all that an exchange takes.
//
// Clearing. A block that stores words of a row of layer l clears those words of layer l - 1. Nobody
// reads them any more:
// - A block reads a row before it stores words of the next one, and only if it does so (attention:
//   all blocks of a head, before the last of them stores). Each of its warps may read a part: a
//   tile is stored when all of them have left theirs of it. So who sees a whole row knows that the
//   row before it has been read by all.
// - Whoever stores has seen the whole row before its own, whose writers had seen the whole row
//   before that, and so on round the layer down to the row after (l - 1)'s. Attention alone waits
//   for less than a row, its head's q, k and v; their writers had seen all of down's of layer l -
//   1, which is all that the chain needs. Blocks without attention look at q, k and v before they
//   store words of out, or not at all.
// - out's and down's words have a second reader, the warp that stored them: it adds them to its
//   next results. Shares of out and down are equal, so these are its own words, which __syncwarp
//   orders, and it clears them after that.
// The last layer's words are cleared by the block that ends last.
//
// Order. Words carry no other data than themselves, so relaxed loads and stores do. A linear's word
// is stored and cleared by the same warp, and to one address stores keep their order. A word of
// attention may be cleared by another block than stored it (which part of a context comes last, and
// whether there are parts, differ by layer): the chain above orders them, since a word that others
// have seen is in L2, where a later store comes later.
//
// No deadlock. All blocks of the grid run at once (so only one such grid at a time on a GPU), rows
// depend on earlier rows only, and the warp that stores waits for nothing but the warps that read.
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
  __syncthreads();  // they are through
  bool is_last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(e.ended, 1u) == gridDim.x - 1;
    if (is_last) *e.ended = 0;
    __threadfence();
  }
  if (!__syncthreads_or(is_last)) return;
  auto* row = reinterpret_cast<uint4*>(e.words + int64_t{layers - 1} * e.layer_words);
  for (int i = threadIdx.x; i < e.layer_words / 4; i += blockDim.x)
    row[i] = make_uint4(kNotThere, kNotThere, kNotThere, kNotThere);
}

}  // namespace mantissa::cuda
