// The table of architectures: one row says how a model_type reads config.json, how its tensors are
// called and what its block is made of. Layout, transformer, loader and plan read it; nothing else
// knows a model_type.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "io/config.h"
#include "kernels/ops.h"

namespace mantissa {

// Sizes that a weight's dimensions are made of. kQkv: queries, keys and values; kGateUp: twice the
// inner size.
enum class Size : uint8_t { kHidden, kQueries, kKeys, kQkv, kInner, kGateUp, kVocab };
int64_t size_of(Size size, const ModelConfig& config);

// How tensor parallelism will split a weight W[N, K]: by outputs, by inputs or not.
enum class Parallel : uint8_t { kNone, kColumns, kRows };

// Which linears have a bias: none, those whose flag config.json sets, or always.
enum class Bias : uint8_t { kNone, kAttentionFlag, kMlpFlag, kAlways };

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
  Bias bias = Bias::kNone;
  Parallel parallel = Parallel::kNone;
};
enum LinearRole { kQkv, kAttentionOut, kGateUp, kDown, kLinearRoles };

// Where a layer normalizes: a branch's input, and its output before it is added to the stream.
enum NormRole { kAttentionIn, kAttentionResult, kMlpIn, kMlpResult, kNormRoles };

// Norms of queries and keys before they are rotated: of each head, or over all heads at once.
enum class HeadNorms : uint8_t { kNone, kEachHead, kAllHeads };

struct Architecture {
  std::string_view model_type;   // config.json: "llama"
  std::string_view class_name;   // config.json's architectures
  ConfigRules config;            // how its config.json is read
  std::string_view prefix = "";  // before every tensor's name
  std::string_view embed = "model.embed_tokens", final_norm = "model.norm", head = "lm_head";
  std::string_view layer_prefix = "model.layers.";  // + index + "."
  std::array<std::string_view, kNormRoles> norms;   // by NormRole, in the layer; "": there is none
  std::array<LinearRow, kLinearRoles> linears;      // by LinearRole, in the layer
  HeadNorms head_norms = HeadNorms::kNone;          // self_attn.q_norm and self_attn.k_norm
  float norm_offset = 0;                            // a norm's gain is this + its tensor
  bool embedding_by_root = false;  // embeddings times sqrt(hidden) in the run dtype
  std::string_view rope_types;     // comma-separated rope_scaling types that are implemented
  // Comma-separated suffixes that may be left unread: buffers old exporters saved, recomputed from
  // config.json.
  std::string_view derived_tensors = "";
};
std::span<const Architecture> architectures();

// The row of this model_type. Throws Error listing the known ones, or when config.json names a
// class of the family that is no causal language model.
const Architecture& find_architecture(const ModelId& id, const std::string& file);

// config.json of the folder by the rules of its row. Throws Error.
ModelConfig read_config(const std::filesystem::path& folder);

// hidden_act -> the gate's function. Throws Error listing the known ones.
GateFn find_gate(const std::string& hidden_act);

}  // namespace mantissa
