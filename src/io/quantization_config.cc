// config.json's quantization_config: which modules are quantized and how. Whatever is not known is
// refused by name: a key that changes the meaning of codes must not be skipped.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/list.h"
#include "io/dialects.h"

namespace mantissa {

using json::Value;

namespace {

constexpr char kWhere[] = "config.json: quantization_config";
constexpr size_t kGroupsMax = 1000, kNamesMax = 100'000;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(text(kWhere, ": ", what), "use a checkpoint in another format, or the original one");
}
// The key of `object` and the value that is not read.
[[noreturn]] void refuse_value(const Value& value, const std::string& why) {
  refuse(text(value.path(), " is ", value.to_json().substr(0, 80), ": ", why));
}

// What says nothing: null, false, {} and [].
bool is_empty(const Value& value) {
  if (value.is_null()) return true;
  if (value.kind() == json::Kind::kBool) return !value.as_bool();
  return (value.is_array() || value.is_object()) && value.size() == 0;
}

void refuse_unknown(const Value& object, std::string_view known) {
  if (!object.is_object()) object.fail("an object");
  for (size_t i = 0; i < object.size(); ++i) {
    const auto [key, value] = object.member(i);
    if (list_contains(known, key) || is_empty(value)) continue;
    refuse(text(object.path(), object.path().empty() ? "" : ".", printable(key),
                ": this build does not know what it means"));
  }
}

std::string_view text_or(const Value& object, std::string_view key, std::string_view fallback) {
  const std::optional<Value> found = object.find_set(key);
  return found ? found->as_string() : fallback;
}

std::vector<std::string> names_of(const Value& root, std::string_view key) {
  std::vector<std::string> names;
  const std::optional<Value> list = root.find_set(key);
  if (!list) return names;
  if (!list->is_array()) list->fail("an array of names");
  if (list->size() > kNamesMax) list->fail(text("at most ", kNamesMax, " names"));
  for (size_t i = 0; i < list->size(); ++i) names.emplace_back((*list)[i].as_string());
  return names;
}

const DialectRow& find_dialect(std::string_view method, std::string_view format) {
  std::string formats;
  for (const DialectRow& row : dialects()) {
    if (row.method != method) continue;
    if (row.format == format) return row;
    formats += text(formats.empty() ? "" : ", ", row.format);
  }
  refuse(text("format ", quoted(format), " of ", method, " is not read (known: ", formats, ")"));
}

// ---- compressed-tensors: QuantizationArgs

enum class Side : uint8_t { kWeight, kInput };

constexpr std::string_view kArgsKeys =
    "num_bits,type,symmetric,group_size,strategy,block_structure,dynamic,actorder,scale_dtype,"
    "zp_dtype,observer,observer_kwargs";

std::string_view strategy_of(const Value& args) {
  if (const std::optional<Value> given = args.find_set("strategy")) return given->as_string();
  const std::optional<Value> group = args.find_set("group_size");
  if (!group) return "tensor";
  return group->as_int(-1, 1 << 20) > 0 ? "group" : "channel";
}

const Elem& elem_of(const Value& args) {
  const std::optional<Value> bits = args.find_set("num_bits");
  const auto count = bits ? static_cast<int>(bits->as_int(1, 16)) : 8;
  const std::string_view type = text_or(args, "type", "int");
  if (type == "int" && count <= 8) return int_elem(count);
  if (type == "float" && count == 8) return kE4M3;
  if (type == "float" && count == 4) return kE2M1;
  refuse(text(args.path(), ": ", count, "-bit ", printable(type), " is not read"));
}

int group_of(const Value& args) {
  const std::optional<Value> size = args.find_set("group_size");
  if (!size) refuse(text(args.path(), ": strategy group without group_size"));
  const int64_t group = size->as_int(1, 1 << 20);
  if (group < 16 || group > 4096 || (group & (group - 1)) != 0) {
    refuse_value(*size, "groups of 16, 32, 64, ... 4096 are read");
  }
  return static_cast<int>(group);
}

void check_tile(const Value& args) {
  const std::optional<Value> edges = args.find_set("block_structure");
  const bool known = edges && edges->is_array() && edges->size() == 2 &&
                     (*edges)[0].as_int() == 128 && (*edges)[1].as_int() == 128;
  if (!edges) refuse(text(args.path(), ": strategy block without block_structure"));
  if (!known) refuse_value(*edges, "blocks of 128 x 128 are read");
}

void set_group_format(Spec& spec, const Value& args, std::string_view strategy) {
  const int group = group_of(args);
  spec.block = per_group(group);
  const bool float4 = *spec.elem == kE2M1;
  if (strategy == "tensor_group") {
    if (!float4 || group != 16) refuse(text(args.path(), ": tensor_group is read as NVFP4 alone"));
    spec.scale = &kE4M3;
    spec.global_scale = true;
    spec.recipe = Recipe::kTorchao;
    return;
  }
  const std::string_view scale = text_or(args, "scale_dtype", "");
  if (float4 || (spec.elem->is_float() && scale == "torch.uint8")) {
    if (group != 32) refuse(text(args.path(), ": groups of ", group, " are no MX format (32)"));
    spec.scale = &kE8M0;
    spec.recipe = Recipe::kFloor;
  }
}

When when_of(const Value& args, Side side, std::string_view strategy) {
  const std::optional<Value> dynamic = args.find_set("dynamic");
  const bool local = dynamic && dynamic->is_string();
  if (local && (dynamic->as_string() != "local" || strategy != "tensor_group")) {
    refuse_value(*dynamic, "true and false are read, \"local\" for NVFP4");
  }
  const bool each_call = dynamic && !local && dynamic->as_bool();
  if (side == Side::kWeight) {
    if (each_call) refuse_value(*dynamic, "weights have scales of their own");
    return When::kAtLoad;
  }
  return each_call ? When::kPerCall : When::kStatic;
}

Spec spec_of(const Value& args, Side side) {
  refuse_unknown(args, kArgsKeys);
  const std::string_view strategy = strategy_of(args);
  Spec spec;
  spec.elem = &elem_of(args);
  spec.when = when_of(args, side, strategy);
  const std::optional<Value> symmetric = args.find_set("symmetric");
  spec.asymmetric = symmetric && !symmetric->as_bool();
  if (spec.asymmetric && spec.elem->is_float()) {
    refuse_value(*symmetric, "floats have no zero points");
  }
  if (const std::optional<Value> order = args.find_set("actorder"); order && !is_empty(*order)) {
    const bool harmless = order->is_string() && list_contains("weight,static", order->as_string());
    if (!harmless) refuse_value(*order, "columns in activation order are not read");
  }
  if (strategy == "tensor") {
    spec.block = per_tensor();
  } else if (strategy == (side == Side::kWeight ? "channel" : "token")) {
    spec.block = per_row();
  } else if (strategy == "group" || strategy == "tensor_group") {
    set_group_format(spec, args, strategy);
  } else if (strategy == "block" && side == Side::kWeight) {
    check_tile(args);
    spec.block = per_tile(128);
  } else {
    refuse(text(args.path(), ": strategy ", quoted(strategy), " is not read here"));
  }
  const bool fixed = spec.when == When::kStatic && !spec.global_scale;
  if (fixed && !(spec.block == per_tensor())) {
    refuse(text(args.path(), ": static scales per ", printable(strategy), " are not read"));
  }
  return spec;
}

std::string_view block_name(const Spec& spec) {
  if (spec.global_scale) return "nvfp4";
  if (*spec.scale == kE8M0) return "mx";
  if (spec.block == per_tensor()) return "tensor";
  if (spec.block == per_row()) return "channel";
  return spec.block.rows == 1 ? "group" : "block";
}

// "int8 per-tensor".
std::string brief(const Spec& spec) {
  const std::string all = describe(spec, kBF16);
  return all.substr(0, all.find(',')) + (spec.asymmetric ? " asym" : "") +
         (spec.when == When::kStatic ? " static" : "");
}

// The scheme table's name, or a description where the table has no such row.
std::string name_of(const Spec& weight, const Spec& activation) {
  std::string known = scheme_name_of(weight, activation);
  if (!known.empty()) return known;
  return brief(weight) + (activation.quantized() ? " x " + brief(activation) : "");
}

}  // namespace

