// What the next forward pass computes: a pure function from state to plan. No device, no clock, no
// randomness, so that a recorded state gives the recorded plan again.
//
// Policy. Decodes first, then the rest of prompts under way (extend), then new prompts (prefill),
// each in order of arrival, under a budget of tokens. Pages for all known tokens of a sequence are
// taken when it is admitted; later it needs one only when its last page is full. Where there is
// none, the youngest running sequence gives up its pages and is computed again later (recompute).
// An admission leaves a free page for each running sequence that may still need one, so that it is
// not preempted at once; nobody is admitted in a step that preempted, nor beyond one sequence for
// each token of the budget. Nobody overtakes. So the running sequences are the oldest ones, the
// oldest of all advances in every step, and each one ends.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/counts.h"

namespace mantissa {

using SequenceId = int64_t;

// One living sequence, as the scheduler sees it.
struct SequenceState {
  SequenceId id = 0;
  Tokens known;          // prompt and generated tokens
  Tokens computed;       // of these, in the cache; always < known
  Tokens end_max;        // prompt and max_tokens
  Pages held;            // 0 where not running
  bool running = false;  // admitted, and not preempted since

  bool operator==(const SequenceState&) const = default;
};

struct SchedulerState {
  std::vector<SequenceState> sequences;  // in order of arrival
  Pages free;
  // Besides them: sequences whose last token is under way. They count as running.
  int64_t leaving = 0;

  bool operator==(const SchedulerState&) const = default;
};

struct SchedulerLimits {
  Tokens step_tokens_max;     // --max-num-batched-tokens
  int64_t sequences_max = 0;  // --max-num-seqs: running at once
  Tokens page;                // tokens of one page
  Pages pages;                // the pool
  Tokens context_max;         // --max-model-len
};

// Tokens [first, first + count) of one sequence.
struct StepItem {
  SequenceId id = 0;
  Tokens first, count;
  Pages take;            // pages to take before the pass
  bool samples = false;  // the last token is the newest known one: its logits give the next

  bool operator==(const StepItem&) const = default;
};

struct StepPlan {
  std::vector<SequenceId> preempted;  // their pages go back first, computed becomes 0
  std::vector<StepItem> items;

  bool operator==(const StepPlan&) const = default;
};

StepPlan plan_step(const SchedulerState& state, const SchedulerLimits& limits);

// Throws Error, with the numbers, for a sequence that could never run to its end: prompt and
// max_tokens beyond the context or beyond the whole pool.
void check_fits(Tokens prompt, Tokens max_tokens, const SchedulerLimits& limits);

}  // namespace mantissa
