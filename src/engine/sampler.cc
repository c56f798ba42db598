#include "engine/sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace mantissa {

void check_sampling(const SamplingParams& p) {
  struct Row {
    const char* name;
    double value;
    bool ok;
    const char* range;
  };
  const Row rows[] = {
      {"temperature", p.temperature, p.temperature >= 0 && std::isfinite(p.temperature),
       "0 or more; 0 takes the most likely token"},
      {"top_p", p.top_p, p.top_p > 0 && p.top_p <= 1, "more than 0, at most 1"},
      {"top_k", static_cast<double>(p.top_k), p.top_k >= -1, "0 or -1 for all tokens, or more"},
      {"min_p", p.min_p, p.min_p >= 0 && p.min_p <= 1, "from 0 to 1"},
      {"repetition_penalty", p.repetition_penalty,
       p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty), "more than 0; 1 is none"},
      {"logprobs", static_cast<double>(p.logprobs), p.logprobs >= -1 && p.logprobs <= kLogprobsMax,
       "from 0 to 20"},
  };
  for (const Row& row : rows) {
    if (!row.ok) {
      throw Error(text(row.name, " is ", row.value), text("use a ", row.name, " of ", row.range));
    }
  }
}

SampleParams sample_params(const SamplingParams& p) {
  return {.seed = p.seed,
          .top_p = p.top_p,
          .temperature = p.temperature < kGreedyBelow
                             ? 0
                             : static_cast<float>(std::min<double>(p.temperature, FLT_MAX)),
          .min_p = static_cast<float>(p.min_p),
          .repetition_penalty = static_cast<float>(p.repetition_penalty),
          .top_k = static_cast<int32_t>(std::clamp<int64_t>(p.top_k, 0, kVocabMax))};
}

SampledToken sampled_token(const SampledRow& sampled, const LogprobRow* row,
                           const SamplingParams& params) {
  SampledToken token;
  token.id = sampled.id;
  if (row == nullptr) return token;
  token.chosen = {sampled.id, logprob(*row, row->chosen)};
  for (int i = 0; i < std::min(params.logprobs, row->count); ++i)
    token.top.push_back({row->ids[i], logprob(*row, row->logits[i])});
  return token;
}

Error sample_error(const SampledRow& sampled, const SamplingParams& params, std::string_view name,
                   int64_t position) {
  if (sampled.status == SampleStatus::kPenaltyRange) {
    return Error(text(name, ": repetition_penalty ", params.repetition_penalty,
                      " takes the logits out of float32's range"),
                 "use a repetition_penalty nearer to 1", Error::Kind::kRuntime);
  }
  return Error(text(name, ", position ", position, ": ",
                    sampled.status == SampleStatus::kBadLogit
                        ? text("logit ", sampled.id, " is ", sampled.value)
                        : "all logits are -infinity"),
               "try another --dtype or scheme; loading warns of NaN weights by name",
               Error::Kind::kRuntime);
}

SampledToken sample(const SampleInput& input, const SamplingParams& params,
                    SamplerScratch& scratch) {
  std::vector<uint32_t> seen((input.logits.size() + 31) / 32);
  for (const int32_t id : input.history) {
    const auto i = static_cast<size_t>(id);
    if (i < input.logits.size()) seen[i / 32] |= 1u << (i % 32);
  }
  const SampledRow row =
      sample_row(input.logits, seen.data(), input.position, sample_params(params), scratch);
  if (row.status != SampleStatus::kChosen)
    throw sample_error(row, params, input.name, input.position);
  if (params.logprobs < 0) return sampled_token(row, nullptr, params);
  const LogprobRow logprobs = logprob_row(input.logits, row.id, scratch);
  return sampled_token(row, &logprobs, params);
}

}  // namespace mantissa
