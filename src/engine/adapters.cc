// The engine's function tables over the real model and tokenizer.
#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace mantissa {
namespace {

// A Detokenizer that continues a prompt. What it still holds back of the prompt (a run of byte
// tokens) comes out with the first generated tokens, and is taken off there.
struct Continuation {
  Detokenizer detokenizer;
  std::string prompt_rest;

  Continuation(const Tokenizer& tokenizer, std::span<const int32_t> prompt)
      : detokenizer(tokenizer, /*skip_special_tokens=*/true) {
    std::string pushed;
    for (const int32_t id : prompt) pushed += detokenizer.push(id);
    prompt_rest = tokenizer.decode(prompt, /*skip_special_tokens=*/true);
    prompt_rest.erase(0, std::min(pushed.size(), prompt_rest.size()));
  }

  std::string after_prompt(std::string piece) {
    if (prompt_rest.empty() || piece.empty()) return piece;
    const auto [end, rest] =
        std::mismatch(piece.begin(), piece.end(), prompt_rest.begin(), prompt_rest.end());
    const bool whole = end == piece.end() || rest == prompt_rest.end();
    // Otherwise what was held back became something else than the prompt alone would show.
    if (!whole) return prompt_rest.clear(), piece;
    piece.erase(piece.begin(), end);
    prompt_rest.erase(prompt_rest.begin(), rest);
    return piece;
  }
};

}  // namespace

EngineModel engine_model(Model& model) {
  return {.limits = model.limits(),
          .forward = [&model](const Model::Step& step) { model.forward(step); },
          .logits = [&model](std::span<const int32_t> rows) { return model.logits(rows); },
          .launch = [&model](const Model::StepRequest& r) { return model.launch(r); },
          .wait = [&model](int64_t ticket) { return model.wait(ticket); },
          .runs_ahead = model.runs_ahead(),
          .wake = [&model] { model.wake(); }};
}

EngineText engine_text(const Tokenizer& tokenizer) {
  const auto stream = [tokenizer](std::span<const int32_t> prompt) {
    const auto state = std::make_shared<Continuation>(tokenizer, prompt);
    return TextStream{
        [state](int32_t id) { return state->after_prompt(state->detokenizer.push(id)); },
        [state] { return state->after_prompt(state->detokenizer.flush()); }};
  };
  return {[tokenizer](std::string_view text) { return tokenizer.encode(text, true); }, stream};
}

}  // namespace mantissa