bool QuantizationConfig::Target::matches(const std::string& module) {
  const std::string& source = pattern.source();
  const bool hit = is_class || pattern.matches(module) ||
                   (prefix && module.starts_with(source) && module[source.size()] == '.');
  used = used || hit;
  return hit;
}

QuantizationConfig QuantizationConfig::parse(std::string_view json) {
  const json::Document document =
      json::parse(json, kWhere, {.bytes_max = 16 << 20, .values_max = 1'000'000});
  const Value root = document.root();
  if (!root.is_object()) root.fail("an object");
  QuantizationConfig config;
  const std::string_view method = root.at("quant_method").as_string();
  if (method == "fp8") {
    config.read_fp8(root);
  } else if (method == "compressed-tensors") {
    config.read_compressed_tensors(root);
  } else {
    std::string known;
    for (const DialectRow& row : dialects()) {
      if (!known.ends_with(row.method)) known += text(known.empty() ? "" : ", ", row.method);
    }
    refuse(text("quant_method ", quoted(method), " is not read (known: ", known, ")"));
  }
  return config;
}

void QuantizationConfig::read_fp8(const Value& root) {
  refuse_unknown(root,
                 "quant_method,activation_scheme,ignored_layers,modules_to_not_convert,"
                 "ignore_patterns,kv_cache_scheme,weight_block_size,fmt,scale_fmt,dequantize");
  const Value scheme = root.at("activation_scheme");
  if (!list_contains("dynamic,static", scheme.as_string()))
    scheme.fail("\"dynamic\" or \"static\"");
  const bool fixed = scheme.as_string() == "static";
  if (const std::optional<Value> format = root.find_set("fmt")) {
    if (format->as_string() != "e4m3") refuse_value(*format, "e4m3 is read");
  }
  if (const std::optional<Value> format = root.find_set("scale_fmt")) {
    if (format->as_string() != "float") {
      refuse_value(*format, "activation scales that are powers of two are not made");
    }
  }
  if (const std::optional<Value> other = root.find("dequantize"); other && !is_empty(*other)) {
    refuse_value(*other, "weights stay as they are stored");
  }
  const std::optional<Value> blocks = root.find_set("weight_block_size");
  if (blocks) {
    const bool known = blocks->is_array() && blocks->size() == 2 && (*blocks)[0].as_int() == 128 &&
                       (*blocks)[1].as_int() == 128;
    if (!known) refuse_value(*blocks, "blocks of 128 x 128 are read");
    if (fixed) refuse_value(scheme, "blocks go with dynamic activations");
  }
  if (const std::optional<Value> kv = root.find_set("kv_cache_scheme")) {
    if (kv->as_string() != "static") refuse_value(*kv, "\"static\" is read");
    has_kv_scales_ = true;
  }
  const DialectRow& dialect = find_dialect("fp8", blocks ? "block" : "");
  Spec weight{.elem = &kE4M3, .block = per_tensor(), .when = When::kAtLoad};
  Spec input{.elem = &kE4M3, .block = per_tensor(), .when = When::kPerCall};
  if (blocks) weight.block = per_tile(128);
  if (blocks) input.block = per_group(128);
  if (fixed) input.when = When::kStatic;
  name_ = text(dialect.name, ", activation_scheme ", fixed ? "static" : "dynamic");
  Group group;
  group.targets.push_back({.pattern = NamePattern("Linear", kWhere), .is_class = true});
  group.stored = {.dialect = &dialect,
                  .scheme = {name_of(weight, input), weight, input},
                  .any_dynamic_block = !blocks && !fixed};
  groups_.push_back(std::move(group));
  for (const char* key : {"ignored_layers", "modules_to_not_convert"}) {
    for (const std::string& name : names_of(root, key)) {
      ignored_.push_back({.pattern = NamePattern(name, text(kWhere, ".", key)), .prefix = true});
    }
  }
  head_unlisted_ = true;
}

