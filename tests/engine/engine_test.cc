// The step loop over a fake model that notices every mix-up (fake_model.h).
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/error.h"
#include "fake_model.h"

namespace mantissa {
namespace {

constexpr int64_t kVocab = 16;

Model::Limits roomy() {
  return {.tokens = 512,
          .sequences = 64,
          .logits_rows = 64,
          .model_len = 200,
          .vocab = kVocab,
          .kv_pages = 64 * 13,
          .kv_page_tokens = 16};
}

EngineDefaults defaults_with_eos() {
  EngineDefaults defaults;
  defaults.eos_ids = {1};
  return defaults;
}

struct Result {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<SampledToken> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string error;

  bool operator==(const Result& o) const {
    return text == o.text && ids == o.ids && finish == o.finish;
  }
};
std::ostream& operator<<(std::ostream& out, const Result& r) {
  return out << '"' << r.text << "\" " << r.ids.size() << " tokens, " << finish_name(r.finish);
}

bool valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size(); ++i) {
    const auto c = static_cast<unsigned char>(s[i]);
    const size_t more = c < 0x80 ? 0 : c >= 0xC2 && c < 0xE0 ? 1 : c >= 0xE0 && c < 0xF0 ? 2 : 9;
    if (i + more >= s.size()) return false;
    for (size_t k = 1; k <= more; ++k) {
      if ((static_cast<unsigned char>(s[i + k]) & 0xC0) != 0x80) return false;
    }
    i += more;
  }
  return true;
}

// Adds a step's deltas to the results by id, and checks what holds for every step.
void step_into(Engine& engine, std::map<SequenceId, Result>& results) {
  for (const OutputDelta& d : engine.step()) {
    Result& r = results[d.id];
    EXPECT_EQ(r.finish, FinishReason::kNone) << "nothing comes after the end";
    EXPECT_TRUE(valid_utf8(d.text)) << d.text;
    r.text += d.text;
    r.ids.insert(r.ids.end(), d.token_ids.begin(), d.token_ids.end());
    r.logprobs.insert(r.logprobs.end(), d.logprobs.begin(), d.logprobs.end());
    r.finish = d.finish;
    if (d.error) r.error = d.error->found;
  }
  EXPECT_TRUE(engine.pages_balanced());
}

std::vector<Result> run_all(Engine& engine, const std::vector<Request>& requests) {
  std::vector<SequenceId> ids;
  ids.reserve(requests.size());
  std::map<SequenceId, Result> results;
  for (const Request& r : requests) ids.push_back(engine.submit(r));
  while (!engine.idle()) step_into(engine, results);
  EXPECT_EQ(engine.stats().pages_free, engine.stats().pages_total);
  std::vector<Result> out;
  out.reserve(ids.size());
  for (const SequenceId id : ids) out.push_back(results[id]);
  return out;
}

std::vector<Result> run_together(const Model::Limits& limits,
                                 const std::vector<Request>& requests) {
  FakeModel model(limits);
  Engine engine(engine_model(model), fake_text(), defaults_with_eos());
  return run_all(engine, requests);
}

std::vector<Result> run_one_by_one(const std::vector<Request>& requests) {
  std::vector<Result> out;
  out.reserve(requests.size());
  for (const Request& r : requests) out.push_back(run_together(roomy(), {r}).front());
  return out;
}

std::vector<Request> random_requests(uint32_t seed, int count) {
  std::mt19937 random(seed);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t> ids(1 + random() % 60);
    for (int32_t& id : ids) id = static_cast<int32_t>(2 + random() % (kVocab - 2));
    SamplingOptions o;
    o.max_tokens = 1 + random() % 50;
    o.seed = random();
    const double temperatures[] = {0, 0.7, 1, 1.5};
    o.temperature = temperatures[random() % 4];
    if (random() % 2 == 0) o.top_p = 0.9;
    if (random() % 3 == 0) o.top_k = 5;
    if (random() % 3 == 0) o.repetition_penalty = 1.3;
    if (random() % 3 == 0) o.stop = {"ab", "e\n"};
    o.ignore_eos = random() % 4 == 0;
    requests.push_back({ids, o});
  }
  return requests;
}

// Whether the model runs ahead of what the host has read.
class Engines : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Ahead, Engines, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "RunsAhead" : "InStep");
});

struct BatchCase {
  const char* why;
  Model::Limits limits;
  bool preempts;
};

