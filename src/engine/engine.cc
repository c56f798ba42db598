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
  int64_t in_flight = 0;        // behind them: sampled by a step whose tokens were not read yet
  int64_t computed = 0;         // of all these, in the cache once the steps under way are done
  std::vector<int32_t> pages;
  int64_t pages_sent = 0;  // of them, to the model's seat
  int32_t seat = -1;       // of the model; -1 where not running
  SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_token_ids;
  StopStrings stop_strings;
  TextStream stream;

  int64_t known() const { return static_cast<int64_t>(tokens.size()); }
  int64_t planned() const { return known() + in_flight; }
  bool running() const { return seat >= 0; }
  // Every token that it may have is sampled, or about to be.
  bool full() const { return planned() - prompt == max_tokens; }
};

// A launched step whose tokens were not read yet.
struct Flight {
  int64_t ticket = 0;
  std::vector<SequenceId> owners;  // of the sampled rows; some may have ended since
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
  std::deque<Flight> flights;       // oldest first
  bool launch_threw = false;
  std::vector<int32_t> free_seats;
  // Of the next launch; members so that their memory is kept.
  SchedulerState planned_state;
  Model::StepRequest request;
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
    for (int64_t seat = limits.sequences_max; seat-- > 0;)
      free_seats.push_back(static_cast<int32_t>(seat));
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
  void read_state();
  void release(Sequence& s);
  void apply(const StepPlan& plan);
  void make_request(const StepPlan& plan);
  void launched(const StepPlan& plan, int64_t ticket);
  bool launch();
  void read_flight();
  OutputDelta advance(Sequence& s, const SampledRow& sampled, const LogprobRow* logprobs);
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
  if (sequences.empty() && model.wake) model.wake();
  sequences.push_back(std::move(s));
  return next_id++;
}

void Engine::State::read_state() {
  planned_state.free = pages.free();
  planned_state.sequences.clear();
  planned_state.leaving = 0;
  for (const Sequence& s : sequences) {
    if (s.full()) {
      ++planned_state.leaving;
      continue;
    }
    planned_state.sequences.push_back({.id = s.id,
                                       .known = {s.planned()},
                                       .computed = {s.computed},
                                       .end_max = {s.prompt + s.max_tokens},
                                       .held = {static_cast<int64_t>(s.pages.size())},
                                       .running = s.running()});
  }
}

// Pages and seat go back; steps under way may still write there (see engine.h).
void Engine::State::release(Sequence& s) {
  for (const int32_t page : s.pages) pages.release(page);
  s.pages.clear();
  s.pages_sent = 0;
  s.computed = 0;
  if (s.seat >= 0) free_seats.push_back(std::exchange(s.seat, -1));
}

void Engine::State::apply(const StepPlan& plan) {
  for (const SequenceId id : plan.preempted) release(living(id));
  stats.preemptions += static_cast<int64_t>(plan.preempted.size());
  for (const StepItem& item : plan.items) {
    Sequence& s = living(item.id);
    if (!s.running()) {
      check(!free_seats.empty(), "a plan runs no more sequences than there are seats");
      s.seat = free_seats.back();
      free_seats.pop_back();
    }
    for (int64_t i = 0; i < item.take.n; ++i) {
      const std::optional<int32_t> page = pages.take();
      check(page.has_value(), "a plan takes free pages only");
      s.pages.push_back(*page);
    }
  }
}