void QuantizationConfig::read_compressed_tensors(const Value& root) {
  refuse_unknown(root,
                 "quant_method,format,quantization_status,config_groups,ignore,kv_cache_scheme,"
                 "global_compression_ratio,version,sparsity_config,transform_config,"
                 "moe_sparsity_config,run_compressed");
  if (const std::optional<Value> status = root.find_set("quantization_status")) {
    if (!list_contains("compressed,frozen", status->as_string())) {
      refuse_value(*status, "the weights are not compressed yet");
    }
  }
  if (const std::optional<Value> sparse = root.find_set("sparsity_config")) {
    if (!is_empty(*sparse) && text_or(*sparse, "format", "") != "dense") {
      refuse_value(*sparse, "sparse weights are not read");
    }
  }
  for (const char* key : {"transform_config", "moe_sparsity_config"}) {
    const std::optional<Value> found = root.find_set(key);
    if (found && !is_empty(*found)) refuse_value(*found, "is not read");
  }
  if (const std::optional<Value> kv = root.find_set("kv_cache_scheme")) {
    refuse_unknown(*kv, kArgsKeys);
    if (!(elem_of(*kv) == kE4M3)) refuse_value(*kv, "an FP8 KV cache is read");
    const std::optional<Value> dynamic = kv->find_set("dynamic");
    has_kv_scales_ = !(dynamic && dynamic->as_bool());
  }
  const std::string_view format = text_or(root, "format", "");
  const Value groups = root.at("config_groups");
  if (!groups.is_object() || groups.size() > kGroupsMax) {
    groups.fail(text("an object of at most ", kGroupsMax, " groups"));
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto [name, group] = groups.member(i);
    read_group(group, name, format);
  }
  if (groups_.empty()) refuse("config_groups is empty, so nothing would be quantized");
  for (const std::string& name : names_of(root, "ignore")) {
    ignored_.push_back({.pattern = NamePattern(name, text(kWhere, ".ignore"))});
  }
}