TEST_P(Engines, SixtyFourAtOnceEqualOneAtATime) {
  const auto limits = [](int64_t tokens, int64_t sequences, int64_t rows, int64_t pages,
                         int64_t page) {
    Model::Limits l = roomy();
    l.tokens = tokens;
    l.sequences = sequences;
    l.logits_rows = rows;
    l.kv_pages = pages;
    l.kv_page_tokens = page;
    return l;
  };
  const BatchCase cases[] = {
      {"room for all", roomy(), false},
      {"prompts in chunks", limits(7, 64, 64, 832, 16), false},
      {"one token a step", limits(1, 64, 64, 832, 16), false},
      {"few sequences, few rows of logits", limits(64, 5, 2, 832, 16), false},
      {"few pages: preemption", limits(64, 64, 64, 14, 8), true},
      {"pages of one token", limits(40, 20, 20, 112, 1), true},
  };
  for (uint32_t seed = 0; seed < 3; ++seed) {
    const std::vector<Request> requests = random_requests(seed, 64);
    const std::vector<Result> alone = run_one_by_one(requests);
    for (const BatchCase& c : cases) {
      SCOPED_TRACE(c.why);
      FakeModel model(c.limits);
      Engine engine(engine_model(model, GetParam()), fake_text(), defaults_with_eos());
      const std::vector<Result> together = run_all(engine, requests);
      ASSERT_EQ(together.size(), alone.size());
      for (size_t i = 0; i < alone.size(); ++i) ASSERT_EQ(together[i], alone[i]) << i;
      EXPECT_EQ(engine.stats().preemptions > 0, c.preempts);
    }
  }
}

TEST_P(Engines, ArrivalsWhileOthersRunChangeNothing) {
  const std::vector<Request> requests = random_requests(11, 40);
  const std::vector<Result> alone = run_one_by_one(requests);
  Model::Limits limits = roomy();
  limits.kv_pages = 40;
  limits.tokens = 20;
  FakeModel model(limits);
  Engine engine(engine_model(model, GetParam()), fake_text(), defaults_with_eos());
  std::map<SequenceId, Result> results;
  std::mt19937 random(12);
  for (size_t next = 0; next < requests.size() || !engine.idle();) {
    while (next < requests.size() && random() % 3 == 0) {
      EXPECT_EQ(engine.submit(requests[next]), static_cast<SequenceId>(next));
      ++next;
    }
    step_into(engine, results);
  }
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(results[static_cast<int64_t>(i)], alone[i]);
}

TEST_P(Engines, LogitsAreComputedForSamplingRowsOnly) {
  Model::Limits limits = roomy();
  limits.tokens = 10;
  FakeModel model(limits);
  Engine engine(engine_model(model, GetParam()), fake_text(), {});
  SamplingOptions o;
  o.max_tokens = 3;
  o.ignore_eos = true;
  run_all(engine, {{std::vector<int32_t>(35, 2), o}});
  EXPECT_EQ(model.passes, 4 + 2);  // 35 in chunks of 10, the last of which samples
  EXPECT_EQ(model.logits_rows, 3);
  EXPECT_EQ(engine.stats().tokens_computed, 35 + 2);
  EXPECT_EQ(engine.stats().tokens_generated, 3);
}

TEST_P(Engines, CancelGivesPagesBackAndLeavesOthersAlone) {
  const std::vector<Request> requests = random_requests(21, 30);
  const std::vector<Result> alone = run_one_by_one(requests);
  Model::Limits limits = roomy();
  limits.kv_pages = 30;
  FakeModel model(limits);
  Engine engine(engine_model(model, GetParam()), fake_text(), defaults_with_eos());
  std::map<SequenceId, Result> results;
  for (const Request& r : requests) engine.submit(r);
  std::mt19937 random(22);
  std::map<SequenceId, bool> cancelled;
  while (!engine.idle()) {
    step_into(engine, results);
    const auto id = static_cast<SequenceId>(random() % 30);
    const bool lives = results[id].finish == FinishReason::kNone && !cancelled[id];
    if (random() % 4 != 0) continue;
    const Pages before = engine.stats().pages_free;
    EXPECT_EQ(engine.cancel(id), lives);
    EXPECT_GE(engine.stats().pages_free, before);
    EXPECT_TRUE(engine.pages_balanced());
    cancelled[id] = cancelled[id] || lives;
  }
  EXPECT_EQ(engine.stats().pages_free, engine.stats().pages_total);
  int whole = 0;
  for (SequenceId id = 0; id < 30; ++id) {
    const Result& full = alone[static_cast<size_t>(id)];
    if (!cancelled[id]) {
      EXPECT_EQ(results[id], full);
      ++whole;
    } else {
      EXPECT_TRUE(full.text.starts_with(results[id].text));
    }
  }
  EXPECT_GT(whole, 3);
  EXPECT_LT(whole, 28);
}

