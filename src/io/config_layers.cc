// What differs between families and between layers in config.json: windows, layers without RoPE,
// multipliers, soft caps, biases; and the keys that no family here reads, refused by name.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "io/config_reader.h"

namespace mantissa {

using json::Kind;
using json::Value;

namespace {

// An optional number; `neutral` changes nothing.
struct OptionalNumber {
  const char* key;
  double ModelConfig::*number;
  double neutral, least, most;
};
struct OptionalFlag {
  const char* key;
  bool ModelConfig::*flag;
};
// clang-format off
constexpr OptionalNumber kNumbers[] = {
    {"query_pre_attn_scalar",  &ModelConfig::query_pre_attn_scalar,  0, 1e-6, 1e6},
    {"attn_logit_softcapping", &ModelConfig::attn_logit_softcapping, 0, 1e-3, 1e6},
    {"final_logit_softcapping",&ModelConfig::final_logit_softcapping,0, 1e-3, 1e6},
    {"embedding_multiplier",   &ModelConfig::embedding_multiplier,   1, 1e-6, 1e6},
    {"residual_multiplier",    &ModelConfig::residual_multiplier,    1, 1e-6, 1e6},
    {"attention_multiplier",   &ModelConfig::attention_multiplier,   0, 1e-6, 1e6},
    {"logits_scaling",         &ModelConfig::logits_scaling,         1, 1e-6, 1e6},
};
constexpr OptionalFlag kFlags[] = {
    {"attention_bias", &ModelConfig::attention_bias},
    {"mlp_bias",       &ModelConfig::mlp_bias},
};
// Read by some families in other ways; set in a config.json of another family they are refused.
constexpr const char* kFamilyKeys[] = {
    "sliding_window", "max_window_layers", "layer_types", "sliding_window_pattern",
    "rope_local_base_freq", "no_rope_layers"};

// What no family here has.
struct ForeignKey {
  const char* key;
  const char* means;
};
constexpr ForeignKey kForeign[] = {
    {"num_experts",               "a mixture of experts"},
    {"num_local_experts",         "a mixture of experts"},
    {"n_routed_experts",          "a mixture of experts"},
    {"enable_moe_block",          "a mixture of experts"},
    {"kv_lora_rank",              "latent attention (MLA)"},
    {"q_lora_rank",               "latent attention (MLA)"},
    {"vision_config",             "images"},
    {"audio_config",              "audio"},
    {"is_encoder_decoder",        "an encoder"},
    {"add_cross_attention",       "cross attention"},
    {"use_bidirectional_attention", "attention to later tokens"},
    {"clip_qkv",                  "clipped queries and keys"},
    {"alibi",                     "ALiBi"},
    {"qk_layernorm",              "layer norms of queries and keys"},
    {"parallel_attn",             "attention beside the MLP"},
    {"rope_interleaved",          "interleaved rotary pairs"},
    {"attn_temperature_tuning",   "attention scaled by position"},
};
// clang-format on

// Anything but null, false, 0 and what is empty.
bool is_set(const Value& value) {
  switch (value.kind()) {
    case Kind::kNull:
      return false;
    case Kind::kBool:
      return value.as_bool();
    case Kind::kNumber:
      return value.as_number() != 0;
    case Kind::kString:
      return !value.as_string().empty();
    case Kind::kArray:
    case Kind::kObject:
      return value.size() > 0;
  }
  return true;
}

[[noreturn]] void refuse(const Value& value, const std::string& why) {
  throw Error(text(kConfigName, ": ", value.path(), " is set, ", why),
              "use another model; if this one was trained without it, remove the key");
}

bool is_sliding(const Value& type) {
  if (type.as_string() == "sliding_attention") return true;
  if (type.as_string() != "full_attention") type.fail("full_attention or sliding_attention");
  return false;
}

// Lists that say what a family without the key does anyhow.
bool is_usual(const Value& list) {
  if (!list.is_array()) return false;
  for (size_t i = 0; i < list.size(); ++i) {
    const Value item = list[i];
    const bool usual =
        item.is_string() ? item.as_string() == "full_attention" : item.is_number() && is_set(item);
    if (!usual) return false;
  }
  return true;
}

int64_t count_key(ConfigReader& reader, const char* key, int64_t most) {
  if (reader.reads(key)) return reader.integer(key, 1, most);
  const std::optional<double> fixed = reader.default_of(key);
  check(fixed.has_value(), "a family's rule for windows has its numbers");
  return static_cast<int64_t>(*fixed);
}

// 0: no windows.
int64_t read_window(ConfigReader& reader) {
  constexpr const char* kKey = "sliding_window";
  if (!reader.reads(kKey)) return 0;
  if (reader.reads("use_sliding_window") && !reader.flag("use_sliding_window")) return 0;
  const std::optional<Value> given = reader.section().find(kKey);
  if (given && given->is_null()) return 0;
  if (!given && !reader.default_of(kKey)) return 0;
  return reader.integer(kKey, 1, kPositionsMax);
}

void read_rope_use(ConfigReader& reader, std::vector<LayerConfig>& layers) {
  if (!reader.reads("no_rope_layers")) return;
  const auto count = static_cast<int64_t>(layers.size());
  if (const std::optional<Value> given = reader.find("no_rope_layers")) {
    if (!given->is_array() || static_cast<int64_t>(given->size()) < count) {
      given->fail(text("an array of at least ", count, " numbers, 0 where there is no RoPE"));
    }
    for (size_t i = 0; i < layers.size(); ++i) layers[i].rope = (*given)[i].as_int(0, 1) == 1;
    return;
  }
  const int64_t interval = reader.integer("no_rope_layer_interval", 1, kPositionsMax);
  for (int64_t i = 0; i < count; ++i) {
    layers[static_cast<size_t>(i)].rope = (i + 1) % interval != 0;
  }
}

// Whether each layer has a window, by the family's rule.
std::vector<bool> sliding_by_rule(ConfigReader& reader, int64_t window,
                                  const std::vector<LayerConfig>& layers) {
  std::vector<bool> sliding(layers.size(), false);
  const WindowRule rule = reader.rules().windows;
  if (window == 0 || rule == WindowRule::kNone) return sliding;
  const int64_t every = rule == WindowRule::kAllButEvery
                            ? count_key(reader, "sliding_window_pattern", kPositionsMax)
                            : 1;
  const int64_t from =
      rule == WindowRule::kUpperLayers ? reader.integer("max_window_layers", 0, kPositionsMax) : 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    sliding[i] = rule == WindowRule::kEveryLayer ||
                 (rule == WindowRule::kUpperLayers && layer >= from) ||
                 (rule == WindowRule::kAllButEvery && (layer + 1) % every != 0) ||
                 (rule == WindowRule::kRopeless && !layers[i].rope);
  }
  return sliding;
}

}  // namespace

