// Readers of the parts of a model folder's files that chat templates need.
#pragma once

#include <string>

#include "base/json.h"

namespace mantissa {

struct TokenizerData;

// Adds those that are not there yet: strings, or objects with "content".
void read_special_tokens(const json::Value& config, TokenizerData& out);
// A template, or a list of {"name", "template"}.
void read_chat_templates(const json::Value& value, const std::string& file, TokenizerData& out);

}  // namespace mantissa
