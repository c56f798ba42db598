// All layers of a pass with one token as one operation, for backends that have it: what would else
// be norms, linears, RoPE, attention and gates, one after the other, with the same roundings.
#pragma once

#include <span>

#include "kernels/activation.h"
#include "kernels/batch.h"
#include "kernels/weight.h"

namespace mantissa {

// How a layer's activation is gated: fn(gate) * up.
enum class GateFn : uint8_t { kSilu, kGeluTanh };

struct RopeParams {
  const float* inv_freq =
      nullptr;  // [rotary_dim / 2] float32, scaling applied: part of the model's definition
  int32_t rotary_dim = 0;      // <= D; the rest passes through
  float attention_factor = 1;  // multiplies cos and sin (yarn, longrope)
};

struct AttentionParams {
  int32_t heads = 0;   // query heads; KV heads stand in KvShape
  float scale = 0;     // of q k^T: 1 / sqrt(D) for llama
  int32_t window = 0;  // 0: full; else keys in (position - window, position]
  float soft_cap = 0;  // 0: none; else cap * tanh(score / cap)
};

enum DecodeRole : uint8_t { kDecodeQkv, kDecodeOut, kDecodeGateUp, kDecodeDown };
inline constexpr int kDecodeLinears = 4;

struct DecodeLinear {
  const Weight* weight = nullptr;
  const float* bias = nullptr;          // [N]; nullptr: none
  const float* static_scale = nullptr;  // [1] of a static input
};
struct DecodeLayer {
  DecodeLinear linears[kDecodeLinears];
  const float *attention_gain = nullptr, *mlp_gain = nullptr;  // [hidden] of the norms before
  AttentionParams attention;
  RopeParams rope;
};
// Layers that add each branch's result to the stream as it is: x += out(attention(norm(x))), x +=
// down(gate(gate_up(norm(x)))).
struct DecodePass {
  std::span<const DecodeLayer> layers;
  std::span<const KvLayer> kv;
  GateFn gate = GateFn::kSilu;
  float eps = 0;
  View x;  // [1, hidden]: embeddings in, the stream after the last layer out
};

}  // namespace mantissa
