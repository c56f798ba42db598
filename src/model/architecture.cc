#include "model/architecture.h"

#include "base/error.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Architecture kArchitectures[] = {
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head",
     .layer_prefix = "model.layers.",
     .attention_norm = "input_layernorm", .mlp_norm = "post_attention_layernorm",
     .linears = {{
         {"self_attn.qkv_proj", {{{"self_attn.q_proj", Size::kQueries}, {"self_attn.k_proj", Size::kKeys}, {"self_attn.v_proj", Size::kKeys}}},
          Size::kHidden, &ModelConfig::attention_bias, Parallel::kColumns},
         {"self_attn.o_proj", {{{"self_attn.o_proj", Size::kHidden}}}, Size::kQueries, &ModelConfig::attention_bias, Parallel::kRows},
         {"mlp.gate_up_proj", {{{"mlp.gate_proj", Size::kInner}, {"mlp.up_proj", Size::kInner}}}, Size::kHidden, &ModelConfig::mlp_bias, Parallel::kColumns},
         {"mlp.down_proj", {{{"mlp.down_proj", Size::kHidden}}}, Size::kInner, &ModelConfig::mlp_bias, Parallel::kRows},
     }},
     .rope_types = "default,llama3",
     .derived_tensors = "rotary_emb.inv_freq"},
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
    case Size::kInner:
      return c.intermediate_size;
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
    if (a.model_type == id.model_type) return a;
  }
  throw Error(
      text(file, ": model_type \"", id.model_type, "\" is not an architecture this build knows"),
      text("use a model of one of these types: ",
           list_column(architectures(), &Architecture::model_type)));
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
