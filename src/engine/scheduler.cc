#include "engine/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace mantissa {
namespace {

// What is left to give in this step.
struct Planner {
  const SchedulerState& state;
  const SchedulerLimits& limits;
  Pages free = state.free;
  Tokens budget = limits.step_tokens_max;
  std::vector<bool> running{};
  StepPlan plan{};

  // All that fits of what is not computed yet.
  void add(const SequenceState& s, Pages take) {
    const Tokens count = std::min(budget, s.known - s.computed);
    plan.items.push_back({s.id, s.computed, count, take, s.computed + count == s.known});
    budget -= count;
    free -= take;
  }

  // Frees pages of the youngest running sequences, first + 1 and up first, until `need` are free or
  // `first` itself had to go.
  void preempt_until(Pages need, size_t first) {
    for (size_t i = state.sequences.size(); i-- > first && free < need;) {
      if (!running[i]) continue;
      running[i] = false;
      free += state.sequences[i].held;
      plan.preempted.push_back(state.sequences[i].id);
    }
  }

  void decode() {
    for (size_t i = 0; i < state.sequences.size() && budget.n > 0; ++i) {
      const SequenceState& s = state.sequences[i];
      if (!running[i] || (s.known - s.computed).n != 1) continue;
      const Pages need = std::max(pages_for(s.known, limits.page) - s.held, Pages{0});
      preempt_until(need, i);
      if (running[i]) add(s, need);
    }
  }

  void extend() {
    for (size_t i = 0; i < state.sequences.size() && budget.n > 0; ++i) {
      const SequenceState& s = state.sequences[i];
      if (!running[i] || (s.known - s.computed).n == 1) continue;
      check(s.held >= pages_for(s.known, limits.page), "admission took the prompt's pages");
      add(s, Pages{0});
    }
  }

  // Whether a sequence that holds `held` pages may ask for another one.
  int64_t may_grow(const SequenceState& s, Pages held) const {
    return held < pages_for(s.end_max, limits.page) ? 1 : 0;
  }

  void admit() {
    if (!plan.preempted.empty()) return;
    Pages reserve;
    for (const SequenceState& s : state.sequences) {
      if (s.running) reserve.n += may_grow(s, s.held);
    }
    int64_t count = state.leaving + std::count(running.begin(), running.end(), true);
    const int64_t count_max = std::min(limits.sequences_max, limits.step_tokens_max.n);
    for (size_t i = 0; i < state.sequences.size(); ++i) {
      const SequenceState& s = state.sequences[i];
      if (running[i]) continue;
      const Pages need = pages_for(s.known, limits.page);
      reserve.n += may_grow(s, need);
      if (budget.n == 0 || count >= count_max || free < need + reserve) return;
      add(s, need);
      ++count;
    }
  }
};

}  // namespace

StepPlan plan_step(const SchedulerState& state, const SchedulerLimits& limits) {
  Planner planner{state, limits};
  for (const SequenceState& s : state.sequences) {
    check(s.computed < s.known && s.known <= s.end_max, "a living sequence has a token to compute");
    planner.running.push_back(s.running);
  }
  planner.decode();
  planner.extend();
  planner.admit();
  return std::move(planner.plan);
}

void check_fits(Tokens prompt, Tokens max_tokens, const SchedulerLimits& limits) {
  // max_tokens comes from outside: no sum of it before it is known to be small.
  if (prompt >= limits.context_max) {
    throw Error(text("the prompt has ", prompt.n, " tokens, and the context ends at ",
                     limits.context_max.n),
                "use a shorter prompt, or a larger --max-model-len if the model allows it");
  }
  if (max_tokens > limits.context_max - prompt) {
    throw Error(text("the prompt has ", prompt.n, " tokens and max_tokens is ", max_tokens.n,
                     ", together more than the context of ", limits.context_max.n, " tokens"),
                text("use max_tokens of at most ", limits.context_max.n - prompt.n,
                     ", a shorter prompt, or a larger --max-model-len if the model allows it"));
  }
  if (pages_for(prompt + max_tokens, limits.page) > limits.pages) {
    throw Error(
        text("the prompt has ", prompt.n, " tokens and max_tokens is ", max_tokens.n,
             ", together more than the KV cache of ", limits.pages.n * limits.page.n, " tokens"),
        "use fewer max_tokens, a shorter prompt, or a larger KV cache");
  }
}

}  // namespace mantissa