TEST(Engine, StopStringsAcrossTokensEndTheTextBeforeThem) {
  std::mt19937 random(31);
  int across = 0;
  for (const Request& request : random_requests(30, 60)) {
    Request free = request;
    free.sampling.stop.clear();
    free.sampling.max_tokens = 60;
    const Result full = run_together(roomy(), {free}).front();
    if (full.text.size() < 8) continue;
    size_t at = random() % (full.text.size() - 4);
    while ((static_cast<unsigned char>(full.text[at]) & 0xC0) == 0x80) --at;
    Request stopped = free;
    stopped.sampling.stop = {full.text.substr(at, 2 + random() % 3), "zzz"};
    const Result got = run_together(roomy(), {stopped}).front();
    EXPECT_EQ(got.finish, FinishReason::kStop);
    EXPECT_EQ(got.text, full.text.substr(0, full.text.find(stopped.sampling.stop[0])));
    ASSERT_LE(got.ids.size(), full.ids.size());
    EXPECT_TRUE(std::equal(got.ids.begin(), got.ids.end(), full.ids.begin()));
    across += stopped.sampling.stop[0].size() > 2 ? 1 : 0;
  }
  EXPECT_GT(across, 10);
}

TEST(Engine, EndTokensAndLength) {
  SamplingOptions o;
  o.max_tokens = 100;
  int stopped = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    o.seed = seed;
    o.ignore_eos = false;
    const Result r = run_together(roomy(), {{"abc", o}}).front();
    if (r.finish == FinishReason::kStop) {
      ++stopped;
      EXPECT_EQ(r.ids.back(), 1);
      EXPECT_EQ(std::count(r.ids.begin(), r.ids.end(), 1), 1);
    } else {
      EXPECT_EQ(r.finish, FinishReason::kLength);
    }
    o.ignore_eos = true;
    const Result on = run_together(roomy(), {{"abc", o}}).front();
    EXPECT_EQ(on.finish, FinishReason::kLength);
    EXPECT_EQ(on.ids.size(), 100u);
    EXPECT_TRUE(on.text.starts_with(r.text) || r.text.ends_with("\xEF\xBF\xBD"));
  }
  EXPECT_GT(stopped, 5);
  o.stop_token_ids = {5};
  const Result r = run_together(roomy(), {{"abc", o}}).front();
  EXPECT_EQ(r.ids.back(), 5);
  EXPECT_EQ(r.text.find(' '), std::string::npos) << "the text of a stop token is not part of it";
}

TEST(Engine, TheSeedDecides) {
  SamplingOptions o;
  o.max_tokens = 30;
  o.ignore_eos = true;
  o.seed = 1;
  const Request first{"abc", o};
  o.seed = 2;
  const Request second{"abc", o};
  const std::vector<Result> r = run_together(roomy(), {first, second, first});
  EXPECT_EQ(r[0], r[2]);
  EXPECT_NE(r[0].ids, r[1].ids);
}

TEST(Engine, UnsetMaxTokensIsWhatTheContextLeaves) {
  SamplingOptions o;
  o.ignore_eos = true;
  EXPECT_EQ(run_together(roomy(), {{std::vector<int32_t>(50, 2), o}}).front().ids.size(), 150u);
  Model::Limits limits = roomy();
  limits.model_len = 2000;
  EXPECT_EQ(run_together(limits, {{std::vector<int32_t>(50, 2), o}}).front().ids.size(),
            static_cast<size_t>(kMaxTokensDefault));
  limits.kv_pages = 4;
  EXPECT_EQ(run_together(limits, {{std::vector<int32_t>(50, 2), o}}).front().ids.size(), 14u);
}

std::string refusal(const Request& request, EngineText text = fake_text()) {
  FakeModel model(roomy());
  Engine engine(engine_model(model), std::move(text), {});
  try {
    engine.submit(request);
  } catch (const Error& e) {
    EXPECT_TRUE(engine.idle());
    EXPECT_FALSE(e.fix.empty());
    return e.found;
  }
  return "";
}

TEST(Engine, RefusesWhatCanNeverRun) {
  SamplingOptions o;
  o.max_tokens = 151;
  EXPECT_EQ(refusal({std::vector<int32_t>(50, 2), o}),
            "the prompt has 50 tokens and max_tokens is 151, together more than the context of 200 "
            "tokens");
  EXPECT_EQ(refusal({std::vector<int32_t>(200, 2), {}}),
            "the prompt has 200 tokens, and the context ends at 200");
  EXPECT_EQ(refusal({std::vector<int32_t>{2, 16}, {}}),
            "prompt[1] is 16, but the model has 16 tokens");
  EXPECT_EQ(refusal({std::vector<int32_t>{-1}, {}}),
            "prompt[0] is -1, but the model has 16 tokens");
  EXPECT_EQ(refusal({std::vector<int32_t>{}, {}}), "the prompt has no tokens");
  o = {};
  o.stop_token_ids = {99};
  EXPECT_EQ(refusal({"a", o}), "stop token id 99: the model has 16 tokens");
  o = {};
  o.stop = {""};
  EXPECT_EQ(refusal({"a", o}), "a stop string is empty");
  o = {};
  o.top_p = 0;
  EXPECT_EQ(refusal({"a", o}), "top_p is 0");
  EngineText text = fake_text();
  text.encode = [](std::string_view) { return std::vector<int32_t>{}; };
  EXPECT_EQ(refusal({"", {}}, text), "the prompt has no tokens");
  EXPECT_EQ(refusal({"", {}}), "") << "an empty text is fine where the tokenizer adds a token";
}

