// Checkpoints that are quantized already. Two tables: how a dialect names, shapes and scales the
// tensors of a linear (dialects()), and what config.json's quantization_config says about each
// module (QuantizationConfig). Reading the tensors: io/stored_weight.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/name_pattern.h"
#include "quant/scheme.h"

namespace mantissa {

namespace json {
class Value;
}

// How codes lie in their tensor.
enum class Packing : uint8_t {
  kBytes,  // [N, K], one byte each
  kWords,  // I32 [N, ceil(K bits / 32)]: dense, low bits first, a code is stored as code + 2^(b-1)
  kNibbles,  // U8 [N, K / 2]: element 2 i in the low half
};

// A module M's tensors are M.codes, M.scale and so on; an empty name means that there is none.
struct DialectRow {
  std::string_view name;            // for plans and messages
  std::string_view method, format;  // quantization_config: quant_method; format where it has one
  std::string_view codes, scale, zero_point, global_scale, input_scale, input_zero_point, shape;
  Packing packing;
  bool global_is_divisor;   // value = code * scale / global, and the same of inputs
  std::string_view dtypes;  // that the codes may have
  std::string_view blocks;  // that a weight scale may span: tensor, channel, group, block
  std::string_view source;  // who writes it
};
std::span<const DialectRow> dialects();

// How one kind of module is stored.
struct StoredScheme {
  const DialectRow* dialect = nullptr;
  Scheme scheme;  // its name: the scheme table's where it has one, else a description
  // The checkpoint says "dynamic" and no more: one scale per tensor or per token, as one likes.
  bool any_dynamic_block = false;
};

class QuantizationConfig {
 public:
  // json: the text of the object quantization_config. Refuses what it does not know, by name.
  // Throws Error.
  static QuantizationConfig parse(std::string_view json);

  // How the linear `module` ("model.layers.0.mlp.up_proj") is stored; nullptr: unquantized.
  const StoredScheme* find(const std::string& module);

  // "compressed-tensors float-quantized"
  const std::string& name() const { return name_; }
  // Dialects whose writers leave the head out without saying so: its tensor's dtype decides.
  bool head_unlisted() const { return head_unlisted_; }
  // kv_cache_scheme names static scales.
  bool has_kv_scales() const { return has_kv_scales_; }
  // Patterns and names that matched no module so far.
  std::vector<std::string> unused() const;

 private:
  struct Target {
    NamePattern pattern;
    bool is_class = false;  // "Linear": every linear
    bool prefix = false;    // names whole subtrees too
    bool used = false;
    bool matches(const std::string& module);
  };
  struct Group {
    std::vector<Target> targets;
    StoredScheme stored;
  };

  void read_fp8(const json::Value& root);
  void read_compressed_tensors(const json::Value& root);
  void read_group(const json::Value& group, std::string_view name, std::string_view format);

  std::string name_;
  std::vector<Group> groups_;
  std::vector<Target> ignored_;
  bool head_unlisted_ = false, has_kv_scales_ = false;
};

}  // namespace mantissa