void Engine::State::make_request(const StepPlan& plan) {
  request.sequences.clear();
  request.token_ids.clear();
  request.pages.clear();
  request.sampling.clear();
  request.logprobs = false;
  for (const StepItem& item : plan.items) {
    const Sequence& s = living(item.id);
    request.sequences.push_back({.seat = s.seat,
                                 .first_token = static_cast<int32_t>(request.token_ids.size()),
                                 .tokens = static_cast<int32_t>(item.count.n),
                                 .position = static_cast<int32_t>(item.first.n),
                                 .page_col = static_cast<int32_t>(s.pages_sent),
                                 .pages = static_cast<int32_t>(std::ssize(s.pages) - s.pages_sent),
                                 .page_at = static_cast<int32_t>(request.pages.size()),
                                 .sampling = sample_params(s.sampling)});
    const auto first = static_cast<std::ptrdiff_t>(item.first.n),
               end = static_cast<std::ptrdiff_t>((item.first + item.count).n),
               known = std::min<std::ptrdiff_t>(end, s.known());
    if (first < known)
      request.token_ids.insert(request.token_ids.end(), s.tokens.begin() + first,
                               s.tokens.begin() + known);
    if (end > s.known()) request.token_ids.push_back(kSampledId);
    request.pages.insert(request.pages.end(), s.pages.begin() + s.pages_sent, s.pages.end());
    if (!item.samples) continue;
    request.sampling.push_back(static_cast<int32_t>(request.sequences.size()) - 1);
    request.logprobs = request.logprobs || s.sampling.logprobs >= 0;
  }
}

void Engine::State::launched(const StepPlan& plan, int64_t ticket) {
  Flight& flight = flights.emplace_back();
  flight.ticket = ticket;
  for (const StepItem& item : plan.items) {
    Sequence& s = living(item.id);
    s.computed += item.count.n;
    s.pages_sent = std::ssize(s.pages);
    stats.tokens_computed += item.count.n;
    if (!item.samples) continue;
    ++s.in_flight;
    flight.owners.push_back(s.id);
  }
  ++stats.steps;
}

// False where there is nothing to launch before a step under way was read. A launch that threw may
// have sampled for some seats: it is tried again with ids that the host knows.
bool Engine::State::launch() {
  if (launch_threw && !flights.empty()) return false;
  read_state();
  const StepPlan plan = plan_step(planned_state, limits);
  if (plan.items.empty() || (!plan.preempted.empty() && !flights.empty())) {
    check(sequences.empty() || !flights.empty(), "a plan for living sequences advances one");
    return false;
  }
  if (observer) observer(planned_state, plan);
  apply(plan);
  make_request(plan);
  launch_threw = true;
  launched(plan, model.launch(request));
  launch_threw = false;
  return true;
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

OutputDelta Engine::State::advance(Sequence& s, const SampledRow& sampled,
                                   const LogprobRow* logprobs) {
  OutputDelta delta;
  delta.id = s.id;
  --s.in_flight;
  if (sampled.status != SampleStatus::kChosen) {
    delta.finish = FinishReason::kError;
    delta.error = sample_error(sampled, s.sampling, text("sequence ", s.id), s.known());
    return delta;
  }
  try {
    delta.finish = add_token(s, sampled.id, delta);
    if (s.sampling.logprobs >= 0)
      delta.logprobs.push_back(sampled_token(sampled, logprobs, s.sampling));
  } catch (const Error& error) {
    delta.finish = FinishReason::kError;
    delta.error = error;
  }
  return delta;
}

void Engine::State::read_flight() {
  const Flight& flight = flights.front();
  const Model::StepResult result = model.wait(flight.ticket);
  for (size_t i = 0; i < flight.owners.size(); ++i) {
    const auto s = find(flight.owners[i]);
    if (s == sequences.end()) continue;  // ended or cancelled since the launch
    const LogprobRow* logprobs = result.logprobs.empty() ? nullptr : &result.logprobs[i];
    deltas.push_back(advance(*s, result.rows[i], logprobs));
    if (deltas.back().finish == FinishReason::kNone) continue;
    release(*s);
    sequences.erase(s);
  }
  flights.pop_front();
}

std::vector<OutputDelta> Engine::State::step() {
  const size_t ahead = model.runs_ahead ? 1 : 0;
  const bool more = !sequences.empty() && launch();
  if (flights.size() > (more ? ahead : 0)) read_flight();
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
  state_->release(*at);
  state_->sequences.erase(at);
  return true;
}

bool Engine::idle() const {
  return state_->sequences.empty() && state_->deltas.empty();
}

EngineStats Engine::stats() const {
  EngineStats stats = state_->stats;
  for (const Sequence& s : state_->sequences) ++(s.running() ? stats.running : stats.waiting);
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
