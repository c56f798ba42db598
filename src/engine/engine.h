// The step loop: requests in, pieces of text out. Each step plans (engine/scheduler.h), launches
// one forward pass over the paged cache that samples where it runs, and reads what an earlier pass
// sampled: detokenizes, streams, looks for ends. Model and tokenizer come as function tables, so
// that a test can put its own in their place. One caller at a time.
//
// Running ahead. Where the model can (a GPU), step n + 1 is launched before the host reads the
// tokens of step n, which stay on the device as its input: the device never waits for the host. A
// sequence that turns out to have ended at step n has one surplus token in step n + 1, which nobody
// reads. Its pages and its seat are free at once: steps run in the order of their launch, so
// whoever gets them writes after the surplus token was written. Nobody is preempted while a step is
// under way. Tokens are the same as without running ahead.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "io/config.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mantissa {

// ---- what the engine needs of a model and of a tokenizer

struct EngineModel {
  Model::Limits limits;
  // Logits on the host, for those who score texts.
  std::function<void(const Model::Step&)> forward;
  std::function<Matrix<const float>(std::span<const int32_t> rows)> logits;
  // Steps that sample, for those who generate.
  std::function<int64_t(const Model::StepRequest&)> launch;
  std::function<Model::StepResult(int64_t ticket)> wait;
  bool runs_ahead = false;
  std::function<void()> wake = {};  // a step will follow soon; may be empty
};
EngineModel engine_model(Model& model);  // which must be loaded, and outlive the result

// The text of one sequence as its tokens come; each piece is valid UTF-8.
struct TextStream {
  std::function<std::string(int32_t id)> push;
  std::function<std::string()> flush;
};
struct EngineText {
  std::function<std::vector<int32_t>(std::string_view text)> encode;  // adds special tokens
  std::function<TextStream(std::span<const int32_t> prompt)> stream;  // of what follows the prompt
};
EngineText engine_text(const Tokenizer& tokenizer);

// ---- requests

// What a caller asked for; nullopt where nothing was said.
struct SamplingOptions {
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::optional<int> logprobs;
  std::vector<std::string> stop;        // not part of the text
  std::vector<int32_t> stop_token_ids;  // besides the model's own
  bool ignore_eos = false;
};

// Where SamplingOptions say nothing, as vLLM: generation_config.json, then vLLM's own defaults;
// do_sample false means temperature 0. max_tokens: max_new_tokens of the file, else
// kMaxTokensDefault or what the context leaves.
struct EngineDefaults {
  GenerationConfig generation;
  std::vector<int32_t> eos_ids;
  uint64_t seed = 0;
  int64_t vocab = 0;  // the model's tokens, for checks of ids; 0: not known yet
};
inline constexpr int64_t kMaxTokensDefault = 256;
EngineDefaults engine_defaults(const ModelConfig& config, uint64_t seed);

// What will be done: options over defaults. Throws Error for what is out of range.
struct EffectiveParams {
  SamplingParams sampling;
  std::optional<int64_t> max_tokens;  // nullopt: kMaxTokensDefault or what the context leaves
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;  // those of the model included, unless ignore_eos
};
EffectiveParams effective_params(const SamplingOptions& options, const EngineDefaults& defaults);
// "temperature 0.8 (generation_config.json), top_p 0.9, ..., max_tokens 256 (default)".
std::string describe_params(const SamplingOptions& options, const EngineDefaults& defaults);

struct Request {
  std::variant<std::string, std::vector<int32_t>> prompt;  // ids are taken as they are
  SamplingOptions sampling;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kError };
std::string_view finish_name(FinishReason reason);  // "stop", "length", "error"; "" for kNone

// What one step added to one sequence.
struct OutputDelta {
  SequenceId id = 0;
  std::string text;                    // held back while it may become part of a stop string
  std::vector<int32_t> token_ids;      // with the token that ended it
  std::vector<SampledToken> logprobs;  // [token_ids] where asked for
  FinishReason finish = FinishReason::kNone;
  std::optional<Error> error;  // of kError
};

struct EngineStats {
  int64_t running = 0, waiting = 0;
  Pages pages_free, pages_total;
  int64_t steps = 0, preemptions = 0;
  int64_t tokens_computed = 0;  // through forward(), recomputed ones included
  int64_t tokens_generated = 0;
};

class Engine {
 public:
  Engine(EngineModel model, EngineText text, EngineDefaults defaults);
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  // Ids rise by one with each call. Throws Error for a request that can never run: parameters out
  // of range, an empty prompt, ids beyond the vocabulary, prompt + max_tokens beyond the context.
  SequenceId submit(const Request& request);
  // Prompt tokens of a living sequence; 0 for others.
  int64_t prompt_tokens(SequenceId id) const;
  // Launches one forward pass and reads the oldest one that ran; a delta for each sequence that got
  // a token from that. Where the model runs ahead the first call returns none. No sequences: does
  // nothing. What launch() throws passes through; the step can be tried again.
  std::vector<OutputDelta> step();
  // Ends a sequence without a delta, its pages are back at once; false where there is none.
  bool cancel(SequenceId id);
  bool idle() const;  // no living sequence, and no delta of a step that threw
  EngineStats stats() const;

  // Called with each step's state and plan, for logs that can be replayed.
  void on_plan(std::function<void(const SchedulerState&, const StepPlan&)> observer);
  const SchedulerLimits& limits() const;
  const EngineDefaults& defaults() const;
  // Whether every page is either free or held by a living sequence.
  bool pages_balanced() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa
