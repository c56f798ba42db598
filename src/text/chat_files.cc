// Where a model folder keeps its chat templates and the names of its special tokens.
#include "text/chat_files.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer_data.h"

namespace mantissa {

using json::Value;

namespace {
constexpr int64_t kTemplateBytesMax = int64_t{4} << 20;
}

void read_special_tokens(const Value& config, TokenizerData& out) {
  constexpr std::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
  for (std::string_view name : kNames) {
    const std::optional<Value> value = config.find_set(name);
    const bool known = std::any_of(out.special_tokens.begin(), out.special_tokens.end(),
                                   [&](const auto& token) { return token.first == name; });
    if (!value || known) continue;
    out.special_tokens.emplace_back(
        name, value->is_object() ? value->at("content").as_string() : value->as_string());
  }
}

void read_chat_templates(const Value& value, const std::string& file, TokenizerData& out) {
  const std::string place = file + ": " + value.path();
  if (value.is_string()) {
    out.chat_templates.push_back({"default", place, std::string(value.as_string())});
    return;
  }
  if (!value.is_array()) value.fail("a template, or a list of named ones");
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string_view name = value[i].at("name").as_string();
    out.chat_templates.push_back({std::string(name), text(place, " (", printable(name, 40), ")"),
                                  std::string(value[i].at("template").as_string())});
  }
}

void read_chat_files(const std::filesystem::path& folder, TokenizerData& out) {
  const std::filesystem::path map = folder / "special_tokens_map.json";
  if (std::filesystem::exists(map)) read_special_tokens(json::parse_file(map).root(), out);
  const auto add = [&](std::string name, const std::filesystem::path& file) {
    // A file counts more than what the config holds.
    std::erase_if(out.chat_templates, [&](const auto& other) { return other.name == name; });
    out.chat_templates.push_back(
        {std::move(name), file.string(), read_file(file, kTemplateBytesMax)});
  };
  if (std::filesystem::exists(folder / "chat_template.jinja")) {
    add("default", folder / "chat_template.jinja");
  }
  const std::filesystem::path more = folder / "additional_chat_templates";
  if (std::filesystem::is_directory(more)) {
    for (const auto& entry : std::filesystem::directory_iterator(more)) {
      if (entry.path().extension() == ".jinja") add(entry.path().stem().string(), entry.path());
    }
  }
  const std::filesystem::path processor = folder / "chat_template.json";
  if (out.chat_templates.empty() && std::filesystem::exists(processor)) {
    const json::Document document = json::parse_file(processor);
    read_chat_templates(document.root().at("chat_template"), processor.string(), out);
  }
}

}  // namespace mantissa
