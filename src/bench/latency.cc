#include "bench/latency.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace mantissa {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t pages_of(int64_t tokens, int64_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

void check_fits(const LatencyOptions& options, const Model::Limits& limits) {
  const int64_t length = options.input_len + options.output_len;
  check(options.input_len > 0 && options.output_len > 0 && options.batch_size > 0,
        "measure_latency: a batch with tokens");
  check(length <= limits.model_len, "measure_latency: sequences within the context");
  check(options.batch_size <= std::min({limits.sequences, limits.tokens, limits.logits_rows}),
        "measure_latency: a batch within the limits");
  check(options.batch_size * pages_of(length, limits.kv_page_tokens) <= limits.kv_pages,
        "measure_latency: a KV cache of latency_kv_tokens()");
}

// One batch as the engine runs it: steps that sample where the model runs, each launched before the
// host reads the tokens of the one before. Every sequence has the seat of its number and owns the
// same number of pages, one after the other.
class Batcher {
 public:
  Batcher(const EngineModel& model, const LatencyOptions& options, uint64_t seed)
      : model_(model),
        options_(options),
        pages_(pages_of(options.input_len + options.output_len, model.limits.kv_page_tokens)),
        pages_sent_(static_cast<size_t>(options.batch_size)) {
    const uint64_t vocab = static_cast<uint64_t>(model.limits.vocab);
    const int64_t count = options.batch_size * options.input_len;
    for (int64_t i = 0; i < count; ++i)
      prompts_.push_back(static_cast<int32_t>(random_bits(seed, static_cast<uint64_t>(i)) % vocab));
  }

  // Prompts in passes as large as the limits allow, until each first token is there.
  void prefill() {
    int64_t sequence = 0, at = 0;
    while (sequence < options_.batch_size) {
      begin_step();
      while (sequence < options_.batch_size) {
        const int64_t room = model_.limits.tokens - std::ssize(step_.token_ids);
        const int64_t count = std::min(room, options_.input_len - at);
        if (count == 0) break;
        add(sequence, at,
            std::span<const int32_t>(prompts_).subspan(
                static_cast<size_t>(sequence * options_.input_len + at),
                static_cast<size_t>(count)));
        at += count;
        if (at < options_.input_len) break;
        step_.sampling.push_back(static_cast<int32_t>(step_.sequences.size()) - 1);
        ++sequence;
        at = 0;
      }
      run_step();
    }
    wait();
  }

  // The i-th token after the first, of every sequence; the one before it is there on return.
  void decode(int64_t i) {
    begin_step();
    for (int64_t s = 0; s < options_.batch_size; ++s) {
      add(s, options_.input_len + i, {&kSampledId, 1});
      step_.sampling.push_back(static_cast<int32_t>(s));
    }
    run_step();
  }

  void wait() {
    if (ticket_ >= 0) model_.wait(std::exchange(ticket_, -1));
  }

 private:
  void begin_step() {
    step_.sequences.clear();
    step_.token_ids.clear();
    step_.pages.clear();
    step_.sampling.clear();
  }

  void add(int64_t sequence, int64_t position, std::span<const int32_t> tokens) {
    int64_t& sent = pages_sent_[static_cast<size_t>(sequence)];
    const int64_t needed = pages_of(position + std::ssize(tokens), model_.limits.kv_page_tokens);
    step_.sequences.push_back({.seat = static_cast<int32_t>(sequence),
                               .first_token = static_cast<int32_t>(step_.token_ids.size()),
                               .tokens = static_cast<int32_t>(tokens.size()),
                               .position = static_cast<int32_t>(position),
                               .page_col = static_cast<int32_t>(sent),
                               .pages = static_cast<int32_t>(needed - sent),
                               .page_at = static_cast<int32_t>(step_.pages.size()),
                               .sampling = {.temperature = 0}});
    step_.token_ids.insert(step_.token_ids.end(), tokens.begin(), tokens.end());
    for (; sent < needed; ++sent)
      step_.pages.push_back(static_cast<int32_t>(sequence * pages_ + sent));
  }

