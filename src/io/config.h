// config.json and generation_config.json of a model folder, read and validated. Knows Hugging
// Face's field names and ranges, not architectures: which model_type exists, and which keys it
// reads, is the model layer's table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/elem.h"

namespace mantissa {

// What says which architecture it is; readable for every model, supported or not.
struct ModelId {
  std::string model_type;                  // "llama"
  std::vector<std::string> architectures;  // {"LlamaForCausalLM"}; may be empty
};

// Rotary embedding of some layers: rope_theta and rope_scaling, or rope_parameters. Fields that a
// type does not use keep their value here; "0: not given" where a formula stands in for it.
struct RopeConfig {
  std::string type = "default";  // default, linear, dynamic, llama3, yarn, longrope
  double theta = 0;
  double rotary_fraction = 1;                        // partial_rotary_factor: of head_dim
  double factor = 0;                                 // all but default (longrope: 0: not given)
  double low_freq_factor = 0, high_freq_factor = 0;  // llama3
  int64_t original_max_position_embeddings = 0;      // llama3, yarn, longrope
  double attention_factor = 0;                       // yarn, longrope; 0: not given
  double beta_fast = 0, beta_slow = 0;               // yarn; 0: not given
  double mscale = 0, mscale_all_dim = 0;             // yarn; 0: not given
  bool truncate = true;                              // yarn
  std::vector<double> short_factor, long_factor;     // longrope, [rotary_dim / 2]
  int64_t rotary_dim(int64_t head_dim) const;
};

// What attention does in one layer.
struct LayerConfig {
  int64_t window = 0;       // the last `window` tokens are seen; 0: all
  bool rope = true;         // false: no rotary embedding
  bool local_rope = false;  // ModelConfig::local_rope instead of ::rope
};

// Sampling defaults of the model's authors; nullopt where the file does not say.
struct GenerationConfig {
  std::optional<bool> do_sample;
  std::optional<double> temperature;         // >= 0
  std::optional<double> top_p;               // in (0, 1]
  std::optional<int64_t> top_k;              // 0 and -1: all tokens
  std::optional<double> min_p;               // in [0, 1]
  std::optional<double> repetition_penalty;  // > 0
  std::optional<int64_t> max_new_tokens;     // >= 1
};

struct ModelConfig {
  ModelId id;
  int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t vocab_size = 0, max_position_embeddings = 0;
  double rms_norm_eps = 0;
  RopeConfig rope, local_rope;      // local_rope: of windowed layers, where the family has one
  std::vector<LayerConfig> layers;  // [num_hidden_layers]
  std::string hidden_act;           // "silu"
  bool tie_word_embeddings = false, attention_bias = false, mlp_bias = false;
  double query_pre_attn_scalar = 0;  // scores times this^-1/2; 0: head_dim
  double attention_multiplier = 0;   // scores times this; 0: not given
  double attn_logit_softcapping = 0, final_logit_softcapping = 0;  // 0: none
  double embedding_multiplier = 1, residual_multiplier = 1;
  double logits_scaling = 1;    // logits divided by this
  const Elem* dtype = nullptr;  // torch_dtype or dtype: kBF16, kF16, kF32; nullptr: not given
  // Ids below vocab_size. From generation_config.json where it has them, else from config.json.
  std::vector<int32_t> bos_token_ids, eos_token_ids;
  std::string quantization_config;  // its JSON text; empty where the checkpoint is not quantized
  GenerationConfig generation;
  bool has_generation_config = false;
  // To be shown to the user: one line for each field that was not given and got the family's
  // default, "rope_theta = 10000 (not in config.json)", and for each part that is left out.
  std::vector<std::string> defaults_used;
};

// Which layers of a family have a window, where layer_types does not say it.
enum class WindowRule : uint8_t {
  kNone,         // the family has no windows
  kEveryLayer,   // sliding_window in every layer
  kUpperLayers,  // from layer max_window_layers on, if use_sliding_window
  kAllButEvery,  // but every sliding_window_pattern-th layer
  kRopeless,     // layers without RoPE, if use_sliding_window
};

// A value that the family's class in transformers assumes where config.json does not give it.
struct KeyDefault {
  std::string_view key;
  double value;
};

inline constexpr KeyDefault kLlamaDefaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000}};

// How a family of models reads config.json; a row of the model layer's table has one. The values
// here are Llama's.
struct ConfigRules {
  std::string_view section =
      "";  // the object that describes the language model; "": the whole file
  // Optional keys that the family reads, comma-separated. Other keys that config.cc knows are
  // refused where they are set: they would change the results.
  std::string_view keys = "attention_bias,mlp_bias";
  std::span<const KeyDefault> defaults = kLlamaDefaults;
  std::string_view activation_key = "hidden_act", activation = "silu";
  WindowRule windows = WindowRule::kNone;
  bool local_rope = false;  // windowed layers have RoPE parameters of their own
};

// Only model_type and architectures: call first, so that an unknown architecture is reported as
// such and not by the first field that it lacks. Throws Error.
ModelId read_model_id(const std::filesystem::path& folder);
// config.json is required, generation_config.json is optional. Throws Error naming file and field.
ModelConfig read_model_config(const std::filesystem::path& folder, const ConfigRules& rules = {});

// The same from memory, for tests and fuzzing. generation_json: nullopt where there is no such
// file.
ModelConfig parse_model_config(std::string_view config_json,
                               std::optional<std::string_view> generation_json = std::nullopt,
                               const ConfigRules& rules = {});

}  // namespace mantissa
