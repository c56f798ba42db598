#include "engine/engine.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/error.h"
#include "engine/kv_pages.h"
#include "engine/stop_strings.h"

namespace mantissa {
namespace {

struct Sequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  // prompt, then output
  int64_t prompt = 0;           // of them
  int64_t computed = 0;         // of them, in the cache
  std::vector<int32_t> pages;
  bool running = false;
  SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_token_ids;
  StopStrings stop_strings;
  TextStream stream;

  int64_t known() const { return static_cast<int64_t>(tokens.size()); }
};

SchedulerLimits scheduler_limits(const Model::Limits& m) {
  return {.step_tokens_max = {m.tokens},
          .sequences_max = m.sequences,
          .page = {m.kv_page_tokens},
          .pages = {m.kv_pages},
          .context_max = {m.model_len}};
}

// What the prompt leaves of context and cache, for a max_tokens that nobody asked for.
int64_t default_max_tokens(int64_t wanted, int64_t prompt, const SchedulerLimits& limits) {
  const int64_t room = std::min(limits.context_max.n, limits.pages.n * limits.page.n) - prompt;
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(room, 1));
}

void check_prompt(std::span<const int32_t> ids, int64_t vocab) {
  if (ids.empty()) {
    throw Error("the prompt has no tokens",
                "give a text; an empty one works only where the tokenizer adds a first token");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      throw Error(text("prompt[", i, "] is ", ids[i], ", but the model has ", vocab, " tokens"),
                  text("use ids from 0 to ", vocab - 1));
    }
  }
}

}  // namespace

std::string_view finish_name(FinishReason reason) {
  constexpr std::string_view kNames[] = {"", "stop", "length", "error"};
  return kNames[static_cast<size_t>(reason)];
}

struct Engine::State {
  EngineModel model;
  EngineText text_codec;
  EngineDefaults defaults;
  SchedulerLimits limits;
  KvPages pages;
  std::deque<Sequence> sequences;  // in order of arrival, which is the order of ids
  SequenceId next_id = 0;
  EngineStats stats;
  std::vector<OutputDelta> deltas;  // of this step, and of one that threw half-way
  SamplerScratch scratch;
  std::function<void(const SchedulerState&, const StepPlan&)> observer;

  State(EngineModel m, EngineText t, EngineDefaults d)
      : model(std::move(m)),
        text_codec(std::move(t)),
        defaults(std::move(d)),
        limits(scheduler_limits(model.limits)),
        pages(limits.pages) {
    check(limits.step_tokens_max.n > 0 && limits.sequences_max > 0 && limits.page.n > 0 &&
              model.limits.logits_rows > 0,
          "an engine can run one token of one sequence");
    defaults.vocab = model.limits.vocab;
  }

  std::deque<Sequence>::iterator find(SequenceId id) {
    const auto at = std::lower_bound(sequences.begin(), sequences.end(), id,
                                     [](const Sequence& s, SequenceId i) { return s.id < i; });
    return at != sequences.end() && at->id == id ? at : sequences.end();
  }
  Sequence& living(SequenceId id) {
    const auto at = find(id);
    check(at != sequences.end(), "a planned sequence lives");
    return *at;
  }

  SequenceId submit(const Request& request);
  SchedulerState scheduler_state() const;
  void release_pages(Sequence& s);
  void apply(const StepPlan& plan);
  Model::Step batch(const StepPlan& plan);
  void sample_rows(const StepPlan& plan);
  OutputDelta advance(Sequence& s, std::span<const float> logits);
  FinishReason add_token(Sequence& s, int32_t token, OutputDelta& delta);
  std::vector<OutputDelta> step();
};

SequenceId Engine::State::submit(const Request& request) {
  const EffectiveParams params = effective_params(request.sampling, defaults);
  const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt);
  std::vector<int32_t> tokens =
      ids != nullptr ? *ids : text_codec.encode(std::get<std::string>(request.prompt));
  check_prompt(tokens, model.limits.vocab);
  const auto prompt = static_cast<int64_t>(tokens.size());
  const int64_t max_tokens =
      request.sampling.max_tokens
          ? *request.sampling.max_tokens
          : default_max_tokens(params.max_tokens.value_or(kMaxTokensDefault), prompt, limits);
  check_fits({prompt}, {max_tokens}, limits);
  StopStrings stop_strings(params.stop);
  TextStream stream = text_codec.stream(tokens);
  Sequence s{.id = next_id,
             .tokens = std::move(tokens),
             .prompt = prompt,
             .pages = {},
             .sampling = params.sampling,
             .max_tokens = max_tokens,
             .stop_token_ids = params.stop_token_ids,
             .stop_strings = std::move(stop_strings),
             .stream = std::move(stream)};
  sequences.push_back(std::move(s));
  return next_id++;
}

SchedulerState Engine::State::scheduler_state() const {
  SchedulerState state;
  state.free = pages.free();
  state.sequences.reserve(sequences.size());
  for (const Sequence& s : sequences) {
    state.sequences.push_back({.id = s.id,
                               .known = {s.known()},
                               .computed = {s.computed},
                               .end_max = {s.prompt + s.max_tokens},
                               .held = {static_cast<int64_t>(s.pages.size())},
                               .running = s.running});
  }
  return state;
}

void Engine::State::release_pages(Sequence& s) {
  for (const int32_t page : s.pages) pages.release(page);
  s.pages.clear();
  s.computed = 0;
  s.running = false;
}

void Engine::State::apply(const StepPlan& plan) {
  for (const SequenceId id : plan.preempted) release_pages(living(id));
  stats.preemptions += static_cast<int64_t>(plan.preempted.size());
  for (const StepItem& item : plan.items) {
    Sequence& s = living(item.id);
    s.running = true;
    for (int64_t i = 0; i < item.take.n; ++i) {
      const std::optional<int32_t> page = pages.take();
      check(page.has_value(), "a plan takes free pages only");
      s.pages.push_back(*page);
    }
  }
}

Model::Step Engine::State::batch(const StepPlan& plan) {
  Model::Step step;
  step.query_start.push_back(0);
  for (const StepItem& item : plan.items) {
    const Sequence& s = living(item.id);
    for (int64_t p = item.first.n; p < (item.first + item.count).n; ++p) {
      const int64_t page = s.pages[static_cast<size_t>(p / limits.page.n)];
      step.token_ids.push_back(s.tokens[static_cast<size_t>(p)]);
      step.positions.push_back(static_cast<int32_t>(p));
      step.slots.push_back(static_cast<int32_t>(page * limits.page.n + p % limits.page.n));
    }
    step.query_start.push_back(static_cast<int32_t>(step.token_ids.size()));
    step.context_len.push_back(static_cast<int32_t>((item.first + item.count).n));
    step.block_tables.push_back(s.pages);
  }
  return step;
}

FinishReason Engine::State::add_token(Sequence& s, int32_t token, OutputDelta& delta) {
  s.tokens.push_back(token);
  delta.token_ids.push_back(token);
  ++stats.tokens_generated;
  FinishReason finish = FinishReason::kNone;
  const auto& ends = s.stop_token_ids;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    finish = FinishReason::kStop;
  } else {
    delta.text = s.stop_strings.push(s.stream.push(token));
    if (s.known() - s.prompt == s.max_tokens) finish = FinishReason::kLength;
  }
  if (finish != FinishReason::kNone) delta.text += s.stop_strings.push(s.stream.flush());
  if (s.stop_strings.matched()) return FinishReason::kStop;
  if (finish != FinishReason::kNone) delta.text += s.stop_strings.flush();
  return finish;
}

OutputDelta Engine::State::advance(Sequence& s, std::span<const float> logits) {
  OutputDelta delta;
  delta.id = s.id;
  s.computed = s.known();
  try {
    const SampleInput input{.logits = logits,
                            .history = s.tokens,
                            .position = s.known(),
                            .name = text("sequence ", s.id)};
    SampledToken token = sample(input, s.sampling, scratch);
    delta.finish = add_token(s, token.id, delta);
    if (s.sampling.logprobs >= 0) delta.logprobs.push_back(std::move(token));
  } catch (const Error& error) {
    delta.finish = FinishReason::kError;
    delta.error = error;
  }
  return delta;
}

void Engine::State::sample_rows(const StepPlan& plan) {
  std::vector<int32_t> rows;
  std::vector<SequenceId> owners;
  int64_t tokens = 0;
  for (const StepItem& item : plan.items) {
    tokens += item.count.n;
    if (!item.samples) {
      living(item.id).computed += item.count.n;
      continue;
    }
    rows.push_back(static_cast<int32_t>(tokens - 1));
    owners.push_back(item.id);
  }
  const auto rows_max = static_cast<size_t>(model.limits.logits_rows);
  for (size_t first = 0; first < rows.size(); first += rows_max) {
    const size_t count = std::min(rows_max, rows.size() - first);
    const Matrix<const float> logits =
        model.logits(std::span<const int32_t>(rows).subspan(first, count));
    for (size_t i = 0; i < count; ++i) {
      const auto s = find(owners[first + i]);
      deltas.push_back(advance(*s, logits.row(static_cast<int64_t>(i))));
      if (deltas.back().finish == FinishReason::kNone) continue;
      release_pages(*s);
      sequences.erase(s);
    }
  }
}

std::vector<OutputDelta> Engine::State::step() {
  if (sequences.empty()) return std::exchange(deltas, {});
  const SchedulerState state = scheduler_state();
  const StepPlan plan = plan_step(state, limits);
  check(!plan.items.empty(), "a plan for living sequences advances one");
  if (observer) observer(state, plan);
  apply(plan);
  model.forward(batch(plan));
  sample_rows(plan);
  for (const StepItem& item : plan.items) stats.tokens_computed += item.count.n;
  ++stats.steps;
  return std::exchange(deltas, {});
}

Engine::Engine(EngineModel model, EngineText text, EngineDefaults defaults)
    : state_(std::make_unique<State>(std::move(model), std::move(text), std::move(defaults))) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

SequenceId Engine::submit(const Request& request) {
  return state_->submit(request);
}

int64_t Engine::prompt_tokens(SequenceId id) const {
  const auto at = state_->find(id);
  return at == state_->sequences.end() ? 0 : at->prompt;
}

std::vector<OutputDelta> Engine::step() {
  return state_->step();
}

bool Engine::cancel(SequenceId id) {
  std::erase_if(state_->deltas, [&](const OutputDelta& delta) { return delta.id == id; });
  const auto at = state_->find(id);
  if (at == state_->sequences.end()) return false;
  state_->release_pages(*at);
  state_->sequences.erase(at);
  return true;
}

bool Engine::idle() const {
  return state_->sequences.empty() && state_->deltas.empty();
}

EngineStats Engine::stats() const {
  EngineStats stats = state_->stats;
  for (const Sequence& s : state_->sequences) ++(s.running ? stats.running : stats.waiting);
  stats.pages_free = state_->pages.free();
  stats.pages_total = state_->pages.total();
  return stats;
}

void Engine::on_plan(std::function<void(const SchedulerState&, const StepPlan&)> observer) {
  state_->observer = std::move(observer);
}

const SchedulerLimits& Engine::limits() const {
  return state_->limits;
}

const EngineDefaults& Engine::defaults() const {
  return state_->defaults;
}

bool Engine::pages_balanced() const {
  int64_t held = 0;
  for (const Sequence& s : state_->sequences) held += static_cast<int64_t>(s.pages.size());
  return state_->pages.balanced(held);
}

}  // namespace mantissa
