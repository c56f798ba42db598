// How each row of the table of architectures reads config.json: files as their publishers wrote
// them (keys that do not matter here left out), and what is refused.
#include "model/architecture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/rope.h"

namespace mantissa::test {
namespace {

const Architecture& row_of(std::string_view type) {
  return find_architecture({.model_type = std::string(type), .architectures = {}}, "config.json");
}

ModelConfig parse(std::string_view type, std::string_view json) {
  return parse_model_config(json, std::nullopt, row_of(type).config);
}

int64_t windowed(const ModelConfig& config) {
  return std::ranges::count_if(config.layers, [](const LayerConfig& l) { return l.window > 0; });
}

TEST(Architectures, Gemma3SectionIsSparse) {
  // gemma-3-4b-it: everything else is the class's default
  const ModelConfig c = parse("gemma3", R"({
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "eos_token_id": [1, 106], "torch_dtype": "bfloat16", "image_token_index": 262144,
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "sliding_window": 1024,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"}})");
  EXPECT_EQ(c.vocab_size, 262208);
  EXPECT_EQ(c.num_attention_heads, 8);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.hidden_act, "gelu_pytorch_tanh");
  EXPECT_EQ(c.query_pre_attn_scalar, 256);
  EXPECT_EQ(c.attn_logit_softcapping, 0);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(c.dtype, &kBF16);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{1, 106}));
  EXPECT_EQ(windowed(c), 29);
  EXPECT_EQ(c.layers[5].window, 0);
  EXPECT_FALSE(c.layers[5].local_rope);
  EXPECT_TRUE(c.layers[4].local_rope);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.rope.type, "linear");
  EXPECT_EQ(c.local_rope.theta, 1e4);
  EXPECT_EQ(c.local_rope.type, "default");
  EXPECT_NE(c.defaults_used.back().find("vision_config: not read"), std::string::npos);
}

TEST(Architectures, Gemma2) {
  const ModelConfig c = parse("gemma2", R"({"model_type": "gemma2", "vocab_size": 256000,
    "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "head_dim": 256,
    "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": false, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": null})");
  EXPECT_EQ(windowed(c), 21);
  EXPECT_EQ(c.layers[0].window, 4096);
  EXPECT_EQ(c.layers[1].window, 0);
  EXPECT_EQ(c.attn_logit_softcapping, 50);
  EXPECT_EQ(c.final_logit_softcapping, 0) << "null means none, not the default";
}

TEST(Architectures, Qwen2AndQwen3) {
  const char* qwen = R"({"model_type": "qwen", "vocab_size": 152064, "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "hidden_act": "silu", "use_sliding_window": false,
    "sliding_window": 131072, "max_window_layers": 28, "tie_word_embeddings": false,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}})";
  const ModelConfig c = parse("qwen2", qwen);
  EXPECT_EQ(windowed(c), 0);
  EXPECT_EQ(context_limit(c), 131072) << "yarn stretches the context";
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(parse("qwen3", qwen).head_dim, 128);
}

TEST(Architectures, Phi3) {
  // Phi-3-mini-128k of the first days: "su"
  std::string factors = "1.05";
  for (int i = 1; i < 48; ++i) factors += ", 1.1";
  const ModelConfig c = parse("phi3", text(R"({"model_type": "phi3", "vocab_size": 32064,
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "hidden_act": "silu", "attention_bias": false, "sliding_window": 262144,
    "tie_word_embeddings": false, "rope_scaling": {"type": "su", "long_factor": [)",
                                           factors, R"(], "short_factor": [)", factors, "]}}"));
  EXPECT_EQ(c.rope.type, "longrope");
  EXPECT_EQ(c.rope.original_max_position_embeddings, 4096);
  EXPECT_EQ(windowed(c), 32);
  const RopeFrequencies f = rope_frequencies(c, c.rope, 131072, "longrope");
  EXPECT_FLOAT_EQ(f.attention_factor,
                  static_cast<float>(std::sqrt(1 + std::log(32.0) / std::log(4096.0))));
  EXPECT_FLOAT_EQ(f.inv_freq[0], 1 / 1.05f);
}

TEST(Architectures, SmolLm3AndGraniteAndOlmo2) {
  const ModelConfig smol = parse("smollm3", R"({"model_type": "smollm3", "vocab_size": 128256,
    "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-06, "rope_theta": 5000000.0, "hidden_act": "silu", "attention_bias": false,
    "mlp_bias": false, "max_window_layers": 28, "no_rope_layer_interval": 4, "sliding_window": null,
    "use_sliding_window": false, "pretraining_tp": 2})");
  EXPECT_EQ(std::ranges::count(smol.layers, false, &LayerConfig::rope), 9);
  EXPECT_FALSE(smol.layers[3].rope);
  EXPECT_TRUE(smol.tie_word_embeddings);
  const ModelConfig granite = parse("granite", R"({"model_type": "granite", "vocab_size": 49155,
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05, "rope_theta": 5000000.0, "hidden_act": "silu", "attention_bias": false,
    "mlp_bias": false, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
    "attention_multiplier": 0.015625, "logits_scaling": 8.0, "tie_word_embeddings": true})");
  EXPECT_EQ(granite.embedding_multiplier, 12);
  EXPECT_EQ(granite.attention_multiplier, 0.015625);
  const ModelConfig olmo = parse("olmo2", R"({"model_type": "olmo2", "vocab_size": 100352,
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06, "rope_theta": 500000, "hidden_act": "silu", "attention_bias": false,
    "rope_scaling": null, "tie_word_embeddings": false})");
  EXPECT_EQ(olmo.head_dim, 128);
}

