#include "model/architecture.h"

#include <algorithm>

#include "base/error.h"

namespace mantissa {
namespace {

// clang-format off
// What transformers' configuration classes assume.
constexpr KeyDefault kMistralDefaults[] = {
    {"num_key_value_heads", 8}, {"max_position_embeddings", 131072}, {"rms_norm_eps", 1e-6},
    {"rope_theta", 10000}, {"sliding_window", 4096}};
constexpr KeyDefault kQwenDefaults[] = {
    {"max_position_embeddings", 32768}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000},
    {"sliding_window", 4096}, {"max_window_layers", 28}};
constexpr KeyDefault kQwen3Defaults[] = {
    {"head_dim", 128}, {"max_position_embeddings", 32768}, {"rms_norm_eps", 1e-6},
    {"rope_theta", 10000}, {"sliding_window", 4096}, {"max_window_layers", 28}};
constexpr KeyDefault kPhi3Defaults[] = {
    {"max_position_embeddings", 4096}, {"original_max_position_embeddings", 4096},
    {"rms_norm_eps", 1e-5}, {"rope_theta", 10000}};
constexpr KeyDefault kGemma2Defaults[] = {
    {"num_key_value_heads", 4}, {"head_dim", 256}, {"max_position_embeddings", 8192},
    {"rms_norm_eps", 1e-6}, {"rope_theta", 10000}, {"tie_word_embeddings", 1},
    {"query_pre_attn_scalar", 256}, {"sliding_window", 4096}, {"sliding_window_pattern", 2},
    {"attn_logit_softcapping", 50}, {"final_logit_softcapping", 30}};
constexpr KeyDefault kGemma3Defaults[] = {
    {"vocab_size", 262208}, {"num_attention_heads", 8}, {"num_key_value_heads", 4},
    {"head_dim", 256}, {"max_position_embeddings", 131072}, {"rms_norm_eps", 1e-6},
    {"rope_theta", 1e6}, {"rope_local_base_freq", 1e4}, {"tie_word_embeddings", 1},
    {"query_pre_attn_scalar", 256}, {"sliding_window", 4096}, {"sliding_window_pattern", 6}};
constexpr KeyDefault kOlmo2Defaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-5}, {"rope_theta", 10000}};
constexpr KeyDefault kOlmo3Defaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-5}, {"rope_theta", 5e5},
    {"rope_local_base_freq", 5e5}, {"sliding_window", 4096}, {"sliding_window_pattern", 4}};
constexpr KeyDefault kGraniteDefaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000},
    {"embedding_multiplier", 1}, {"residual_multiplier", 1}, {"attention_multiplier", 1},
    {"logits_scaling", 1}};
constexpr KeyDefault kSmolLm3Defaults[] = {
    {"num_key_value_heads", 4}, {"max_position_embeddings", 32768}, {"rms_norm_eps", 1e-6},
    {"rope_theta", 2e6}, {"tie_word_embeddings", 1}, {"no_rope_layer_interval", 4}};

// Linears of Llama's shape: q, k, v and gate, up as tensors of their own.
constexpr std::array<LinearRow, kLinearRoles> split_linears(Bias qkv, Bias out, Bias mlp) {
  return {{
      {"self_attn.qkv_proj", {{{"self_attn.q_proj", Size::kQueries}, {"self_attn.k_proj", Size::kKeys}, {"self_attn.v_proj", Size::kKeys}}},
       Size::kHidden, qkv, Parallel::kColumns},
      {"self_attn.o_proj", {{{"self_attn.o_proj", Size::kHidden}}}, Size::kQueries, out, Parallel::kRows},
      {"mlp.gate_up_proj", {{{"mlp.gate_proj", Size::kInner}, {"mlp.up_proj", Size::kInner}}}, Size::kHidden, mlp, Parallel::kColumns},
      {"mlp.down_proj", {{{"mlp.down_proj", Size::kHidden}}}, Size::kInner, mlp, Parallel::kRows},
  }};
}
// The same matrices, already one below the other in the checkpoint.
constexpr std::array<LinearRow, kLinearRoles> fused_linears() {
  return {{
      {"self_attn.qkv_proj", {{{"self_attn.qkv_proj", Size::kQkv}}}, Size::kHidden, Bias::kNone, Parallel::kColumns},
      {"self_attn.o_proj", {{{"self_attn.o_proj", Size::kHidden}}}, Size::kQueries, Bias::kNone, Parallel::kRows},
      {"mlp.gate_up_proj", {{{"mlp.gate_up_proj", Size::kGateUp}}}, Size::kHidden, Bias::kNone, Parallel::kColumns},
      {"mlp.down_proj", {{{"mlp.down_proj", Size::kHidden}}}, Size::kInner, Bias::kNone, Parallel::kRows},
  }};
}
constexpr std::array<std::string_view, kNormRoles> kPreNorms = {
    "input_layernorm", "", "post_attention_layernorm", ""};