  void run_step() {
    const int64_t launched = model_.launch(step_);
    wait();
    ticket_ = launched;
  }

  const EngineModel& model_;
  const LatencyOptions& options_;
  int64_t pages_;                    // of each sequence
  std::vector<int64_t> pages_sent_;  // of them, to the model
  std::vector<int32_t> prompts_;     // [batch, input_len]
  Model::StepRequest step_;
  int64_t ticket_ = -1;  // of a step whose tokens were not read yet
};

LatencyIteration run_iteration(const LatencySubject& subject, const LatencyOptions& options,
                               int64_t iteration) {
  Batcher batcher(subject.model, options, options.seed + static_cast<uint64_t>(iteration));
  const LatencyEvents& events = subject.events;
  const bool warmup = iteration < options.warmup;
  const auto time_phase = [&](LatencyPhase phase, const std::function<void()>& work) {
    if (events.begins) events.begins(phase, warmup);
    const Clock::time_point start = Clock::now();
    work();
    const double seconds = seconds_since(start);
    if (events.ended) events.ended(phase, warmup);
    return seconds;
  };
  LatencyIteration times;
  times.prefill_seconds = time_phase(LatencyPhase::kPrefill, [&] { batcher.prefill(); });
  times.decode_seconds = time_phase(LatencyPhase::kDecode, [&] {
    for (int64_t i = 0; i + 1 < options.output_len; ++i) batcher.decode(i);
    batcher.wait();
  });
  return times;
}

// Longer than the workers of the model before spin.
constexpr auto kBetweenTurns = std::chrono::milliseconds(2);

}  // namespace

std::vector<std::vector<LatencyIteration>> measure_by_turns(
    std::span<const LatencySubject> subjects, const LatencyOptions& options) {
  for (const LatencySubject& subject : subjects) check_fits(options, subject.model.limits);
  std::vector<std::vector<LatencyIteration>> out(subjects.size());
  const int64_t total = options.warmup + options.iterations;
  for (int64_t iteration = 0; iteration < total; ++iteration) {
    for (size_t i = 0; i < subjects.size(); ++i) {
      if (subjects.size() > 1) std::this_thread::sleep_for(kBetweenTurns);
      const LatencyIteration times = run_iteration(subjects[i], options, iteration);
      if (iteration >= options.warmup) out[i].push_back(times);
      if (subjects[i].events.progress) subjects[i].events.progress(iteration + 1, total);
    }
  }
  return out;
}

std::vector<LatencyIteration> measure_latency(const EngineModel& model,
                                              const LatencyOptions& options,
                                              const LatencyEvents& events) {
  const LatencySubject subject{model, events};
  return std::move(measure_by_turns({&subject, 1}, options).front());
}

int64_t latency_kv_tokens(const LatencyOptions& options) {
  constexpr int64_t kPageTokensMax = 64;  // a sequence's last page may be nearly empty
  return options.batch_size * (options.input_len + options.output_len + kPageTokensMax);
}

MeanStd mean_std(const std::vector<double>& values) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {0, kNone};
  const double count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (count - 1)) : kNone};
}

namespace {

// tokens over the seconds of one phase, of each iteration.
std::vector<double> rates(int64_t tokens, const std::vector<LatencyIteration>& iterations,
                          double LatencyIteration::*seconds) {
  std::vector<double> out;
  out.reserve(iterations.size());
  for (const LatencyIteration& iteration : iterations)
    out.push_back(static_cast<double>(tokens) / iteration.*seconds);
  return out;
}

}  // namespace

std::vector<double> prefill_rates(const LatencyOptions& options,
                                  const std::vector<LatencyIteration>& iterations) {
  return rates(options.batch_size * options.input_len, iterations,
               &LatencyIteration::prefill_seconds);
}

std::vector<double> decode_rates(const LatencyOptions& options,
                                 const std::vector<LatencyIteration>& iterations) {
  if (options.output_len < 2) return {};
  return rates(options.batch_size * (options.output_len - 1), iterations,
               &LatencyIteration::decode_seconds);
}

}  // namespace mantissa
