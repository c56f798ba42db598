// Chat templates: from messages to the text of a prompt, as transformers' apply_chat_template does.
// Templates are Jinja (src/text/jinja), run without any input or output and under limits; templates
// and messages are untrusted.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/tokenizer.h"

namespace mantissa {

struct ChatInputs {
  json::Value messages;                   // an array of objects with "role"
  std::optional<json::Value> tools = {};  // an array of JSON schemas; none: null
  std::optional<json::Value> documents = {};
  bool add_generation_prompt = true;               // the text ends where the answer begins
  std::optional<json::Value> variables = {};       // an object of more names (chat_template_kwargs)
  std::chrono::system_clock::time_point now = {};  // of strftime_now, shown as local time
};

class ChatTemplate {
 public:
  // name: what errors call it. Throws Error for a template that is wrong or needs what is not
  // supported, naming line and construct.
  ChatTemplate(std::string_view source, const std::string& name);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Throws Error: messages that are no list of objects, what raise_exception() of the template says
  // ("the chat template refused the conversation: ..."), any failure in it with its line.
  std::string render(const ChatInputs& inputs, const SpecialTokens& tokens) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The tokenizer's template "default", or "tool_use" where there are tools and the model has one of
// that name, as transformers chooses. Throws Error where the model has none.
ChatTemplate chat_template_of(const Tokenizer& tokenizer, bool tools);

}  // namespace mantissa
