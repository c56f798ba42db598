// From logits to a token: pure functions. A token depends on parameters, history, seed, position
// and logits alone, and is the same on every machine: the exponential is our own, sums are exact or
// have a fixed order.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mantissa {

// Applied in this order, as vLLM: repetition penalty, temperature, min-p, top-k, top-p.
struct SamplingParams {
  double temperature = 1;  // >= 0; below kGreedyBelow: the highest logit, ties to the lowest id
  double top_p = 1;        // in (0, 1]: the likeliest tokens until their mass reaches it
  int64_t top_k = 0;       // 0 or -1: all. Ties with the k-th stay
  double min_p = 0;        // in [0, 1]: at least this share of the likeliest token's mass
  double repetition_penalty = 1;  // > 0: seen tokens' logits, / where positive, * where negative
  uint64_t seed = 0;
  int logprobs = -1;  // alternatives to report, 0..kLogprobsMax; -1: no logprobs at all
};
inline constexpr int kLogprobsMax = 20;
inline constexpr double kGreedyBelow = 1e-5;  // vLLM's bound

// Throws Error naming the parameter, its value and its range.
void check_sampling(const SamplingParams& params);

struct LogprobEntry {
  int32_t id = 0;
  float logprob = 0;  // log-softmax of the raw logits: no penalty, temperature or filter
};
struct SampledToken {
  int32_t id = 0;
  LogprobEntry chosen;            // where logprobs >= 0
  std::vector<LogprobEntry> top;  // [logprobs], highest first, ties to the lowest id
};

// Memory that calls reuse; one per thread.
struct SamplerScratch {
  struct Candidate {
    float logit, weight;
    int32_t id;
  };
  std::vector<float> logits, weights;  // [V]
  std::vector<Candidate> candidates;
  std::vector<uint8_t> seen;  // [V] all 0 between calls
};

struct SampleInput {
  std::span<const float> logits;     // [V] of one row
  std::span<const int32_t> history;  // prompt and output so far; ids < V
  int64_t position = 0;              // of the token to choose: history.size() in a plain sequence
  std::string name;                  // of the sequence, for errors
};
// Throws Error (kRuntime) naming the sequence where a logit is NaN or +infinity, or all are
// -infinity.
SampledToken sample(const SampleInput& input, const SamplingParams& params,
                    SamplerScratch& scratch);

}  // namespace mantissa
