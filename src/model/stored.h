// What an already quantized checkpoint asks of a layout: which linears are stored how, checked
// against what the user asked for, and the KV cache's scales.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/dialects.h"
#include "io/safetensors.h"
#include "model/model.h"

namespace mantissa {

// Static scales of one layer's KV cache.
struct KvScale {
  float k = 0, v = 0;
};

class StoredModel {
 public:
  // quantization_config: its JSON text, empty where the checkpoint is not quantized. checkpoint:
  // nullptr for dummy weights. Throws Error.
  StoredModel(const std::string& quantization_config, const ModelOptions& options,
              const Checkpoint* checkpoint);

  bool present() const { return config_.has_value(); }
  // How a linear is stored; nullptr: unquantized. Throws Error where --quantization or --ignore
  // contradict it.
  const StoredScheme* find_linear(const std::string& module, bool ignored);
  // The same of the head, by --lm-head-scheme. A tied head is the embedding: never quantized.
  const StoredScheme* find_head(const std::string& module, bool tied);

  // k_scale and v_scale of every layer, from whatever names the checkpoint has for them; empty
  // where there are none. attention: "model.layers.0.self_attn" and so on. Tensors used are
  // appended to `claimed`.
  std::vector<KvScale> kv_scales(const std::vector<std::string>& attention,
                                 std::vector<std::string>& claimed);

  // The schemes in use, once all linears were looked up: "fp8_static".
  std::string scheme_names() const;
  const std::string& dialect_name() const { return config_->name(); }
  // Throws where nothing was quantized after all; else what a user should know.
  std::vector<std::string> notices() const;

 private:
  const StoredScheme* resolve(const StoredScheme* found, const std::string& wanted,
                              const std::string& option);
  std::optional<float> kv_scale(const std::string& attention, bool k,
                                std::vector<std::string>& claimed) const;

  const ModelOptions& options_;
  const Checkpoint* checkpoint_;
  std::optional<QuantizationConfig> config_;
  std::map<const StoredScheme*, std::unique_ptr<StoredScheme>> resolved_;
  std::vector<std::string> notices_;
};

}  // namespace mantissa
