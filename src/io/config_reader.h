// One config.json while it is read: what the files that read parts of it share. Internal to io/.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "io/config.h"

namespace mantissa {

constexpr char kConfigName[] = "config.json";
constexpr int64_t kPositionsMax = int64_t{1} << 27;  // tokens of context

class ConfigReader {
 public:
  ConfigReader(const json::Value& root, const ConfigRules& rules);

  // The object that describes the language model, and the whole file.
  const json::Value& section() const { return section_; }
  const json::Value& root() const { return root_; }
  const ConfigRules& rules() const { return rules_; }

  // nullopt where the key is missing or null.
  std::optional<json::Value> find(std::string_view key) const { return section_.find_set(key); }
  // In the section, or else beside it.
  std::optional<json::Value> find_anywhere(std::string_view key) const;
  std::optional<double> default_of(std::string_view key) const;
  bool reads(std::string_view key) const;

  // The key's value, or the family's default, which the user is told. Throws Error where there is
  // neither.
  double number(std::string_view key, double least, double most);
  int64_t integer(std::string_view key, int64_t least, int64_t most);
  bool flag(std::string_view key);

  template <class T>
  void note_default(std::string_view key, const T& value) {
    notes_.push_back(text(key, " = ", value, " (not in ", kConfigName, ")"));
  }
  void note(const std::string& line) { notes_.push_back(line); }
  std::vector<std::string> take_notes() { return std::move(notes_); }

 private:
  double default_or_throw(std::string_view key);

  json::Value root_, section_;
  const ConfigRules& rules_;
  std::vector<std::string> notes_;
};

[[noreturn]] void fail_config(const std::string& problem);

// config_rope.cc: rope and local_rope.
void read_rope(ConfigReader& reader, ModelConfig& config);
// config_layers.cc: layers and the optional keys; needs num_hidden_layers.
void read_layers(ConfigReader& reader, ModelConfig& config);
void read_optional(ConfigReader& reader, ModelConfig& config);
void refuse_foreign(const ConfigReader& reader);

}  // namespace mantissa