void QuantizationConfig::read_group(const Value& value, std::string_view name,
                                    std::string_view format) {
  if (value.is_array()) {
    refuse_value(value, text("presets by name are not read; write out the scheme of ", name));
  }
  refuse_unknown(value, "targets,weights,input_activations,output_activations,format");
  if (const std::optional<Value> out = value.find_set("output_activations")) {
    refuse_value(*out, "quantized outputs are not made");
  }
  const DialectRow& dialect = find_dialect("compressed-tensors", text_or(value, "format", format));
  const std::optional<Value> weights = value.find_set("weights");
  if (!weights) refuse(text(value.path(), ": no weights: nothing is stored quantized"));
  const Spec weight = spec_of(*weights, Side::kWeight);
  const std::optional<Value> inputs = value.find_set("input_activations");
  const Spec input = inputs ? spec_of(*inputs, Side::kInput) : Spec{};
  if (!list_contains(dialect.blocks, block_name(weight))) {
    refuse_value(*weights, text(dialect.name, " has scales per ", dialect.blocks));
  }
  if (input.quantized() && input.when == When::kStatic && dialect.input_scale.empty()) {
    refuse_value(*inputs, text(dialect.name, " has no input scales"));
  }
  if (input.quantized() && input.global_scale != weight.global_scale) {
    refuse_value(*inputs, "weights and inputs of different families");
  }
  Group group;
  for (const std::string& target : names_of(value, "targets")) {
    group.targets.push_back({.pattern = NamePattern(target, text(kWhere, ".", name, ".targets")),
                             .is_class = target == "Linear"});
  }
  if (group.targets.empty()) refuse(text(value.path(), ": no targets"));
  group.stored = {.dialect = &dialect, .scheme = {name_of(weight, input), weight, input}};
  if (!list_contains(name_, dialect.name)) name_ += text(name_.empty() ? "" : ",", dialect.name);
  groups_.push_back(std::move(group));
}

// The most specific target wins: a name, then a pattern, then the class (compressed-tensors'
// match_targets); of equals the first.
const StoredScheme* QuantizationConfig::find(const std::string& module) {
  bool ignored = false;
  for (Target& target : ignored_) ignored = target.matches(module) || ignored;
  const StoredScheme* best = nullptr;
  int best_rank = 0;
  for (Group& group : groups_) {
    for (Target& target : group.targets) {
      if (!target.matches(module)) continue;
      const int rank = target.is_class ? 1 : target.pattern.is_regex() ? 2 : 3;
      if (rank > best_rank) best = &group.stored;
      best_rank = std::max(best_rank, rank);
    }
  }
  return ignored ? nullptr : best;
}

std::vector<std::string> QuantizationConfig::unused() const {
  std::vector<std::string> names;
  const auto add = [&](const std::vector<Target>& targets) {
    for (const Target& target : targets) {
      if (!target.used) names.push_back(target.pattern.source());
    }
  };
  for (const Group& group : groups_) add(group.targets);
  add(ignored_);
  return names;
}

}  // namespace mantissa