void read_layers(ConfigReader& reader, ModelConfig& config) {
  config.layers.assign(static_cast<size_t>(config.num_hidden_layers), {});
  read_rope_use(reader, config.layers);
  const int64_t window = read_window(reader);
  std::vector<bool> sliding;
  const std::optional<Value> types =
      reader.reads("layer_types") ? reader.find("layer_types") : std::nullopt;
  if (types) {
    if (!types->is_array() || types->size() != config.layers.size()) {
      types->fail(text("an array of ", config.layers.size(), " names, one for each layer"));
    }
    for (size_t i = 0; i < types->size(); ++i) sliding.push_back(is_sliding((*types)[i]));
  } else {
    sliding = sliding_by_rule(reader, window, config.layers);
  }
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (!sliding[i]) continue;
    if (window == 0) {
      fail_config(text("layer_types[", i, "] is sliding_attention, but sliding_window is not set"));
    }
    config.layers[i].window = window;
    config.layers[i].local_rope = reader.rules().local_rope;
  }
}

void read_optional(ConfigReader& reader, ModelConfig& config) {
  for (const OptionalFlag& row : kFlags) {
    if (reader.reads(row.key)) config.*row.flag = reader.flag(row.key);
  }
  for (const OptionalNumber& row : kNumbers) {
    config.*row.number = row.neutral;
    if (!reader.reads(row.key)) continue;
    const std::optional<Value> given = reader.section().find(row.key);
    if (given && given->is_null()) continue;
    if (given || reader.default_of(row.key)) {
      config.*row.number = reader.number(row.key, row.least, row.most);
    }
  }
}

void refuse_foreign(const ConfigReader& reader) {
  const std::string here = "but this family of models is implemented without it";
  for (const OptionalFlag& row : kFlags) {
    const std::optional<Value> given = reader.find(row.key);
    if (given && !reader.reads(row.key) && given->as_bool()) refuse(*given, here);
  }
  for (const OptionalNumber& row : kNumbers) {
    const std::optional<Value> given = reader.find(row.key);
    if (given && !reader.reads(row.key) && given->as_number() != row.neutral) refuse(*given, here);
  }
  const std::optional<Value> use_window = reader.find("use_sliding_window");
  const bool windows_off = use_window && !use_window->as_bool();
  for (const char* key : kFamilyKeys) {
    const std::optional<Value> given = reader.find(key);
    if (!given || reader.reads(key) || !is_set(*given) || is_usual(*given)) continue;
    if (windows_off && std::string_view(key).find("window") != std::string_view::npos) continue;
    refuse(*given, here);
  }
  for (const ForeignKey& row : kForeign) {
    const std::optional<Value> given = reader.find(row.key);
    if (given && is_set(*given)) {
      refuse(*given, text("which means ", row.means, ": not implemented"));
    }
  }
}

}  // namespace mantissa
