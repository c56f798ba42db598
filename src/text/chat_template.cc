// Chat templates: see chat_template.h.
#include "text/chat_template.h"

#include <array>
#include <ctime>

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace mantissa {

struct ChatTemplate::State {
  jinja::Template code;
};

namespace {

constexpr size_t kSourceBytesMax = size_t{4} << 20;

using jinja::Members;

// JSON as values; bytes adds up the size of it.
jinja::Value value_of(const json::Value& v, size_t& bytes) {
  bytes += 8;
  switch (v.kind()) {
    case json::Kind::kNull:
      return {};
    case json::Kind::kBool:
      return v.as_bool();
    case json::Kind::kNumber:
      return v.is_integer() ? jinja::Value(v.as_int()) : jinja::Value(v.as_number());
    case json::Kind::kString:
      bytes += v.as_string().size();
      return jinja::Value::string(v.as_string());
    case json::Kind::kArray: {
      jinja::Values items;
      for (size_t i = 0; i < v.size(); ++i) items.push_back(value_of(v[i], bytes));
      return jinja::Value::sequence(std::move(items));
    }
    case json::Kind::kObject:
      break;
  }
  Members members;
  for (size_t i = 0; i < v.size(); ++i) {
    const auto [key, value] = v.member(i);
    bytes += key.size();
    members.emplace_back(jinja::Value::string(key), value_of(value, bytes));
  }
  return jinja::Value::dict(std::move(members));
}

// transformers' names for reasoning: all of them are filled from the first that is there, so that
// templates may read any.
jinja::Value with_reasoning_names(const jinja::Value& message) {
  constexpr std::array<std::string_view, 3> kNames = {"reasoning_content", "thinking", "reasoning"};
  const Members& there = message.as_dict()->members;
  const jinja::Value* reasoning = nullptr;
  for (std::string_view name : kNames) {
    const jinja::Value* found = jinja::find_member(there, name);
    if (found == nullptr || found->is_none()) continue;
    reasoning = found;
    break;
  }
  if (reasoning == nullptr) return message;
  Members members = {{jinja::Value::string("thinking"), *reasoning}};
  for (const auto& [key, value] : there) jinja::set_member(members, key, value);
  jinja::set_member(members, jinja::Value::string("reasoning_content"), *reasoning);
  return jinja::Value::dict(std::move(members));
}

jinja::Value messages_of(const json::Value& list, size_t& bytes) {
  if (!list.is_array()) list.fail("a list of messages");
  jinja::Values messages;
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_object()) list[i].fail("a message: an object with \"role\" and \"content\"");
    messages.push_back(with_reasoning_names(value_of(list[i], bytes)));
  }
  return jinja::Value::sequence(std::move(messages));
}

void set_time(jinja::Inputs& inputs, std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  localtime_r(&seconds, &inputs.now);
  const auto rest = now - std::chrono::system_clock::from_time_t(seconds);
  inputs.now_microseconds =
      static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(rest).count());
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, const std::string& name) {
  if (source.size() > kSourceBytesMax) {
    throw Error(text(name, ": a chat template of ", source.size(), " bytes"),
                text("use one of at most ", kSourceBytesMax));
  }
  state_ = std::make_unique<State>(State{jinja::parse_template(source, name)});
}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatInputs& chat, const SpecialTokens& tokens) const {
  jinja::Inputs inputs;
  const auto set = [&](std::string_view name, jinja::Value value) {
    jinja::set_member(inputs.variables, jinja::Value::string(name), std::move(value));
  };
  const auto set_json = [&](std::string_view name, const std::optional<json::Value>& value) {
    set(name, value ? value_of(*value, inputs.bytes) : jinja::Value());
  };
  for (const auto& [name, token] : tokens) set(name, jinja::Value::string(token));
  if (chat.variables) {
    for (size_t i = 0; i < chat.variables->size(); ++i) {
      const auto [name, value] = chat.variables->member(i);
      set(name, value_of(value, inputs.bytes));
    }
  }
  set("messages", messages_of(chat.messages, inputs.bytes));
  set_json("tools", chat.tools);
  set_json("documents", chat.documents);
  set("add_generation_prompt", chat.add_generation_prompt);
  set_time(inputs, chat.now);
  return jinja::Interpreter(state_->code, inputs).run();
}

ChatTemplate chat_template_of(const Tokenizer& tokenizer, bool tools) {
  const std::vector<ChatTemplateSource>& sources = tokenizer.chat_templates();
  for (std::string_view name : {std::string_view("tool_use"), std::string_view("default")}) {
    if (name == "tool_use" && !tools) continue;
    for (const ChatTemplateSource& source : sources) {
      if (source.name == name) return ChatTemplate(source.text, source.place);
    }
  }
  std::string names;
  for (const ChatTemplateSource& source : sources)
    names += (names.empty() ? "" : ", ") + source.name;
  throw Error(sources.empty()
                  ? "the model has no chat template (chat_template.jinja, or chat_template "
                    "of tokenizer_config.json)"
                  : text("none of the model's chat templates is named \"default\": ", names),
              "give one with --chat-template FILE, or continue plain text without --chat");
}

}  // namespace mantissa
