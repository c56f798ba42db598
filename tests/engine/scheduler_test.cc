// The scheduler as a pure function: exact plans for small states, invariants under random loads,
// the same plans from a log.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/error.h"

namespace mantissa {
namespace {

SchedulerLimits limits_of(int64_t tokens, int64_t sequences, int64_t page, int64_t pages) {
  return {.step_tokens_max = {tokens},
          .sequences_max = sequences,
          .page = {page},
          .pages = {pages},
          .context_max = {page * pages}};
}

SequenceState waiting(SequenceId id, int64_t known, int64_t end_max) {
  return {.id = id, .known = {known}, .computed = {}, .end_max = {end_max}, .held = {}};
}

SequenceState running(SequenceId id, int64_t known, int64_t computed, int64_t held,
                      int64_t end_max) {
  return {.id = id,
          .known = {known},
          .computed = {computed},
          .end_max = {end_max},
          .held = {held},
          .running = true};
}

StepItem item(SequenceId id, int64_t first, int64_t count, int64_t take, bool samples) {
  return {.id = id, .first = {first}, .count = {count}, .take = {take}, .samples = samples};
}

TEST(Scheduler, NothingLivesNothingRuns) {
  EXPECT_EQ(plan_step({}, limits_of(8, 4, 4, 10)), StepPlan{});
}

TEST(Scheduler, DecodesThenExtendsThenPrefills) {
  const SchedulerState state{.sequences = {running(0, 30, 10, 8, 40), running(1, 9, 8, 2, 20),
                                           waiting(2, 5, 10), waiting(3, 5, 10)},
                             .free = {20}};
  const StepPlan plan = plan_step(state, limits_of(24, 4, 4, 40));
  EXPECT_EQ(plan.items, (std::vector<StepItem>{item(1, 8, 1, 1, true), item(0, 10, 20, 0, true),
                                               item(2, 0, 3, 2, false)}));
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(Scheduler, PreemptsTheYoungest) {
  const SchedulerState state{.sequences = {running(0, 9, 8, 2, 20), running(1, 7, 6, 2, 20),
                                           running(2, 5, 4, 1, 20), waiting(3, 1, 4)},
                             .free = {0}};
  const StepPlan plan = plan_step(state, limits_of(8, 8, 4, 5));
  EXPECT_EQ(plan.preempted, std::vector<SequenceId>{2});
  EXPECT_EQ(plan.items, (std::vector<StepItem>{item(0, 8, 1, 1, true), item(1, 6, 1, 0, true)}));
}

TEST(Scheduler, TheYoungestInNeedGoesItself) {
  const SchedulerState state{.sequences = {running(0, 7, 6, 2, 20), running(1, 9, 8, 2, 20)},
                             .free = {0}};
  const StepPlan plan = plan_step(state, limits_of(8, 8, 4, 4));
  EXPECT_EQ(plan.preempted, std::vector<SequenceId>{1});
  EXPECT_EQ(plan.items, std::vector<StepItem>{item(0, 6, 1, 0, true)});
}

TEST(Scheduler, AdmissionLeavesPagesForThoseThatGrow) {
  SchedulerState state{.sequences = {running(0, 8, 7, 2, 12), waiting(1, 8, 8)}, .free = {2}};
  EXPECT_EQ(plan_step(state, limits_of(20, 8, 4, 9)).items.size(), 1u);
  state.free = {3};
  EXPECT_EQ(plan_step(state, limits_of(20, 8, 4, 9)).items.size(), 2u);
  state.free = {2};
  state.sequences[0].end_max = {8};  // holds all it may ever need
  EXPECT_EQ(plan_step(state, limits_of(20, 8, 4, 9)).items.size(), 2u);
}

TEST(Scheduler, NobodyOvertakesTheOldestWaiting) {
  const SchedulerState state{
      .sequences = {running(0, 5, 4, 2, 8), waiting(1, 30, 31), waiting(2, 1, 2)}, .free = {4}};
  EXPECT_EQ(plan_step(state, limits_of(64, 8, 4, 20)).items.size(), 1u);
}

TEST(Scheduler, AtMostMaxNumSeqsAndOneTokenForEach) {
  SchedulerState state{.sequences = {}, .free = {100}};
  for (SequenceId id = 0; id < 10; ++id) state.sequences.push_back(waiting(id, 1, 2));
  EXPECT_EQ(plan_step(state, limits_of(64, 3, 4, 100)).items.size(), 3u);
  EXPECT_EQ(plan_step(state, limits_of(2, 3, 4, 100)).items.size(), 2u);
}

TEST(Scheduler, RefusesWhatNeverFitsWithTheNumbers) {
  SchedulerLimits limits = limits_of(8, 4, 4, 10);
  limits.context_max = {30};
  EXPECT_NO_THROW(check_fits({20}, {10}, limits));
  try {
    check_fits({20}, {11}, limits);
    FAIL() << "must be refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.found,
              "the prompt has 20 tokens and max_tokens is 11, together more than the context of 30 "
              "tokens");
    EXPECT_NE(e.fix.find("at most 10"), std::string::npos);
  }
  EXPECT_THROW(check_fits({1}, {INT64_MAX}, limits), Error);
  EXPECT_THROW(check_fits({31}, {1}, limits), Error);
  limits.context_max = {1000};
  EXPECT_NO_THROW(check_fits({30}, {10}, limits));
  EXPECT_THROW(check_fits({30}, {11}, limits), Error);
}

// A load of random arrivals carried out as the engine would, with the invariants checked at each
// step.
struct Simulation {
  struct Arrival {
    int64_t step, prompt, output;
  };
  SchedulerLimits limits;
  std::vector<Arrival> arrivals;
  SchedulerState state{};
  std::map<SequenceId, int64_t> ended{};  // at which step
  std::vector<std::pair<SchedulerState, StepPlan>> log{};
  int64_t preemptions = 0;

