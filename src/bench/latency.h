// How long one batch of equal requests takes, by gpt-fast's protocol: some iterations that do not
// count, then iterations of prefill and decode, each timed on its own. Reads the model directly, so
// that nothing but forward passes and the choice of the next token is measured.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace mantissa {

struct LatencyOptions {
  int64_t batch_size = 1, input_len = 0, output_len = 0;  // tokens of each sequence
  int64_t iterations = 0, warmup = 0;
  uint64_t seed = 0;  // of the random prompts
};

struct LatencyIteration {
  double prefill_seconds = 0;  // until the first token of every sequence is known
  double decode_seconds = 0;   // the output_len - 1 steps after it
};

enum class LatencyPhase { kPrefill, kDecode };
struct LatencyEvents {
  // Iterations, warm-up included.
  std::function<void(int64_t done, int64_t total)> progress;
  // A phase of one iteration begins or has ended, outside of what is timed.
  std::function<void(LatencyPhase, bool warmup)> begins, ended;
};

// Greedy. A batch beyond the model's limits is a bug of the caller.
std::vector<LatencyIteration> measure_latency(const EngineModel& model,
                                              const LatencyOptions& options,
                                              const LatencyEvents& events = {});

// Several models by turns, an iteration of each: what changes the machine meanwhile changes all.
struct LatencySubject {
  const EngineModel& model;
  LatencyEvents events;
};
std::vector<std::vector<LatencyIteration>> measure_by_turns(
    std::span<const LatencySubject> subjects, const LatencyOptions& options);

// KV capacity for one such batch.
int64_t latency_kv_tokens(const LatencyOptions& options);

struct MeanStd {
  double mean = 0, std = 0;  // of the sample (n - 1); std: NaN of fewer than two values
};
MeanStd mean_std(const std::vector<double>& values);

// Tokens a second of each iteration, all sequences together. decode: empty where output_len is 1.
std::vector<double> prefill_rates(const LatencyOptions& options,
                                  const std::vector<LatencyIteration>& iterations);
std::vector<double> decode_rates(const LatencyOptions& options,
                                 const std::vector<LatencyIteration>& iterations);

}  // namespace mantissa