std::string refusal(std::string_view type, std::string_view json) {
  try {
    const ModelConfig config = parse(type, json);
    const Architecture& row = row_of(type);
    rope_frequencies(config, config.rope, 64, row.rope_types);
    find_gate(config.hidden_act);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Architectures, RefusalsNameTheKey) {
  struct Refusal {
    const char *type, *changes, *says;
  };
  // clang-format off
  const Refusal refusals[] = {
      {"mistral", R"("layer_types": ["sliding_attention"])", "layer_types is set"},
      {"mistral", R"("attention_bias": true)", "attention_bias is set"},
      {"qwen2",   R"("mlp_bias": true)", "mlp_bias is set"},
      {"qwen3",   R"("num_experts": 128)", "num_experts is set, which means a mixture of experts"},
      {"qwen2",   R"("rope_scaling": {"type": "mrope", "mrope_section": [1, 1]})", "rope_scaling.type"},
      {"phi3",    R"("rope_scaling": {"type": "yarn", "factor": 4})", "\"yarn\" is not implemented for phi3"},
      {"llama",   R"("rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 4})", "a rope_theta above 1"},
      {"phi3",    R"("original_max_position_embeddings": 1, "rope_scaling": {"type": "longrope"})", "original_max_position_embeddings of at least 2"},
      {"gemma2",  R"("use_bidirectional_attention": true)", "attention to later tokens"},
      {"gemma2",  R"("layer_types": ["chunked_attention"])", "layer_types[0]: expected full_attention or sliding_attention"},
      {"gemma2",  R"("sliding_window": null, "layer_types": ["sliding_attention"])", "sliding_window is not set"},
      {"gemma3_text", R"("rope_parameters": {"rope_type": "default", "rope_theta": 1e4})", "full_attention"},
      {"llama",   R"("hidden_act": "gelu")", "hidden_act \"gelu\" is not implemented"},
      {"llama",   R"("partial_rotary_factor": 0.5)", "partial_rotary_factor"},
      {"llama",   R"("vision_config": {"depth": 2})", "which means images"},
      {"smollm3", R"("no_rope_layers": [2])", "no_rope_layers[0]"},
      {"granite", R"("residual_multiplier": "big")", "residual_multiplier: expected a number"},
  };
  // clang-format on
  for (const Refusal& r : refusals) {
    const std::string said =
        refusal(r.type, text(R"({"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 16, "model_type": ")",
                             r.type, "\", ", r.changes, "}"));
    EXPECT_NE(said.find(r.says), std::string::npos) << r.type << " " << r.changes << "\n" << said;
    EXPECT_NE(said.find("fix: "), std::string::npos) << said;
  }
}

TEST(Architectures, ClassesThatAreNoLanguageModelsAreRefused) {
  const ModelId id{.model_type = "llama", .architectures = {"LlamaForSequenceClassification"}};
  try {
    find_architecture(id, "config.json");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("LlamaForSequenceClassification"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("use a model of the class LlamaForCausalLM"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace mantissa::test
