// `mantissa generate --chat` without a prompt: a conversation in the terminal, or one message a
// line.
#pragma once

#include <optional>
#include <string>

#include "app/command.h"
#include "engine/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mantissa {

// --chat-template FILE, or the tokenizer's own.
ChatTemplate chat_template_for(const Args& args, const Tokenizer& tokenizer, bool tools);

// The ids of one message of the user (after --system), and the prompt as text.
struct ChatPrompt {
  std::string text;
  std::vector<int32_t> ids;  // the template's own special tokens; the tokenizer adds none
};
ChatPrompt chat_prompt(const ChatTemplate& code, const Tokenizer& tokenizer,
                       const std::string& system, const std::string& message);

struct ChatSession {
  const Args& args;
  Engine& engine;
  const Tokenizer& tokenizer;
  const ChatTemplate& code;
  SamplingOptions sampling;
  std::string system;
};
// Reads standard input to its end, or until the user leaves.
void run_chat(ChatSession session);

}  // namespace mantissa
