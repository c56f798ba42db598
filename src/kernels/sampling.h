// From a row of logits to a token: the definition that every backend's `sample` follows to the
// token. A token depends on parameters, the set of tokens seen, seed, position and logits alone:
//   1. repetition penalty: logits of seen tokens, / where positive, * where negative
//   2. temperature: weight = exp((logit - highest) / temperature) by our own exponential
//      (sampling_math.h); below kGreedyBelow: the highest logit, ties to the lowest id, and done
//   3. min-p: weights of at least this share of the highest one (which is 1)
//   4. top-k: the k highest logits and all that tie with the last of them
//   5. top-p: the likeliest tokens (ties: lowest id first) until their mass reaches its share
//   6. the token at share u(seed, position) of the mass that is left: from the likeliest on, or in
//      order of id where nothing filters
// Masses are weights in fixed point, truncated to 2^-39 of the highest: sums of integers do not
// depend on their order, so that blocks of a GPU and lanes of a CPU agree. Order of 1 to 5 as vLLM.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mantissa {

inline constexpr int kLogprobsMax = 20;
inline constexpr double kGreedyBelow = 1e-5;  // vLLM's bound
inline constexpr int64_t kVocabMax = 1 << 19;

// What sampling reads of one sequence, as it lies on the device.
struct SampleParams {
  uint64_t seed = 0;
  double top_p = 1;              // in (0, 1]
  float temperature = 1;         // 0: greedy
  float min_p = 0;               // in [0, 1]
  float repetition_penalty = 1;  // > 0
  int32_t top_k = 0;             // 0: all
};

enum class SampleStatus : int32_t {
  kChosen,
  kBadLogit,          // NaN or +infinity: id is the first one's, value the logit
  kAllMinusInfinity,  // no token can be chosen
  kPenaltyRange,      // the repetition penalty took the logits out of float32's range
};
struct SampledRow {
  int32_t id = 0;
  SampleStatus status = SampleStatus::kChosen;
  float value = 0;
  int32_t reserved = 0;
};

// What log-softmax of the raw logits needs: logprob = logit - max - log(mass / 2^39).
struct LogprobRow {
  uint64_t mass = 0;
  float max = 0, chosen = 0;  // the highest logit, the chosen token's
  int32_t count = 0;          // of top, at most kLogprobsMax
  int32_t ids[kLogprobsMax];  // highest logit first, ties to the lowest id
  float logits[kLogprobsMax];
};
// In float32's range of errors: 2^-39 for each of the tokens.
float logprob(const LogprobRow& row, float logit);

// Memory that calls reuse; one per thread.
struct SamplerScratch {
  struct Candidate {
    float logit, weight;
    int32_t id;
  };
  std::vector<float> logits, weights;  // [V]
  std::vector<Candidate> candidates;
  std::vector<uint64_t> masses;
};
// The most it grows to while all rows are of `vocab` logits.
int64_t sampler_scratch_bytes(int64_t vocab);

// On the host. seen: a bit for each token, [V / 32] rounded up; nullptr where there is no penalty.
SampledRow sample_row(std::span<const float> logits, const uint32_t* seen, int64_t position,
                      const SampleParams& params, SamplerScratch& scratch);
LogprobRow logprob_row(std::span<const float> logits, int32_t chosen, SamplerScratch& scratch);

}  // namespace mantissa
