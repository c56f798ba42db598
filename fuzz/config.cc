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

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = all.find('\0');
  const bool has_generation = end != std::string_view::npos;
  try {
    const mantissa::ModelConfig c = mantissa::parse_model_config(
        all.substr(0, end), has_generation ? std::optional(all.substr(end + 1)) : std::nullopt);
    check(c.hidden_size > 0 && c.intermediate_size > 0 && c.vocab_size > 0, "sizes are positive");
    check(c.num_hidden_layers > 0 && c.max_position_embeddings > 0, "sizes are positive");
    check(c.num_key_value_heads > 0 && c.num_attention_heads % c.num_key_value_heads == 0,
          "whole groups of heads");
    check(c.head_dim > 0 && c.head_dim % 2 == 0, "pairs for rotary embeddings");
    check(c.rms_norm_eps > 0 && c.rope_theta >= 1, "positive numbers");
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
  return 0;
}
