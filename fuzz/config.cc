// Any bytes as config.json and, after a byte 0, generation_config.json: refused with an Error, or
// every number is in its range and quantization_config names formats.
#include "io/config.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "io/dialects.h"

using mantissa::check;

namespace {

// Every optional key and every kind of layer at once, beside Llama's rules.
constexpr mantissa::KeyDefault kDefaults[] = {
    {"max_position_embeddings", 4096}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000},
    {"rope_local_base_freq", 10000},   {"sliding_window", 64}, {"sliding_window_pattern", 6},
    {"no_rope_layer_interval", 4},     {"head_dim", 64}};
const mantissa::ConfigRules kRules[] = {
    {},
    {.keys = "attention_bias,mlp_bias,sliding_window,use_sliding_window,layer_types,"
             "sliding_window_pattern,no_rope_layers,partial_rotary_factor,query_pre_attn_scalar,"
             "attn_logit_softcapping,final_logit_softcapping,embedding_multiplier,"
             "residual_multiplier,attention_multiplier,logits_scaling",
     .defaults = kDefaults,
     .windows = mantissa::WindowRule::kAllButEvery,
     .local_rope = true},
};

void parse(std::string_view all, const mantissa::ConfigRules& rules) {
  const size_t end = all.find('\0');
  const bool has_generation = end != std::string_view::npos;
  try {
    const mantissa::ModelConfig c = mantissa::parse_model_config(
        all.substr(0, end), has_generation ? std::optional(all.substr(end + 1)) : std::nullopt,
        rules);
    check(static_cast<int64_t>(c.layers.size()) == c.num_hidden_layers, "every layer is described");
    const int64_t rotary = c.rope.rotary_dim(c.head_dim);
    check(rotary >= 2 && rotary % 2 == 0 && rotary <= c.head_dim, "rotary pairs within a head");
    for (const mantissa::LayerConfig& layer : c.layers) check(layer.window >= 0, "a window");
    check(c.hidden_size > 0 && c.intermediate_size > 0 && c.vocab_size > 0, "sizes are positive");
    check(c.num_hidden_layers > 0 && c.max_position_embeddings > 0, "sizes are positive");
    check(c.num_key_value_heads > 0 && c.num_attention_heads % c.num_key_value_heads == 0,
          "whole groups of heads");
    check(c.head_dim > 0 && c.head_dim % 2 == 0, "pairs for rotary embeddings");
    check(c.rms_norm_eps > 0 && c.rope.theta >= 1, "positive numbers");
    check(c.has_generation_config == has_generation, "generation_config.json was read");
    for (const int32_t id : c.eos_token_ids) check(0 <= id && id < c.vocab_size, "ids in range");
    for (const int32_t id : c.bos_token_ids) check(0 <= id && id < c.vocab_size, "ids in range");
    if (!c.quantization_config.empty()) {
      mantissa::QuantizationConfig q = mantissa::QuantizationConfig::parse(c.quantization_config);
      for (const char* module : {"model.layers.0.self_attn.q_proj", "lm_head"}) {
        const mantissa::StoredScheme* stored = q.find(module);
        check(stored == nullptr || stored->scheme.weight.quantized(), "a weight's format");
        check(stored == nullptr || !stored->scheme.name.empty(), "a scheme with a name");
      }
    }
    check(c.generation.temperature.value_or(1) >= 0, "temperature in range");
    check(c.generation.top_p.value_or(1) > 0, "top_p in range");
  } catch (const mantissa::Error& error) {
    check(!error.found.empty() && !error.fix.empty(), "an error says something");
    check(error.found.find('\n') == std::string::npos, "an error's text is one line");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  for (const mantissa::ConfigRules& rules : kRules) parse(all, rules);
  return 0;
}