  SequenceState& find(SequenceId id) {
    for (SequenceState& s : state.sequences) {
      if (s.id == id) return s;
    }
    ADD_FAILURE() << "sequence " << id << " does not live";
    return state.sequences.at(0);
  }

  void check_running_are_the_oldest() const {
    bool gap = false;
    for (const SequenceState& s : state.sequences) {
      ASSERT_FALSE(gap && s.running);
      gap = gap || !s.running;
    }
  }

  void apply(const StepPlan& plan, int64_t step) {
    for (const SequenceId id : plan.preempted) {
      SequenceState& s = find(id);
      ASSERT_TRUE(s.running);
      state.free += s.held;
      s.held = {};
      s.computed = {};
      s.running = false;
      ++preemptions;
    }
    Tokens used;
    std::map<SequenceId, int> seen;
    for (const StepItem& i : plan.items) {
      SequenceState& s = find(i.id);
      ASSERT_EQ(++seen[i.id], 1);
      ASSERT_EQ(i.first, s.computed);
      ASSERT_GT(i.count.n, 0);
      state.free -= i.take;
      ASSERT_GE(state.free.n, 0);
      s.held += i.take;
      s.running = true;
      s.computed += i.count;
      used += i.count;
      ASSERT_LE(pages_for(s.computed, limits.page), s.held);
      ASSERT_EQ(i.samples, s.computed == s.known);
      if (i.samples) s.known += Tokens{1};
    }
    ASSERT_LE(used, limits.step_tokens_max);
    ASSERT_TRUE(seen.contains(state.sequences.front().id)) << "the oldest advances";
    check_running_are_the_oldest();
    int64_t count = 0;
    for (const SequenceState& s : state.sequences) count += s.running ? 1 : 0;
    ASSERT_LE(count, limits.sequences_max);
    std::erase_if(state.sequences, [&](const SequenceState& s) {
      if (s.known < s.end_max) return false;
      state.free += s.held;
      EXPECT_TRUE(ended.emplace(s.id, step).second) << "ends once";
      return true;
    });
  }

  void run() {
    state.free = limits.pages;
    size_t next = 0;
    for (int64_t step = 0; next < arrivals.size() || !state.sequences.empty(); ++step) {
      ASSERT_LT(step, 1000000) << "every sequence ends";
      for (; next < arrivals.size() && arrivals[next].step <= step; ++next) {
        const Arrival& a = arrivals[next];
        check_fits({a.prompt}, {a.output}, limits);
        state.sequences.push_back(
            waiting(static_cast<SequenceId>(next), a.prompt, a.prompt + a.output));
      }
      const StepPlan plan = plan_step(state, limits);
      log.emplace_back(state, plan);
      if (state.sequences.empty()) continue;
      apply(plan, step);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
};

Simulation random_load(uint32_t seed) {
  std::mt19937 random(seed);
  const auto up_to = [&](uint32_t n) { return static_cast<int64_t>(1 + random() % n); };
  Simulation simulation{.limits = limits_of(up_to(48), up_to(12), up_to(8), 12 + up_to(60)),
                        .arrivals = {}};
  const int64_t room = simulation.limits.page.n * simulation.limits.pages.n;
  int64_t step = 0;
  for (int64_t i = 0, n = up_to(60); i < n; ++i) {
    step += random() % 3 == 0 ? up_to(6) : 0;
    const int64_t prompt = 1 + static_cast<int64_t>(random()) % std::min<int64_t>(room - 1, 80);
    const int64_t output =
        1 + static_cast<int64_t>(random()) % std::min<int64_t>(room - prompt, 40);
    simulation.arrivals.push_back({step, prompt, output});
  }
  return simulation;
}

TEST(Scheduler, InvariantsUnderRandomLoads) {
  int64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation = random_load(seed);
    simulation.run();
    ASSERT_FALSE(HasFatalFailure());
    ASSERT_EQ(simulation.ended.size(), simulation.arrivals.size());
    ASSERT_EQ(simulation.state.free, simulation.limits.pages) << "no leaked page";
    // No starvation: the oldest advances by a token in each step, so that a sequence ends once it
    // and all older ones had their tokens.
    int64_t bound = 0;
    for (size_t i = 0; i < simulation.arrivals.size(); ++i) {
      const Simulation::Arrival& a = simulation.arrivals[i];
      bound = std::max(bound, a.step) + a.prompt + a.output;
      ASSERT_LE(simulation.ended.at(static_cast<SequenceId>(i)), bound);
    }
    preemptions += simulation.preemptions;
  }
  EXPECT_GT(preemptions, 500) << "the loads must exercise preemption";
}

TEST(Scheduler, ALogGivesTheSamePlansAgain) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    Simulation first = random_load(seed), second = random_load(seed);
    first.run();
    second.run();
    ASSERT_EQ(first.log, second.log);
    for (const auto& [state, plan] : first.log) ASSERT_EQ(plan_step(state, first.limits), plan);
  }
}

}  // namespace
}  // namespace mantissa
