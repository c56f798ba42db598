#include "mantissa/llm.h"

#include <chrono>
#include <utility>

#include "base/error.h"
#include "engine/engine.h"

namespace mantissa {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

ModelOptions model_options(const std::filesystem::path& folder, const LlmOptions& o) {
  ModelOptions m;
  m.folder = folder;
  m.device = o.device;
  m.dtype = o.dtype;
  m.scheme = o.quantization;
  m.lm_head_scheme = o.lm_head_scheme;
  m.ignore = o.ignore;
  m.kv_cache_dtype = o.kv_cache_dtype;
  m.kv_scale = o.kv_scale;
  m.attention_backend = o.attention_backend;
  m.dummy = o.dummy_weights;
  m.strict = o.strict;
  m.seed = o.seed;
  m.threads = o.threads;
  m.isa = o.isa;
  m.max_model_len = o.max_model_len;
  m.max_num_batched_tokens = o.max_num_batched_tokens;
  m.max_num_seqs = o.max_num_seqs;
  m.kv_tokens = o.kv_cache_tokens;
  return m;
}

SamplingOptions sampling_options(const GenerateOptions& o) {
  return {.max_tokens = o.max_tokens,
          .temperature = o.temperature,
          .top_p = o.top_p,
          .min_p = o.min_p,
          .repetition_penalty = o.repetition_penalty,
          .top_k = o.top_k,
          .seed = o.seed,
          .logprobs = o.logprobs,
          .stop = o.stop,
          .stop_token_ids = o.stop_token_ids,
          .ignore_eos = o.ignore_eos};
}

TokenLogprob public_logprob(const LogprobEntry& entry) {
  return {entry.id, entry.logprob};
}

TokenLogprobs public_logprobs(const SampledToken& token) {
  TokenLogprobs out{public_logprob(token.chosen), {}};
  for (const LogprobEntry& entry : token.top) out.top.push_back(public_logprob(entry));
  return out;
}

// The sequences of one generate() call: none outlives it, whatever is thrown.
struct Submitted {
  Engine& engine;
  std::vector<SequenceId> ids{};  // rising by one

  explicit Submitted(Engine& engine) : engine(engine) {}
  Submitted(const Submitted&) = delete;
  Submitted& operator=(const Submitted&) = delete;
  ~Submitted() {
    for (const SequenceId id : ids) engine.cancel(id);
  }
};

void append(Completion& to, const OutputDelta& delta) {
  to.text += delta.text;
  to.token_ids.insert(to.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  to.completion_tokens = static_cast<int64_t>(to.token_ids.size());
  for (const SampledToken& token : delta.logprobs) to.logprobs.push_back(public_logprobs(token));
  to.finish_reason = finish_name(delta.finish);
}

}  // namespace

struct Llm::State {
  Model model;
  Tokenizer tokenizer;
  EngineDefaults defaults;
  LlmInfo info;
  std::vector<std::string> notices;
  std::optional<Engine> engine;  // once the model is loaded

  State(const std::filesystem::path& folder, const LlmOptions& options)
      : model(model_options(folder, options)),
        tokenizer(Tokenizer::load(folder)),
        defaults(engine_defaults(model.config(), 0)) {
    notices = model.plan().notices;
    notices.insert(notices.end(), tokenizer.notes().begin(), tokenizer.notes().end());
    const LoadReport report = model.load(options.progress);
    notices.insert(notices.end(), report.warnings.begin(), report.warnings.end());
    if (options.notice) {
      for (const std::string& line : notices) options.notice(line);
    }
    const MemoryPlan& plan = model.plan();
    info = {.device = model.device_description(),
            .quantization = model.options().scheme,
            .dtype = model.options().dtype,
            .parameters = plan.parameters,
            .weights_bytes = plan.weights_bytes,
            .kv_bytes = plan.kv_bytes,
            .workspace_bytes = plan.workspace_bytes,
            .bits_per_weight = plan.bits_per_weight,
            .max_model_len = model.limits().model_len,
            .kv_tokens = plan.kv_tokens,
            .load_seconds = report.seconds};
    engine.emplace(engine_model(model), engine_text(tokenizer), defaults);
  }
};

Llm::Llm(const std::filesystem::path& folder, const LlmOptions& options)
    : state_(std::make_unique<State>(folder, options)) {}
Llm::~Llm() = default;
Llm::Llm(Llm&&) noexcept = default;
Llm& Llm::operator=(Llm&&) noexcept = default;

std::vector<Completion> Llm::generate(std::span<const std::string> prompts,
                                      const GenerateOptions& options,
                                      const StreamCallback& stream) {
  const Clock::time_point start = Clock::now();
  Engine& engine = *state_->engine;
  const SamplingOptions sampling = sampling_options(options);
  std::vector<Completion> completions(prompts.size());
  Submitted submitted(engine);
  for (size_t i = 0; i < prompts.size(); ++i) {
    try {
      submitted.ids.push_back(engine.submit({prompts[i], sampling}));
    } catch (const Error& e) {
      throw Error(text("prompt ", i, ": ", e.found), e.fix, e.kind);
    }
    completions[i].prompt_tokens = engine.prompt_tokens(submitted.ids.back());
  }
  while (!engine.idle()) {
    for (const OutputDelta& delta : engine.step()) {
      const auto i = static_cast<size_t>(delta.id - submitted.ids.front());
      if (delta.finish == FinishReason::kError) {
        throw Error(text("prompt ", i, ": ", delta.error->found), delta.error->fix,
                    delta.error->kind);
      }
      Completion& completion = completions[i];
      append(completion, delta);
      completion.seconds = seconds_since(start);
      if (!stream) continue;
      const bool go_on = stream({.prompt = i,
                                 .text = delta.text,
                                 .token_ids = delta.token_ids,
                                 .finish_reason = completion.finish_reason});
      if (!go_on && engine.cancel(delta.id)) completion.finish_reason = "cancelled";
    }
  }
  return completions;
}

std::vector<Completion> Llm::generate(std::initializer_list<std::string> prompts,
                                      const GenerateOptions& options,
                                      const StreamCallback& stream) {
  return generate(std::span(prompts.begin(), prompts.size()), options, stream);
}

Completion Llm::generate(const std::string& prompt, const GenerateOptions& options,
                         const StreamCallback& stream) {
  return std::move(generate(std::span(&prompt, 1), options, stream).front());
}

std::vector<int32_t> Llm::encode(std::string_view text, bool add_special_tokens) const {
  return state_->tokenizer.encode(text, add_special_tokens);
}

std::string Llm::decode(std::span<const int32_t> ids) const {
  return state_->tokenizer.decode(ids, /*skip_special_tokens=*/true);
}

std::string Llm::describe(const GenerateOptions& options) const {
  return describe_params(sampling_options(options), state_->defaults);
}

const LlmInfo& Llm::info() const {
  return state_->info;
}

const std::vector<std::string>& Llm::notices() const {
  return state_->notices;
}

}  // namespace mantissa
