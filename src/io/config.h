// config.json and generation_config.json of a model folder, read and validated. Knows Hugging
// Face's field names and ranges, not architectures: which model_type exists is the model layer's
// table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
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

// rope_scaling, or the scaling part of rope_parameters. Fields that a type does not use keep 0.
struct RopeScaling {
  std::string type = "default";  // default, linear, dynamic, llama3, yarn, longrope
  double factor = 0;             // all but default (longrope: 0 where not given)
  double low_freq_factor = 0, high_freq_factor = 0;  // llama3
  int64_t original_max_position_embeddings = 0;      // llama3; yarn, longrope: 0 where not given
  double attention_factor = 0;                       // yarn, longrope: 0 where not given
  double beta_fast = 0, beta_slow = 0;               // yarn: 0 where not given
  std::vector<double> short_factor, long_factor;     // longrope
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
  double rms_norm_eps = 0, rope_theta = 0;
  RopeScaling rope_scaling;
  std::string hidden_act;  // "silu"
  bool tie_word_embeddings = false, attention_bias = false, mlp_bias = false;
  std::optional<int64_t> sliding_window;  // tokens; nullopt: full attention
  const Elem* dtype = nullptr;  // torch_dtype or dtype: kBF16, kF16, kF32; nullptr: not given
  // Ids below vocab_size. From generation_config.json where it has them, else from config.json.
  std::vector<int32_t> bos_token_ids, eos_token_ids;
  std::string quantization_config;  // its JSON text; empty where the checkpoint is not quantized
  GenerationConfig generation;
  bool has_generation_config = false;
  // One line for each field that was not given and got Llama's default, to be shown to the user:
  // "rope_theta = 10000 (not in config.json)".
  std::vector<std::string> defaults_used;
};

// Only model_type and architectures: call first, so that an unknown architecture is reported as
// such and not by the first field that it lacks. Throws Error.
ModelId read_model_id(const std::filesystem::path& folder);
// config.json is required, generation_config.json is optional. Throws Error naming file and field.
ModelConfig read_model_config(const std::filesystem::path& folder);

// The same from memory, for tests and fuzzing. generation_json: nullopt where there is no such
// file.
ModelConfig parse_model_config(std::string_view config_json,
                               std::optional<std::string_view> generation_json = std::nullopt);

}  // namespace mantissa
