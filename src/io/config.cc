#include "io/config.h"

#include <algorithm>
#include <array>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace mantissa {

namespace fs = std::filesystem;
using json::Value;

namespace {

constexpr char kConfigName[] = "config.json";
constexpr char kGenerationName[] = "generation_config.json";
constexpr json::Limits kLimits{.bytes_max = 16 << 20, .values_max = 1'000'000};

// Far above every model that exists, and low enough that no size computed from them overflows: the
// largest, a float32 KV cache of all positions, is below 2^61 bytes.
constexpr int64_t kWidthMax = int64_t{1} << 18;  // hidden and intermediate sizes; heads * head_dim
constexpr int64_t kVocabMax = int64_t{1} << 24;
constexpr int64_t kPositionsMax = int64_t{1} << 27;  // tokens of context
constexpr int64_t kHeadsMax = 1 << 14, kHeadDimMax = 1 << 12, kLayersMax = 1 << 12;
constexpr double kFactorMax = 1e6;  // of RoPE scaling

// An integer field of config.json and where it goes.
struct SizeField {
  const char* name;
  int64_t ModelConfig::*size;
  int64_t most;
  int64_t fallback;  // Llama's default; 0: must be given (or follows from other fields)
};
// clang-format off
constexpr SizeField kSizeFields[] = {
    {"vocab_size",              &ModelConfig::vocab_size,              kVocabMax,     0},
    {"hidden_size",             &ModelConfig::hidden_size,             kWidthMax,     0},
    {"intermediate_size",       &ModelConfig::intermediate_size,       kWidthMax,     0},
    {"num_hidden_layers",       &ModelConfig::num_hidden_layers,       kLayersMax,    0},
    {"num_attention_heads",     &ModelConfig::num_attention_heads,     kHeadsMax,     0},
    {"max_position_embeddings", &ModelConfig::max_position_embeddings, kPositionsMax, 2048},
};

struct FlagField {
  const char* name;
  bool ModelConfig::*flag;
};
constexpr FlagField kFlagFields[] = {
    {"tie_word_embeddings", &ModelConfig::tie_word_embeddings},
    {"attention_bias",      &ModelConfig::attention_bias},
    {"mlp_bias",            &ModelConfig::mlp_bias},
};

struct RunDtype {
  std::string_view name;
  const Elem* elem;
};
constexpr RunDtype kRunDtypes[] = {{"bfloat16", &kBF16}, {"float16", &kF16}, {"float32", &kF32}};

// A number of a RoPE scaling type and where it goes.
struct RopeNumber {
  std::string_view type;
  const char* name;
  double RopeScaling::*number;
  bool required;
};
constexpr RopeNumber kRopeNumbers[] = {
    {"linear",   "factor",           &RopeScaling::factor,           true},
    {"dynamic",  "factor",           &RopeScaling::factor,           true},
    {"llama3",   "factor",           &RopeScaling::factor,           true},
    {"llama3",   "low_freq_factor",  &RopeScaling::low_freq_factor,  true},
    {"llama3",   "high_freq_factor", &RopeScaling::high_freq_factor, true},
    {"yarn",     "factor",           &RopeScaling::factor,           true},
    {"yarn",     "attention_factor", &RopeScaling::attention_factor, false},
    {"yarn",     "beta_fast",        &RopeScaling::beta_fast,        false},
    {"yarn",     "beta_slow",        &RopeScaling::beta_slow,        false},
    {"longrope", "factor",           &RopeScaling::factor,           false},
    {"longrope", "attention_factor", &RopeScaling::attention_factor, false},
};
// clang-format on
constexpr std::string_view kRopeTypes[] = {"default", "linear", "dynamic",
                                           "llama3",  "yarn",   "longrope"};

template <class Range>
std::string joined(const Range& names) {
  std::string out;
  for (const auto& name : names) out += text(out.empty() ? "" : ", ", name);
  return out;
}

Value required(const Value& config, const char* name) {
  const std::optional<Value> found = config.find_set(name);
  if (!found) {
    throw Error(text(kConfigName, ": ", name, " is missing"),
                "use the config.json of a Hugging Face language model");
  }
  return *found;
}

[[noreturn]] void fail(const std::string& problem) {
  throw Error(text(kConfigName, ": ", problem),
              text("correct ", kConfigName, ", or get a good copy of it"));
}

template <class T>
void note_default(ModelConfig& config, const char* name, const T& value) {
  config.defaults_used.push_back(text(name, " = ", value, " (not in ", kConfigName, ")"));
}

ModelId read_id(const Value& config) {
  ModelId id;
  id.model_type = required(config, "model_type").as_string();
  if (const std::optional<Value> list = config.find_set("architectures")) {
    if (!list->is_array()) list->fail("an array of names");
    for (size_t i = 0; i < list->size(); ++i) {
      id.architectures.emplace_back((*list)[i].as_string());
    }
  }
  return id;
}

void read_sizes(const Value& root, ModelConfig& config) {
  for (const SizeField& field : kSizeFields) {
    const std::optional<Value> given =
        field.fallback == 0 ? required(root, field.name) : root.find_set(field.name);
    config.*field.size = given ? given->as_int(1, field.most) : field.fallback;
    if (!given) note_default(config, field.name, field.fallback);
  }
  for (const FlagField& field : kFlagFields) {
    const std::optional<Value> given = root.find_set(field.name);
    config.*field.flag = given && given->as_bool();
    if (!given) note_default(config, field.name, "false");
  }
}

void read_heads(const Value& root, ModelConfig& config) {
  const int64_t heads = config.num_attention_heads;
  if (const std::optional<Value> given = root.find_set("num_key_value_heads")) {
    config.num_key_value_heads = given->as_int(1, kHeadsMax);
  } else {
    config.num_key_value_heads = heads;
    note_default(config, "num_key_value_heads", heads);
  }
  if (heads % config.num_key_value_heads != 0) {
    fail(text("num_attention_heads ", heads, " is no multiple of num_key_value_heads ",
              config.num_key_value_heads));
  }
  if (const std::optional<Value> given = root.find_set("head_dim")) {
    config.head_dim = given->as_int(1, kHeadDimMax);
  } else {
    if (config.hidden_size % heads != 0) {
      fail(text("hidden_size ", config.hidden_size, " is no multiple of num_attention_heads ",
                heads, ", and head_dim is not given"));
    }
    config.head_dim = config.hidden_size / heads;  // implied, as in every older config.json
    if (config.head_dim > kHeadDimMax) {
      fail(text("hidden_size / num_attention_heads is ", config.head_dim, "; at most ", kHeadDimMax,
                " is accepted"));
    }
  }
  if (heads * config.head_dim > kWidthMax) {
    fail(text("num_attention_heads ", heads, " * head_dim ", config.head_dim, " is above ",
              kWidthMax));
  }
  if (config.head_dim % 2 != 0) {
    fail(text("head_dim ", config.head_dim, " is odd; rotary embeddings need pairs"));
  }
}

std::vector<double> read_factors(const Value& list, int64_t count) {
  if (!list.is_array() || static_cast<int64_t>(list.size()) != count) {
    list.fail(text("an array of ", count, " numbers (head_dim / 2)"));
  }
  std::vector<double> factors;
  for (size_t i = 0; i < list.size(); ++i) factors.push_back(list[i].as_number(1e-6, kFactorMax));
  return factors;
}

RopeScaling read_rope_scaling(const Value& value, const ModelConfig& config) {
  RopeScaling scaling;
  const std::optional<Value> rope_type = value.find_set("rope_type");
  const std::optional<Value> old_type = value.find_set("type");
  if (rope_type && old_type && rope_type->as_string() != old_type->as_string()) {
    old_type->fail(text("the same as rope_type, ", quoted(rope_type->as_string())));
  }
  const std::optional<Value> type = rope_type ? rope_type : old_type;
  if (!type) value.fail("an object with rope_type");
  scaling.type = type->as_string();
  if (std::find(std::begin(kRopeTypes), std::end(kRopeTypes), scaling.type) ==
      std::end(kRopeTypes)) {
    type->fail(text("one of ", joined(kRopeTypes)));
  }
  for (const RopeNumber& field : kRopeNumbers) {
    if (field.type != scaling.type) continue;
    const std::optional<Value> given = value.find_set(field.name);
    if (!given && field.required) value.fail(text("an object with ", quoted(field.name)));
    if (given) scaling.*field.number = given->as_number(1e-6, kFactorMax);
  }
  const char* original = "original_max_position_embeddings";
  const std::optional<Value> given = value.find_set(original);
  if (given) scaling.original_max_position_embeddings = given->as_int(1, kPositionsMax);
  if (scaling.type == "llama3") {
    if (!given) value.fail(text("an object with ", quoted(original)));
    if (scaling.low_freq_factor >= scaling.high_freq_factor) {
      value.fail("low_freq_factor below high_freq_factor");
    }
  }
  if (scaling.type == "longrope") {
    scaling.short_factor = read_factors(value.at("short_factor"), config.head_dim / 2);
    scaling.long_factor = read_factors(value.at("long_factor"), config.head_dim / 2);
  }
  return scaling;
}

// transformers 4: rope_theta and rope_scaling; transformers 5: both inside rope_parameters.
void read_rope(const Value& root, ModelConfig& config) {
  constexpr double kThetaMax = 1e12;
  const std::optional<Value> parameters = root.find_set("rope_parameters");
  const std::optional<Value> scaling = root.find_set("rope_scaling");
  if (parameters && scaling) {
    parameters->fail("either rope_parameters or rope_scaling, not both");
  }
  if (parameters && !parameters->is_object()) parameters->fail("an object");
  std::optional<Value> theta = parameters ? parameters->find_set("rope_theta") : std::nullopt;
  if (!theta) theta = root.find_set("rope_theta");
  config.rope_theta = theta ? theta->as_number(1, kThetaMax) : 10000;
  if (!theta) note_default(config, "rope_theta", config.rope_theta);
  if (parameters) config.rope_scaling = read_rope_scaling(*parameters, config);
  if (scaling) config.rope_scaling = read_rope_scaling(*scaling, config);
}

const Elem* read_dtype(const Value& root) {
  const std::optional<Value> old_name = root.find_set("torch_dtype"), name = root.find_set("dtype");
  if (old_name && name && old_name->as_string() != name->as_string()) {
    name->fail(text("the same as torch_dtype, ", quoted(old_name->as_string())));
  }
  const std::optional<Value> given = name ? name : old_name;
  if (!given) return nullptr;
  std::vector<std::string_view> names;
  for (const RunDtype& dtype : kRunDtypes) {
    if (given->as_string() == dtype.name) return dtype.elem;
    names.push_back(dtype.name);
  }
  given->fail(text("one of ", joined(names)));
}

// An id, a list of ids, or null.
std::vector<int32_t> read_ids(const Value& root, const char* name, int64_t vocab_size) {
  constexpr size_t kIdsMax = 1000;
  std::vector<int32_t> ids;
  const std::optional<Value> given = root.find_set(name);
  if (!given) return ids;
  const auto id = [&](const Value& value) {
    return static_cast<int32_t>(value.as_int(0, vocab_size - 1));
  };
  if (!given->is_array()) return {id(*given)};
  if (given->size() > kIdsMax) given->fail(text("at most ", kIdsMax, " ids"));
  for (size_t i = 0; i < given->size(); ++i) ids.push_back(id((*given)[i]));
  return ids;
}

struct SamplingNumber {
  const char* name;
  std::optional<double> GenerationConfig::*number;
  double least, most;
};
struct SamplingCount {
  const char* name;
  std::optional<int64_t> GenerationConfig::*count;
  int64_t least, most;
};
// clang-format off
constexpr double kPositiveLeast = 1e-6;  // where 0 has no meaning
constexpr SamplingNumber kSamplingNumbers[] = {
    {"temperature",        &GenerationConfig::temperature,        0,              1e3},
    {"top_p",              &GenerationConfig::top_p,              kPositiveLeast, 1},
    {"min_p",              &GenerationConfig::min_p,              0,              1},
    {"repetition_penalty", &GenerationConfig::repetition_penalty, kPositiveLeast, 1e3},
};
constexpr SamplingCount kSamplingCounts[] = {
    {"top_k",          &GenerationConfig::top_k,          -1, kVocabMax},
    {"max_new_tokens", &GenerationConfig::max_new_tokens,  1, kPositionsMax},
};
// clang-format on

void read_generation(const Value& root, ModelConfig& config) {
  if (!root.is_object()) root.fail("an object");
  GenerationConfig& generation = config.generation;
  config.has_generation_config = true;
  if (const std::optional<Value> given = root.find_set("do_sample")) {
    generation.do_sample = given->as_bool();
  }
  for (const SamplingNumber& field : kSamplingNumbers) {
    const std::optional<Value> given = root.find_set(field.name);
    if (given) generation.*field.number = given->as_number(field.least, field.most);
  }
  for (const SamplingCount& field : kSamplingCounts) {
    const std::optional<Value> given = root.find_set(field.name);
    if (given) generation.*field.count = given->as_int(field.least, field.most);
  }
  const std::vector<int32_t> bos = read_ids(root, "bos_token_id", config.vocab_size);
  const std::vector<int32_t> eos = read_ids(root, "eos_token_id", config.vocab_size);
  if (!bos.empty()) config.bos_token_ids = bos;
  if (!eos.empty()) config.eos_token_ids = eos;
}

ModelConfig read_config(const Value& root) {
  ModelConfig config;
  config.id = read_id(root);
  read_sizes(root, config);
  read_heads(root, config);
  if (const std::optional<Value> given = root.find_set("rms_norm_eps")) {
    config.rms_norm_eps = given->as_number(1e-12, 1);
  } else {
    config.rms_norm_eps = 1e-6;
    note_default(config, "rms_norm_eps", config.rms_norm_eps);
  }
  read_rope(root, config);
  if (const std::optional<Value> given = root.find_set("hidden_act")) {
    config.hidden_act = given->as_string();
  } else {
    config.hidden_act = "silu";
    note_default(config, "hidden_act", config.hidden_act);
  }
  const std::optional<Value> use_window = root.find_set("use_sliding_window");  // Qwen2
  const std::optional<Value> window = root.find_set("sliding_window");
  if (window && (!use_window || use_window->as_bool())) {
    config.sliding_window = window->as_int(1, kPositionsMax);
  }
  config.dtype = read_dtype(root);
  config.bos_token_ids = read_ids(root, "bos_token_id", config.vocab_size);
  config.eos_token_ids = read_ids(root, "eos_token_id", config.vocab_size);
  if (const std::optional<Value> given = root.find_set("quantization_config")) {
    if (!given->is_object()) given->fail("an object");
    config.quantization_config = given->to_json();
  }
  return config;
}

// The name of a file that the folder must have; throws Error where it is missing.
fs::path config_path(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(text(quoted(folder.string(), 400), " is not a folder"),
                "name a Hugging Face model folder: config.json, tokenizer.json, *.safetensors");
  }
  fs::path path = folder / kConfigName;
  if (!fs::exists(path, ignored)) {
    throw Error(text(printable(folder.string()), " has no ", kConfigName),
                "name a Hugging Face model folder: config.json, tokenizer.json, *.safetensors");
  }
  return path;
}

}  // namespace

ModelId read_model_id(const fs::path& folder) {
  const json::Document document =
      json::parse(read_file(config_path(folder), kLimits.bytes_max), kConfigName, kLimits);
  return read_id(document.root());
}

ModelConfig parse_model_config(std::string_view config_json,
                               std::optional<std::string_view> generation_json) {
  const json::Document document = json::parse(config_json, kConfigName, kLimits);
  ModelConfig config = read_config(document.root());
  if (generation_json) {
    const json::Document generation = json::parse(*generation_json, kGenerationName, kLimits);
    read_generation(generation.root(), config);
  }
  return config;
}

ModelConfig read_model_config(const fs::path& folder) {
  const std::string config_json = read_file(config_path(folder), kLimits.bytes_max);
  const fs::path path = folder / kGenerationName;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return parse_model_config(config_json);
  const std::string generation_json = read_file(path, kLimits.bytes_max);
  return parse_model_config(config_json, generation_json);
}

}  // namespace mantissa
