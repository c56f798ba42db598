// RoPE parameters of config.json, in the spellings of transformers 4 (rope_theta, rope_scaling) and
// 5 (rope_parameters, per kind of layer where a family has several).
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "io/config_reader.h"

namespace mantissa {

using json::Value;

namespace {

constexpr double kFactorMax = 1e6;
constexpr double kThetaMax = 1e12;
constexpr const char* kOriginal = "original_max_position_embeddings";

// A number of a RoPE scaling type and where it goes.
struct RopeNumber {
  std::string_view type;
  const char* name;
  double RopeConfig::*number;
  bool required;
};
// clang-format off
constexpr RopeNumber kRopeNumbers[] = {
    {"linear",   "factor",           &RopeConfig::factor,           true},
    {"dynamic",  "factor",           &RopeConfig::factor,           true},
    {"llama3",   "factor",           &RopeConfig::factor,           true},
    {"llama3",   "low_freq_factor",  &RopeConfig::low_freq_factor,  true},
    {"llama3",   "high_freq_factor", &RopeConfig::high_freq_factor, true},
    {"yarn",     "factor",           &RopeConfig::factor,           true},
    {"yarn",     "attention_factor", &RopeConfig::attention_factor, false},
    {"yarn",     "beta_fast",        &RopeConfig::beta_fast,        false},
    {"yarn",     "beta_slow",        &RopeConfig::beta_slow,        false},
    {"yarn",     "mscale",           &RopeConfig::mscale,           false},
    {"yarn",     "mscale_all_dim",   &RopeConfig::mscale_all_dim,   false},
    {"longrope", "factor",           &RopeConfig::factor,           false},
    {"longrope", "attention_factor", &RopeConfig::attention_factor, false},
};
// clang-format on
constexpr std::string_view kRopeTypes[] = {"default", "linear", "dynamic",
                                           "llama3",  "yarn",   "longrope"};
// Keys of a scaling that change the angles in ways that none of these types has.
constexpr const char* kForeignKeys[] = {"mrope_section", "mrope_interleaved", "alpha"};

std::string known_types() {
  std::string names;
  for (const std::string_view type : kRopeTypes) names += text(names.empty() ? "" : ", ", type);
  return names;
}

std::string read_type(const Value& value) {
  const std::optional<Value> rope_type = value.find_set("rope_type");
  const std::optional<Value> old_type = value.find_set("type");
  if (rope_type && old_type && rope_type->as_string() != old_type->as_string()) {
    old_type->fail(text("the same as rope_type, ", quoted(rope_type->as_string())));
  }
  const std::optional<Value> type = rope_type ? rope_type : old_type;
  if (!type) value.fail("an object with rope_type");
  std::string name(type->as_string() == "su" ? "longrope" : type->as_string());
  if (std::ranges::find(kRopeTypes, name) == std::end(kRopeTypes)) {
    type->fail(text("one of ", known_types()));
  }
  return name;
}

std::vector<double> read_factors(const Value& list, int64_t count) {
  if (!list.is_array() || static_cast<int64_t>(list.size()) != count) {
    list.fail(text("an array of ", count, " numbers (half the rotated dimensions)"));
  }
  std::vector<double> factors;
  for (size_t i = 0; i < list.size(); ++i) factors.push_back(list[i].as_number(1e-6, kFactorMax));
  return factors;
}

// The context before scaling; beside the scaling it wins, as in transformers.
int64_t read_original(const ConfigReader& reader, const Value& value, const RopeConfig& rope,
                      int64_t positions) {
  const std::optional<Value> outside = reader.find(kOriginal), inside = value.find_set(kOriginal);
  if (outside) return outside->as_int(1, kPositionsMax);
  if (const std::optional<double> fixed = reader.default_of(kOriginal)) {
    return static_cast<int64_t>(*fixed);
  }
  if (inside) return inside->as_int(1, kPositionsMax);
  if (rope.type == "llama3") value.fail(text("an object with ", quoted(kOriginal)));
  return positions;
}

void read_fraction(const ConfigReader& reader, const Value& value, RopeConfig& rope) {
  constexpr const char* kKey = "partial_rotary_factor";
  const std::optional<Value> given = value.find_set(kKey);
  if (!given) return;
  rope.rotary_fraction = given->as_number(1e-3, 1);
  if (rope.rotary_fraction != 1 && !reader.reads(kKey)) given->fail("1 in this family of models");
}

// `value`: the object with rope_type; theta may stand in it or not at all.
void read_scaling(const ConfigReader& reader, const Value& value, const ModelConfig& config,
                  RopeConfig& rope) {
  rope.type = read_type(value);
  for (const char* key : kForeignKeys) {
    if (const std::optional<Value> given = value.find_set(key)) {
      given->fail("no such key: this kind of RoPE is not implemented");
    }
  }
  for (const RopeNumber& field : kRopeNumbers) {
    if (field.type != rope.type) continue;
    const std::optional<Value> given = value.find_set(field.name);
    if (!given && field.required) value.fail(text("an object with ", quoted(field.name)));
    if (given) rope.*field.number = given->as_number(1e-6, kFactorMax);
  }
  if (const std::optional<Value> given = value.find_set("truncate")) {
    rope.truncate = given->as_bool();
  }
  read_fraction(reader, value, rope);
  if (rope.type == "llama3" || rope.type == "yarn" || rope.type == "longrope") {
    rope.original_max_position_embeddings =
        read_original(reader, value, rope, config.max_position_embeddings);
  }
  if (rope.type == "llama3" && rope.low_freq_factor >= rope.high_freq_factor) {
    value.fail("low_freq_factor below high_freq_factor");
  }
  if (rope.type == "yarn" && rope.theta <= 1) value.fail("a rope_theta above 1 beside yarn");
  if (rope.type == "longrope") {
    if (rope.original_max_position_embeddings < 2) value.fail(text(kOriginal, " of at least 2"));
    const int64_t pairs = rope.rotary_dim(config.head_dim) / 2;
    rope.short_factor = read_factors(value.at("short_factor"), pairs);
    rope.long_factor = read_factors(value.at("long_factor"), pairs);
  }
}

void check_rotary_dim(const ModelConfig& config, const RopeConfig& rope) {
  const int64_t dim = rope.rotary_dim(config.head_dim);
  if (dim >= 2 && dim % 2 == 0) return;
  fail_config(text("head_dim ", config.head_dim, " times partial_rotary_factor ",
                   rope.rotary_fraction, " is ", dim, "; rotary embeddings need pairs"));
}

// rope_parameters by kind of layer: {"full_attention": {...}, "sliding_attention": {...}}.
void read_by_kind(ConfigReader& reader, const Value& parameters, ModelConfig& config) {
  const auto read_kind = [&](const char* kind, const char* theta_key, RopeConfig& rope) {
    const std::optional<Value> value = parameters.find_set(kind);
    if (!value || !value->is_object()) {
      parameters.fail(text("an object with an object ", quoted(kind)));
    }
    const std::optional<Value> theta = value->find_set("rope_theta");
    rope.theta = theta ? theta->as_number(1, kThetaMax) : reader.number(theta_key, 1, kThetaMax);
    read_scaling(reader, *value, config, rope);
    check_rotary_dim(config, rope);
  };
  read_kind("full_attention", "rope_theta", config.rope);
  read_kind("sliding_attention", "rope_local_base_freq", config.local_rope);
}

}  // namespace

int64_t RopeConfig::rotary_dim(int64_t head_dim) const {
  return static_cast<int64_t>(static_cast<double>(head_dim) * rotary_fraction);
}

void read_rope(ConfigReader& reader, ModelConfig& config) {
  const std::optional<Value> parameters = reader.find("rope_parameters");
  const std::optional<Value> scaling = reader.find("rope_scaling");
  if (parameters && scaling) {
    parameters->fail("either rope_parameters or rope_scaling, not both");
  }
  for (const std::optional<Value>& given : {parameters, scaling}) {
    if (given && !given->is_object()) given->fail("an object");
  }
  if (parameters && reader.rules().local_rope) {
    read_by_kind(reader, *parameters, config);
    return;
  }
  RopeConfig& rope = config.rope;
  const std::optional<Value> theta = parameters ? parameters->find_set("rope_theta") : std::nullopt;
  rope.theta = theta ? theta->as_number(1, kThetaMax) : reader.number("rope_theta", 1, kThetaMax);
  read_fraction(reader, reader.section(), rope);
  if (parameters) read_scaling(reader, *parameters, config, rope);
  if (scaling) read_scaling(reader, *scaling, config, rope);
  check_rotary_dim(config, rope);
  if (reader.rules().local_rope) {
    config.local_rope.theta = reader.number("rope_local_base_freq", 1, kThetaMax);
  }
}

}  // namespace mantissa