TEST_P(Engines, NanLogitsEndThatSequenceOnly) {
  FakeModel model(roomy());
  model.nan_context = {2, 3, 15};
  Engine engine(engine_model(model, GetParam()), fake_text(), {});
  SamplingOptions o;
  o.max_tokens = 5;
  o.temperature = 0;
  const std::vector<Result> r =
      run_all(engine, {{std::vector<int32_t>{2, 4}, o}, {model.nan_context, o}});
  EXPECT_EQ(r[0].finish, FinishReason::kLength);
  EXPECT_EQ(r[1].finish, FinishReason::kError);
  EXPECT_EQ(r[1].error, "sequence 1, position 3: logit 2 is nan");
}

TEST_P(Engines, AStepThatThrewCanBeTriedAgain) {
  const std::vector<Request> requests = random_requests(41, 20);
  const std::vector<Result> alone = run_one_by_one(requests);
  for (const int pass : {0, 1, 5, 20}) {
    Model::Limits limits = roomy();
    limits.tokens = 30;
    FakeModel model(limits);
    model.throw_at_pass = pass;
    Engine engine(engine_model(model, GetParam()), fake_text(), defaults_with_eos());
    std::map<SequenceId, Result> results;
    for (const Request& r : requests) engine.submit(r);
    int failures = 0;
    while (!engine.idle()) {
      try {
        step_into(engine, results);
      } catch (const Error&) {
        ++failures;
        EXPECT_TRUE(engine.pages_balanced());
      }
    }
    EXPECT_EQ(failures, 1);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(results[static_cast<int64_t>(i)], alone[i]);
  }
}

TEST_P(Engines, LogitsThatThrowLoseNothing) {
  const std::vector<Request> requests = random_requests(42, 20);
  const std::vector<Result> alone = run_one_by_one(requests);
  Model::Limits limits = roomy();
  limits.logits_rows = 3;
  FakeModel model(limits);
  int calls = 0;
  const EngineModel table = fake_engine_model(
      limits, [&](const Model::Step& step) { model.forward(step); },
      [&](std::span<const int32_t> rows) {
        if (++calls % 11 == 0) throw Error("the device is gone", "try again");
        return model.logits(rows);
      },
      GetParam());
  Engine engine(table, fake_text(), defaults_with_eos());
  std::map<SequenceId, Result> results;
  for (const Request& r : requests) engine.submit(r);
  int failures = 0;
  while (!engine.idle()) {
    try {
      step_into(engine, results);
    } catch (const Error&) {
      ++failures;
    }
  }
  EXPECT_GT(failures, 5);
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(results[static_cast<int64_t>(i)], alone[i]);
}

TEST(Engine, LogprobsComeWithTheirTokens) {
  SamplingOptions o;
  o.max_tokens = 6;
  o.ignore_eos = true;
  o.logprobs = 2;
  const Result r = run_together(roomy(), {{"abc", o}}).front();
  ASSERT_EQ(r.logprobs.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(r.logprobs[i].chosen.id, r.ids[i]);
    EXPECT_EQ(r.logprobs[i].top.size(), 2u);
    EXPECT_LT(r.logprobs[i].chosen.logprob, 0);
  }
}

TEST_P(Engines, PlansCanBeReplayed) {
  const auto record = [] {
    Model::Limits limits = roomy();
    limits.kv_pages = 30;
    limits.tokens = 40;
    FakeModel model(limits);
    Engine engine(engine_model(model, GetParam()), fake_text(), defaults_with_eos());
    std::vector<std::pair<SchedulerState, StepPlan>> log;
    engine.on_plan([&](const SchedulerState& s, const StepPlan& p) { log.emplace_back(s, p); });
    run_all(engine, random_requests(51, 40));
    for (const auto& [state, plan] : log) EXPECT_EQ(plan_step(state, engine.limits()), plan);
    return log;
  };
  const auto log = record();
  EXPECT_GT(log.size(), 50u);
  EXPECT_EQ(log, record());
}

}  // namespace
}  // namespace mantissa
