// A request's sampling parameters, and the sampled token as the engine reports it. How a token is
// chosen: kernels/sampling.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/sampling.h"

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

// Throws Error naming the parameter, its value and its range.
void check_sampling(const SamplingParams& params);
// As the device reads them.
SampleParams sample_params(const SamplingParams& params);

struct LogprobEntry {
  int32_t id = 0;
  float logprob = 0;  // log-softmax of the raw logits: no penalty, temperature or filter
};
struct SampledToken {
  int32_t id = 0;
  LogprobEntry chosen;            // where logprobs >= 0
  std::vector<LogprobEntry> top;  // [logprobs], highest first, ties to the lowest id
};
// row: nullptr where params.logprobs < 0.
SampledToken sampled_token(const SampledRow& sampled, const LogprobRow* row,
                           const SamplingParams& params);
// Why there is no token (kRuntime); name of the sequence and position of the token.
Error sample_error(const SampledRow& sampled, const SamplingParams& params, std::string_view name,
                   int64_t position);

struct SampleInput {
  std::span<const float> logits;     // [V] of one row
  std::span<const int32_t> history;  // prompt and output so far; ids < V
  int64_t position = 0;              // of the token to choose: history.size() in a plain sequence
  std::string name;                  // of the sequence, for errors
};
// All of it, on the host. Throws sample_error().
SampledToken sample(const SampleInput& input, const SamplingParams& params,
                    SamplerScratch& scratch);

}  // namespace mantissa