constexpr std::array<std::string_view, kNormRoles> kPostNorms = {
    "", "post_attention_layernorm", "", "post_feedforward_layernorm"};
constexpr std::array<std::string_view, kNormRoles> kBothNorms = {
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"};
constexpr ConfigRules kGemma3Config = {
    .keys = "attention_bias,sliding_window,sliding_window_pattern,layer_types,rope_local_base_freq,"
            "query_pre_attn_scalar,attn_logit_softcapping,final_logit_softcapping",
    .defaults = kGemma3Defaults, .activation_key = "hidden_activation",
    .activation = "gelu_pytorch_tanh", .windows = WindowRule::kAllButEvery, .local_rope = true};
constexpr ConfigRules in_section(ConfigRules rules, std::string_view section) {
  rules.section = section;
  return rules;
}
constexpr std::string_view kEveryRope = "default,linear,dynamic,llama3,yarn";

constexpr Architecture kArchitectures[] = {
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .config = {},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kMlpFlag),
     .rope_types = kEveryRope,
     .derived_tensors = "rotary_emb.inv_freq"},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .config = {.keys = "sliding_window", .defaults = kMistralDefaults, .windows = WindowRule::kEveryLayer},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kNone, Bias::kNone, Bias::kNone),
     .rope_types = kEveryRope,
     .derived_tensors = "rotary_emb.inv_freq"},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .config = {.keys = "use_sliding_window,sliding_window,max_window_layers,layer_types",
                .defaults = kQwenDefaults, .windows = WindowRule::kUpperLayers},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kAlways, Bias::kNone, Bias::kNone),
     .rope_types = kEveryRope,
     .derived_tensors = "rotary_emb.inv_freq"},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .config = {.keys = "attention_bias,use_sliding_window,sliding_window,max_window_layers,layer_types",
                .defaults = kQwen3Defaults, .windows = WindowRule::kUpperLayers},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .head_norms = HeadNorms::kEachHead,
     .rope_types = kEveryRope},
    {.model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .config = {.keys = "sliding_window,partial_rotary_factor", .defaults = kPhi3Defaults,
                .windows = WindowRule::kEveryLayer},
     .norms = kPreNorms,
     .linears = fused_linears(),
     .rope_types = "default,longrope",
     .derived_tensors = "rotary_emb.inv_freq"},
    {.model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .config = {.keys = "attention_bias,sliding_window,layer_types,query_pre_attn_scalar,attn_logit_softcapping,final_logit_softcapping",
                .defaults = kGemma2Defaults, .activation_key = "hidden_activation",
                .activation = "gelu_pytorch_tanh", .windows = WindowRule::kAllButEvery},
     .norms = kBothNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .norm_offset = 1,
     .embedding_by_root = true,
     .rope_types = kEveryRope},
    {.model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .config = kGemma3Config,
     .norms = kBothNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .head_norms = HeadNorms::kEachHead,
     .norm_offset = 1,
     .embedding_by_root = true,
     .rope_types = kEveryRope},
    {.model_type = "gemma3",
     .class_name = "Gemma3ForConditionalGeneration",
     .config = in_section(kGemma3Config, "text_config"),
     .prefix = "language_model.",
     .norms = kBothNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .head_norms = HeadNorms::kEachHead,
     .norm_offset = 1,
     .embedding_by_root = true,
     .rope_types = kEveryRope},
    {.model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .config = {.keys = "attention_bias", .defaults = kOlmo2Defaults},
     .norms = kPostNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .head_norms = HeadNorms::kAllHeads,
     .rope_types = kEveryRope},
    {.model_type = "olmo3",
     .class_name = "Olmo3ForCausalLM",
     .config = {.keys = "attention_bias,sliding_window,layer_types", .defaults = kOlmo3Defaults,
                .windows = WindowRule::kAllButEvery, .local_rope = true},
     .norms = kPostNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kNone),
     .head_norms = HeadNorms::kAllHeads,
     .rope_types = kEveryRope},
    {.model_type = "granite",
     .class_name = "GraniteForCausalLM",
     .config = {.keys = "attention_bias,mlp_bias,embedding_multiplier,residual_multiplier,attention_multiplier,logits_scaling",
                .defaults = kGraniteDefaults},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kMlpFlag),
     .rope_types = kEveryRope},
    {.model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .config = {.keys = "attention_bias,mlp_bias,use_sliding_window,sliding_window,layer_types,no_rope_layers",
                .defaults = kSmolLm3Defaults, .windows = WindowRule::kRopeless},
     .norms = kPreNorms,
     .linears = split_linears(Bias::kAttentionFlag, Bias::kAttentionFlag, Bias::kMlpFlag),
     .rope_types = kEveryRope},
};

