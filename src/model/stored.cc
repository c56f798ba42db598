#include "model/stored.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "quant/static_scale.h"

namespace mantissa {
namespace {

// Names that checkpoints have for the KV cache's scales, after the attention module: AutoFP8's and
// compressed-tensors', vLLM's inner module, ModelOpt's, Quark's, AutoFP8's first form.
struct KvName {
  std::string_view name;
  bool k, v;
};
constexpr KvName kKvNames[] = {
    {"k_scale", true, false},
    {"v_scale", false, true},
    {"attn.k_scale", true, false},
    {"attn.v_scale", false, true},
    {"k_proj.k_scale", true, false},
    {"v_proj.v_scale", false, true},
    {"qkv_proj.k_scale", true, false},
    {"qkv_proj.v_scale", false, true},
    {"k_proj.output_scale", true, false},
    {"v_proj.output_scale", false, true},
    {"kv_scale", true, true},
};

bool same_formats(Spec a, Spec b) {
  a.recipe = b.recipe;
  const bool floats = *a.scale == kF32 || *a.scale == kBF16;
  if (floats && (*b.scale == kF32 || *b.scale == kBF16)) a.scale = b.scale;
  return a == b;
}

// One e4m3 scale a tensor or a token, found at each call.
bool is_dynamic_fp8(const Spec& s) {
  return s.quantized() && *s.elem == kE4M3 && s.when == When::kPerCall && s.block.cols == kAll;
}

}  // namespace

StoredModel::StoredModel(const std::string& quantization_config, const ModelOptions& options,
                         const Checkpoint* checkpoint)
    : options_(options), checkpoint_(checkpoint) {
  if (!quantization_config.empty()) config_ = QuantizationConfig::parse(quantization_config);
}

const StoredScheme* StoredModel::resolve(const StoredScheme* found, const std::string& wanted,
                                         const std::string& option) {
  if (found == nullptr) return nullptr;
  std::unique_ptr<StoredScheme>& mine = resolved_[found];
  if (mine == nullptr) mine = std::make_unique<StoredScheme>(*found);
  if (wanted == "auto") return mine.get();
  const Scheme asked = parse_scheme(wanted);
  const Scheme& stored = found->scheme;
  const bool weights = same_formats(asked.weight, stored.weight);
  if (weights && same_formats(asked.activation, stored.activation)) return mine.get();
  if (weights && found->any_dynamic_block && is_dynamic_fp8(asked.activation)) {
    mine->scheme.name = asked.name;
    mine->scheme.activation = asked.activation;
    return mine.get();
  }
  throw Error(text(option, " ", asked.name, ": this checkpoint is already quantized, as ",
                   stored.name, " (", found->dialect->name, ")"),
              text("leave out ", option,
                   " to run it as it is stored, or use the original, "
                   "unquantized checkpoint"));
}

const StoredScheme* StoredModel::find_linear(const std::string& module, bool ignored) {
  if (!config_) return nullptr;
  const StoredScheme* found = config_->find(module);
  if (found != nullptr && ignored) {
    throw Error(text("--ignore: ", module, " is stored quantized, as ", found->scheme.name),
                "leave out --ignore, or use the original, unquantized checkpoint");
  }
  return resolve(found, options_.scheme, "--quantization");
}

const StoredScheme* StoredModel::find_head(const std::string& module, bool tied) {
  if (!config_) return nullptr;
  const StoredScheme* found = config_->find(module);
  if (found == nullptr || tied) return nullptr;
  if (config_->head_unlisted() && checkpoint_ != nullptr) {
    const TensorInfo* codes = checkpoint_->find(text(module, ".", found->dialect->codes));
    const TensorInfo* scale = checkpoint_->find(text(module, ".", found->dialect->scale));
    if (codes != nullptr && scale == nullptr && codes->dtype->bits > 8) return nullptr;
  }
  return resolve(found, options_.lm_head_scheme, "--lm-head-scheme");
}

std::optional<float> StoredModel::kv_scale(const std::string& attention, bool k,
                                           std::vector<std::string>& claimed) const {
  std::optional<float> scale;
  std::string first;
  for (const KvName& row : kKvNames) {
    if (!(k ? row.k : row.v)) continue;
    const std::string name = text(attention, ".", row.name);
    const TensorInfo* tensor = checkpoint_->find(name);
    if (tensor == nullptr) continue;
    claimed.push_back(name);
    const std::string fix = "get a good copy of the checkpoint, or run with --kv-cache-dtype auto";
    if (tensor->elements() != 1) {
      throw Error(text("tensor ", name, ": shape is ", tensor->shape_text(),
                       ", but a KV cache's scale is one value"),
                  "use a checkpoint with KV scales per tensor");
    }
    float value = 0;
    checkpoint_->read_rows_f32(*tensor, 0, Matrix<float>(&value, 1, 1));
    if (!usable_scale(value)) {
      throw Error(text("tensor ", name, " is ", value, ", but a scale is a normal number above 0"),
                  fix);
    }
    if (scale && *scale != value) {
      throw Error(
          text("tensors ", first, " and ", name, ": two KV scales, ", *scale, " and ", value), fix);
    }
    scale = value;
    first = name;
  }
  return scale;
}

std::vector<KvScale> StoredModel::kv_scales(const std::vector<std::string>& attention,
                                            std::vector<std::string>& claimed) {
  std::vector<KvScale> scales;
  if (checkpoint_ == nullptr) return scales;
  size_t halves = 0;
  std::string missing;
  for (const std::string& module : attention) {
    std::optional<float> k = kv_scale(module, true, claimed);
    std::optional<float> v = kv_scale(module, false, claimed);
    if (!k && !v) {
      if (missing.empty()) missing = module;
      continue;
    }
    halves += k && v ? 0 : 1;
    scales.push_back({k ? *k : *v, v ? *v : *k});
  }
  if (scales.empty()) {
    if (config_ && config_->has_kv_scales()) {
      throw Error(
          "config.json: quantization_config.kv_cache_scheme names static scales, but the "
          "checkpoint has none",
          text("get a good copy of the checkpoint; they are called ", attention[0],
               ".k_scale and .v_scale"));
    }
    return scales;
  }
  if (!missing.empty()) {
    throw Error(text(missing, ": no KV scales, but ", scales.size(), " of ", attention.size(),
                     " layers have them"),
                "get a good copy of the checkpoint");
  }
  if (halves > 0) {
    notices_.push_back(
        text(halves, " layers have a KV scale of K or V alone: it is used for both"));
  }
  return scales;
}

std::string StoredModel::scheme_names() const {
  std::vector<std::string> names;
  for (const auto& [found, scheme] : resolved_) names.push_back(scheme->scheme.name);
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string out;
  for (const std::string& name : names) out += text(out.empty() ? "" : ", ", name);
  return out;
}

std::vector<std::string> StoredModel::notices() const {
  std::vector<std::string> out = notices_;
  if (!config_) return out;
  if (resolved_.empty()) {
    throw Error(text("config.json: quantization_config (", config_->name(),
                     ") names no linear of this model, so nothing would be quantized"),
                "use the config.json that belongs to these weights");
  }
  const std::vector<std::string> unused = config_->unused();
  if (!unused.empty()) {
    out.push_back(text("quantization_config: ", unused.size(),
                       " names match no linear of this model, first: ", quoted(unused[0])));
  }
  return out;
}

}  // namespace mantissa
