// See answer.h.
#include "app/answer.h"

#include <boost/json.hpp>

#include "text/utf8.h"

namespace mantissa {
namespace {

boost::json::object json_of(const LogprobEntry& entry) {
  return {{"id", entry.id}, {"logprob", static_cast<double>(entry.logprob)}};
}

}  // namespace

void add(Answer& answer, const OutputDelta& delta) {
  answer.text += delta.text;
  answer.token_ids.insert(answer.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  answer.logprobs.insert(answer.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  answer.finish = delta.finish;
}

boost::json::object json_of(const Answer& answer, bool logprobs) {
  std::string prompt;  // JSON is UTF-8, also where the command line is not
  const size_t unfinished = append_valid_utf8(prompt, answer.prompt);
  if (unfinished > 0) prompt += kReplacement;
  boost::json::object object{
      {"prompt", prompt},
      {"text", answer.text},
      {"token_ids", boost::json::array(answer.token_ids.begin(), answer.token_ids.end())},
      {"finish_reason", std::string(finish_name(answer.finish))},
      {"prompt_tokens", answer.prompt_tokens},
      {"completion_tokens", answer.token_ids.size()},
      {"seconds", answer.seconds}};
  if (!logprobs) return object;
  boost::json::array tokens;
  for (const SampledToken& token : answer.logprobs) {
    boost::json::object row = json_of(token.chosen);
    boost::json::array top;
    for (const LogprobEntry& entry : token.top) top.push_back(json_of(entry));
    row["top"] = std::move(top);
    tokens.push_back(std::move(row));
  }
  object["logprobs"] = std::move(tokens);
  return object;
}

}  // namespace mantissa