struct GateRow { std::string_view name; GateFn fn; };
constexpr GateRow kGates[] = {
    {"silu", GateFn::kSilu}, {"swish", GateFn::kSilu}, {"gelu_pytorch_tanh", GateFn::kGeluTanh},
};
// clang-format on

// "a, b": one column of a table, for messages.
template <class Row>
std::string list_column(std::span<const Row> rows, std::string_view Row::*column) {
  std::string all;
  for (const Row& row : rows) all += (all.empty() ? "" : ", ") + std::string(row.*column);
  return all;
}

}  // namespace

int64_t size_of(Size size, const ModelConfig& c) {
  switch (size) {
    case Size::kHidden:
      return c.hidden_size;
    case Size::kQueries:
      return c.num_attention_heads * c.head_dim;
    case Size::kKeys:
      return c.num_key_value_heads * c.head_dim;
    case Size::kQkv:
      return (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
    case Size::kInner:
      return c.intermediate_size;
    case Size::kGateUp:
      return 2 * c.intermediate_size;
    case Size::kVocab:
      return c.vocab_size;
  }
  check(false, "a known Size");
  return 0;
}

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture& find_architecture(const ModelId& id, const std::string& file) {
  for (const Architecture& a : kArchitectures) {
    if (a.model_type != id.model_type) continue;
    const auto is_known = [&](const std::string& name) { return name == a.class_name; };
    if (id.architectures.empty() || std::ranges::any_of(id.architectures, is_known)) return a;
    throw Error(text(file, ": architectures names ", id.architectures.front(),
                     ", which is no causal language model of the family ", a.model_type),
                text("use a model of the class ", a.class_name));
  }
  throw Error(
      text(file, ": model_type \"", id.model_type, "\" is not an architecture this build knows"),
      text("use a model of one of these types: ",
           list_column(architectures(), &Architecture::model_type)));
}

ModelConfig read_config(const std::filesystem::path& folder) {
  const Architecture& row =
      find_architecture(read_model_id(folder), (folder / "config.json").string());
  return read_model_config(folder, row.config);
}

GateFn find_gate(const std::string& hidden_act) {
  for (const GateRow& row : kGates) {
    if (row.name == hidden_act) return row.fn;
  }
  throw Error(
      text("config.json: hidden_act \"", hidden_act, "\" is not implemented"),
      text("known activations: ", list_column(std::span<const GateRow>(kGates), &GateRow::name)));
}

}  // namespace mantissa
