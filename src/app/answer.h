// What `generate` collects for one prompt, and how it is shown as JSON.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace mantissa {

struct Answer {
  std::string prompt;
  int64_t prompt_tokens = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<SampledToken> logprobs;
  FinishReason finish = FinishReason::kNone;
  double seconds = 0;
};

void add(Answer& answer, const OutputDelta& delta);
boost::json::object json_of(const Answer& answer, bool logprobs);

}  // namespace mantissa
