// The table of architectures: one row says which config keys, weight names and block options a
// model_type has. The transformer, the loader and the plan read it; nothing else knows a
// model_type.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "io/config.h"
#include "kernels/ops.h"

namespace mantissa {

// Sizes that a weight's dimensions are made of.
enum class Size : uint8_t { kHidden, kQueries, kKeys, kInner, kVocab };
int64_t size_of(Size size, const ModelConfig& config);

// How tensor parallelism will split a weight W[N, K]: by outputs, by inputs or not.
enum class Parallel : uint8_t { kNone, kColumns, kRows };

// A tensor of the checkpoint, NAME.weight (and NAME.bias), that fills some rows of a linear.
struct PartRow {
  std::string_view name;
  Size rows = Size::kHidden;
};

// One linear of a layer; several parts stand one below the other in one matrix.
struct LinearRow {
  std::string_view module;       // of the fused whole, for plans: "self_attn.qkv_proj"
  std::array<PartRow, 3> parts;  // unused ones have no name
  Size cols = Size::kHidden;
  bool ModelConfig::*bias = nullptr;  // nullptr: never
  Parallel parallel = Parallel::kNone;
};
enum LinearRole { kQkv, kAttentionOut, kGateUp, kDown, kLinearRoles };

struct Architecture {
  std::string_view model_type;                  // config.json: "llama"
  std::string_view class_name;                  // config.json's architectures: "LlamaForCausalLM"
  std::string_view embed, final_norm, head;     // modules; tensors are MODULE.weight
  std::string_view layer_prefix;                // "model.layers." + index + "."
  std::string_view attention_norm, mlp_norm;    // in the layer
  std::array<LinearRow, kLinearRoles> linears;  // by LinearRole
  std::string_view rope_types;       // comma-separated rope_scaling types that are implemented
  std::string_view derived_tensors;  // comma-separated suffixes that may be left unread: buffers
                                     // old exporters saved, recomputed from config.json
};
std::span<const Architecture> architectures();

// The row of this model_type. Throws Error listing the known ones.
const Architecture& find_architecture(const ModelId& id, const std::string& file);

// hidden_act -> the gate's function. Throws Error listing the known ones.
GateFn find_gate(const std::string& hidden_act);

}  // namespace mantissa
