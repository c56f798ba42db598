#include "bench/latency.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

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

// One batch: every sequence owns the same number of pages, one after the other.
class Batcher {
 public:
  Batcher(const EngineModel& model, const LatencyOptions& options, uint64_t seed)
      : model_(model),
        options_(options),
        pages_(pages_of(options.input_len + options.output_len, model.limits.kv_page_tokens)) {
    const uint64_t vocab = static_cast<uint64_t>(model.limits.vocab);
    const int64_t count = options.batch_size * options.input_len;
    for (int64_t i = 0; i < count; ++i)
      prompts_.push_back(static_cast<int32_t>(random_bits(seed, static_cast<uint64_t>(i)) % vocab));
    next_.resize(static_cast<size_t>(options.batch_size));
  }

  // Prompts in passes as large as the limits allow; then next_ holds each first token.
  void prefill() {
    int64_t sequence = 0, at = 0;
    while (sequence < options_.batch_size) {
      begin_step();
      std::vector<int64_t> finished;
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
        finished.push_back(sequence++);
        rows_.push_back(static_cast<int32_t>(step_.token_ids.size()) - 1);
        at = 0;
      }
      run_step(finished);
    }
  }

  // The i-th token after the first, of every sequence.
  void decode(int64_t i) {
    begin_step();
    std::vector<int64_t> all(static_cast<size_t>(options_.batch_size));
    std::iota(all.begin(), all.end(), 0);
    for (int64_t s : all) {
      add(s, options_.input_len + i, {&next_[static_cast<size_t>(s)], 1});
      rows_.push_back(static_cast<int32_t>(s));
    }
    run_step(all);
  }

 private:
  void begin_step() {
    step_ = {};
    step_.query_start.push_back(0);
    rows_.clear();
  }

  void add(int64_t sequence, int64_t position, std::span<const int32_t> tokens) {
    const int64_t first_slot = sequence * pages_ * model_.limits.kv_page_tokens;
    for (int32_t token : tokens) {
      step_.token_ids.push_back(token);
      step_.positions.push_back(static_cast<int32_t>(position));
      step_.slots.push_back(static_cast<int32_t>(first_slot + position));
      ++position;
    }
    step_.query_start.push_back(static_cast<int32_t>(step_.token_ids.size()));
    step_.context_len.push_back(static_cast<int32_t>(position));
    std::vector<int32_t>& table = step_.block_tables.emplace_back(static_cast<size_t>(pages_));
    std::iota(table.begin(), table.end(), static_cast<int32_t>(sequence * pages_));
  }

  // Runs step_; rows_[i] gives the next token of sequences[i].
  void run_step(const std::vector<int64_t>& sequences) {
    model_.forward(step_);
    if (rows_.empty()) return;
    const Matrix<const float> logits = model_.logits(rows_);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const std::span<const float> row = logits.row(static_cast<int64_t>(i));
      next_[static_cast<size_t>(sequences[i])] =
          static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    }
  }

  const EngineModel& model_;
  const LatencyOptions& options_;
  int64_t pages_;                 // of each sequence
  std::vector<int32_t> prompts_;  // [batch, input_len]
  std::vector<int32_t> next_;     // [batch]
  Model::Step step_;
  std::vector<int32_t> rows_;
};

}  // namespace

std::vector<LatencyIteration> measure_latency(
    const EngineModel& model, const LatencyOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  check_fits(options, model.limits);
  std::vector<LatencyIteration> out;
  const int64_t total = options.warmup + options.iterations;
  for (int64_t iteration = 0; iteration < total; ++iteration) {
    Batcher batcher(model, options, options.seed + static_cast<uint64_t>(iteration));
    const Clock::time_point start = Clock::now();
    batcher.prefill();
    const double prefill = seconds_since(start);
    for (int64_t i = 0; i + 1 < options.output_len; ++i) batcher.decode(i);
    const double decode = seconds_since(start) - prefill;
    if (iteration >= options.warmup) out.push_back({prefill, decode});
    if (progress) progress(iteration + 1, total);
  }
  return out;
}

int64_t latency_kv_tokens(const LatencyOptions& options) {
  constexpr int64_t kPageTokensMax = 64;  // a sequence's last page may be nearly empty
  return options.batch_size * (options.input_len + options.output_len + kPageTokensMax);
}

MeanStd mean_std(const std::vector<double>& values) {
  if (values.empty()) return {};
  const double count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0};
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
