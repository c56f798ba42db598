// All layers of one token's pass in one kernel, on Hopper: what its launcher reads, and the
// device's form of it. docs/kernels/cuda-decode.md.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/gemv.h"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {

// One linear of one layer.
struct LayerLinear {
  const unsigned char* w = nullptr;  // [N, row_bytes]
  const void* w_scale = nullptr;     // as GemvArgs has them
  const float* w_global = nullptr;
  const float* bias = nullptr;     // [N]
  const float* x_scale = nullptr;  // [1] static scale of its input
};
struct LayerArgs {
  LayerLinear linears[kDecodeLinears];
  const float *attention_gain = nullptr, *mlp_gain = nullptr;  // [hidden]
  unsigned char* pages = nullptr;                              // of the cache
  int window = 0;
};

// What the linears of one role have in common.
struct RoleShape {
  int n = 0, k = 0;
  int64_t row_bytes = 0;
  int group_cols = 0;
};

// Rows of a layer that blocks make for each other (row_exchange.cuh): results of the four linears
// (by DecodeRole), and of attention.
constexpr int kAttendedRow = kDecodeLinears, kExchangedRows = kDecodeLinears + 1;
struct RowExchange {
  uint32_t* words;         // [layers][layer_words]
  int at[kExchangedRows];  // of a layer's words
  int layer_words;
  unsigned* ended;  // blocks of this launch; 0 between launches

  __host__ __device__ uint32_t* row(int layer, int which) const {
    return words + int64_t{layer} * layer_words + at[which];
  }
};

constexpr int kDecodeLayersMax = 64;  // of one launch: they are its parameters
struct DecodeCommon {
  RoleShape roles[kDecodeLinears];
  GemvWeight weight;
  GemvInput input;
  bool x_over_tensor;  // codes' scale by the formula of a tensor
  bool x_static;
  GateFn gate;
  int layer_count;
  float eps;
  __nv_bfloat16* x;  // [hidden]
  const float* inv_freq;
  int rope_half;
  float rope_factor;
  AttentionArgs attention;  // of one sequence; the window is the layer's
  Cache cache;              // the pages are the layer's
  const int32_t *positions, *slots;
  RowExchange rows;
  float *part_tops, *part_sums;  // of attention, as AttentionState has them
  int* part_arrivals;
};
struct DecodeArgs : DecodeCommon {
  LayerArgs layers[kDecodeLayersMax];
};

// Empty, or why these do not run. Formats are the scheme's, checked before.
std::string decode_layers_sm90_why_not(const DecodeArgs& args);
void decode_layers__sm90(const DecodeArgs& args, cudaStream_t stream);
// Its instances by weights, a file each.
void decode_layers_e4m3__sm90(const DecodeArgs& args, cudaStream_t stream);
void decode_layers_tiles__sm90(const DecodeArgs& args, cudaStream_t stream);
void decode_layers_s8__sm90(const DecodeArgs& args, cudaStream_t stream);
void decode_layers_s4__sm90(const DecodeArgs& args, cudaStream_t stream);
void decode_layers_fp4__sm90(const DecodeArgs& args, cudaStream_t stream);

}  // namespace mantissa::cuda
