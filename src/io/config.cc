#include "io/config.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/list.h"
#include "io/config_reader.h"

namespace mantissa {

namespace fs = std::filesystem;
using json::Value;

namespace {

constexpr char kGenerationName[] = "generation_config.json";
constexpr json::Limits kLimits{.bytes_max = 16 << 20, .values_max = 1'000'000};

// Far above every model that exists, and low enough that no size computed from them overflows: the
// largest, a float32 KV cache of all positions, is below 2^61 bytes.
constexpr int64_t kWidthMax = int64_t{1} << 18;  // hidden and intermediate sizes; heads * head_dim
constexpr int64_t kVocabMax = int64_t{1} << 24;
constexpr int64_t kHeadsMax = 1 << 14, kHeadDimMax = 1 << 12, kLayersMax = 1 << 12;

// An integer field of config.json and where it goes.
struct SizeField {
  const char* name;
  int64_t ModelConfig::*size;
  int64_t most;
};
// clang-format off
constexpr SizeField kSizeFields[] = {
    {"vocab_size",              &ModelConfig::vocab_size,              kVocabMax},
    {"hidden_size",             &ModelConfig::hidden_size,             kWidthMax},
    {"intermediate_size",       &ModelConfig::intermediate_size,       kWidthMax},
    {"num_hidden_layers",       &ModelConfig::num_hidden_layers,       kLayersMax},
    {"num_attention_heads",     &ModelConfig::num_attention_heads,     kHeadsMax},
    {"max_position_embeddings", &ModelConfig::max_position_embeddings, kPositionsMax},
};

struct RunDtype {
  std::string_view name;
  const Elem* elem;
};
constexpr RunDtype kRunDtypes[] = {{"bfloat16", &kBF16}, {"float16", &kF16}, {"float32", &kF32}};

// clang-format on

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

void read_sizes(ConfigReader& reader, ModelConfig& config) {
  for (const SizeField& field : kSizeFields) {
    config.*field.size = reader.integer(field.name, 1, field.most);
  }
  const std::optional<Value> tied = reader.find_anywhere("tie_word_embeddings");
  config.tie_word_embeddings = tied ? tied->as_bool() : reader.flag("tie_word_embeddings");
}

void read_heads(ConfigReader& reader, ModelConfig& config) {
  const int64_t heads = config.num_attention_heads;
  if (reader.find("num_key_value_heads") || reader.default_of("num_key_value_heads")) {
    config.num_key_value_heads = reader.integer("num_key_value_heads", 1, kHeadsMax);
  } else {
    config.num_key_value_heads = heads;
    reader.note_default("num_key_value_heads", heads);
  }
  if (heads % config.num_key_value_heads != 0) {
    fail_config(text("num_attention_heads ", heads, " is no multiple of num_key_value_heads ",
                     config.num_key_value_heads));
  }
  if (reader.find("head_dim") || reader.default_of("head_dim")) {
    config.head_dim = reader.integer("head_dim", 1, kHeadDimMax);
  } else {
    if (config.hidden_size % heads != 0) {
      fail_config(text("hidden_size ", config.hidden_size,
                       " is no multiple of num_attention_heads ", heads,
                       ", and head_dim is not given"));
    }
    config.head_dim = config.hidden_size / heads;  // implied, as in every older config.json
    if (config.head_dim > kHeadDimMax) {
      fail_config(text("hidden_size / num_attention_heads is ", config.head_dim, "; at most ",
                       kHeadDimMax, " is accepted"));
    }
  }
  if (heads * config.head_dim > kWidthMax) {
    fail_config(text("num_attention_heads ", heads, " * head_dim ", config.head_dim, " is above ",
                     kWidthMax));
  }
  if (config.head_dim % 2 != 0) {
    fail_config(text("head_dim ", config.head_dim, " is odd; rotary embeddings need pairs"));
  }
}

const Elem* read_dtype(const ConfigReader& reader) {
  const std::optional<Value> old_name = reader.find_anywhere("torch_dtype"),
                             name = reader.find_anywhere("dtype");
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

ModelConfig read_config(const Value& root, const ConfigRules& rules) {
  ConfigReader reader(root, rules);
  ModelConfig config;
  config.id = read_id(root);
  refuse_foreign(reader);
  read_sizes(reader, config);
  read_heads(reader, config);
  config.rms_norm_eps = reader.number("rms_norm_eps", 1e-12, 1);
  read_rope(reader, config);
  if (const std::optional<Value> given = reader.find(rules.activation_key)) {
    config.hidden_act = given->as_string();
  } else {
    config.hidden_act = rules.activation;
    reader.note_default(rules.activation_key, config.hidden_act);
  }
  read_layers(reader, config);
  read_optional(reader, config);
  config.dtype = read_dtype(reader);
  for (const Value& place : {reader.section(), root}) {
    const std::vector<int32_t> bos = read_ids(place, "bos_token_id", config.vocab_size);
    const std::vector<int32_t> eos = read_ids(place, "eos_token_id", config.vocab_size);
    if (!bos.empty()) config.bos_token_ids = bos;
    if (!eos.empty()) config.eos_token_ids = eos;
  }
  if (const std::optional<Value> given = reader.find_anywhere("quantization_config")) {
    if (!given->is_object()) given->fail("an object");
    config.quantization_config = given->to_json();
  }
  for (const char* tower : {"vision_config", "audio_config"}) {
    if (rules.section.empty() || !root.find_set(tower)) continue;
    reader.note(text(tower, ": not read; the language model (", rules.section, ") runs alone"));
  }
  config.defaults_used = reader.take_notes();
  return config;
}

// The name of a file that the folder must have; throws Error where it is missing.
fs::path config_path(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(text(quoted(folder.string(), 400), " is not a folder"),
                "name a Hugging Face model folder on this machine (config.json, tokenizer.json, "
                "*.safetensors): nothing is downloaded, and .gguf files are not read");
  }
  fs::path path = folder / kConfigName;
  if (!fs::exists(path, ignored)) {
    throw Error(text(printable(folder.string()), " has no ", kConfigName),
                "name a Hugging Face model folder: config.json, tokenizer.json, *.safetensors");
  }
  return path;
}

// read()'s errors name config.json or generation_config.json; here with the folder.
template <class Read>
auto in_folder(const fs::path& folder, const Read& read) {
  try {
    return read();
  } catch (const Error& e) {
    if (!e.found.starts_with(kConfigName) && !e.found.starts_with(kGenerationName)) throw;
    throw Error(text(printable((folder / "").string()), e.found), e.fix, e.kind);
  }
}

Value section_of(const Value& root, std::string_view name) {
  if (!root.is_object()) root.fail("an object");
  if (name.empty()) return root;
  const std::optional<Value> section = root.find_set(name);
  if (!section || !section->is_object()) root.fail(text("an object with an object ", quoted(name)));
  return *section;
}

}  // namespace

void fail_config(const std::string& problem) {
  throw Error(text(kConfigName, ": ", problem),
              text("correct ", kConfigName, ", or get a good copy of it"));
}

ConfigReader::ConfigReader(const Value& root, const ConfigRules& rules)
    : root_(root), section_(section_of(root, rules.section)), rules_(rules) {}

std::optional<Value> ConfigReader::find_anywhere(std::string_view key) const {
  const std::optional<Value> inside = section_.find_set(key);
  return inside ? inside : root_.find_set(key);
}

std::optional<double> ConfigReader::default_of(std::string_view key) const {
  for (const KeyDefault& row : rules_.defaults) {
    if (row.key == key) return row.value;
  }
  return std::nullopt;
}

bool ConfigReader::reads(std::string_view key) const {
  return list_contains(rules_.keys, key);
}

double ConfigReader::default_or_throw(std::string_view key) {
  const std::optional<double> value = default_of(key);
  if (!value) {
    throw Error(text(kConfigName, ": ", key, " is missing"),
                "use the config.json of a Hugging Face language model");
  }
  note_default(key, *value);
  return *value;
}

double ConfigReader::number(std::string_view key, double least, double most) {
  const std::optional<Value> given = find(key);
  return given ? given->as_number(least, most) : default_or_throw(key);
}

int64_t ConfigReader::integer(std::string_view key, int64_t least, int64_t most) {
  const std::optional<Value> given = find(key);
  return given ? given->as_int(least, most) : static_cast<int64_t>(default_or_throw(key));
}

bool ConfigReader::flag(std::string_view key) {
  if (const std::optional<Value> given = find(key)) return given->as_bool();
  const bool value = default_of(key).value_or(0) != 0;
  note_default(key, value ? "true" : "false");
  return value;
}

ModelId read_model_id(const fs::path& folder) {
  return in_folder(folder, [&] {
    const json::Document document =
        json::parse(read_file(config_path(folder), kLimits.bytes_max), kConfigName, kLimits);
    return read_id(document.root());
  });
}

ModelConfig parse_model_config(std::string_view config_json,
                               std::optional<std::string_view> generation_json,
                               const ConfigRules& rules) {
  const json::Document document = json::parse(config_json, kConfigName, kLimits);
  ModelConfig config = read_config(document.root(), rules);
  if (generation_json) {
    const json::Document generation = json::parse(*generation_json, kGenerationName, kLimits);
    read_generation(generation.root(), config);
  }
  return config;
}

ModelConfig read_model_config(const fs::path& folder, const ConfigRules& rules) {
  const std::string config_json = read_file(config_path(folder), kLimits.bytes_max);
  const fs::path path = folder / kGenerationName;
  std::error_code ignored;
  std::optional<std::string> generation_json;
  if (fs::exists(path, ignored)) generation_json = read_file(path, kLimits.bytes_max);
  return in_folder(folder, [&] { return parse_model_config(config_json, generation_json, rules); });
}

}  // namespace mantissa
