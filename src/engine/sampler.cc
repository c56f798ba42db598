#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace mantissa {
namespace {

using Candidate = SamplerScratch::Candidate;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 8;    // of the loops below, which the compiler turns into vectors
constexpr size_t kBlock = 512;  // weights summed together; a multiple of kLanes

// Highest logit first, ties to the lowest id: a total order, so that what is sorted or selected by
// it is the same with every library.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The largest value; sets `bad` for NaN and +infinity.
float max_of(std::span<const float> values, bool& bad) {
  float lane_max[kLanes];
  int32_t lane_bad[kLanes] = {};
  std::fill_n(lane_max, kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float v = values[i + j];
      lane_max[j] = v > lane_max[j] ? v : lane_max[j];
      lane_bad[j] |= v < kInfinity ? 0 : 1;
    }
  }
  for (; i < values.size(); ++i) {
    lane_max[0] = values[i] > lane_max[0] ? values[i] : lane_max[0];
    lane_bad[0] |= values[i] < kInfinity ? 0 : 1;
  }
  bad = std::any_of(lane_bad, lane_bad + kLanes, [](int32_t b) { return b != 0; });
  return *std::max_element(lane_max, lane_max + kLanes);
}

// e^x for x <= 0, relative error below 2e-7; 0 below -87. Cody-Waite reduction to |r| <= ln2 / 2,
// then the Taylor series to r^7.
inline float exp_negative(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  const float clamped = x > -87.0f ? x : -87.0f;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t power = (std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound)) << 23;
  const float value = std::bit_cast<float>(std::bit_cast<int32_t>(p) + power);
  return x > -87.0f ? value : 0.0f;
}

// weights = e^((logits - max) / temperature).
void weigh(std::span<const float> logits, float max, float temperature,
           std::vector<float>& weights) {
  weights.resize(logits.size());
  const float factor = 1.0f / temperature;
  const float* in = logits.data();
  float* out = weights.data();
  for (size_t i = 0; i < logits.size(); ++i) out[i] = exp_negative((in[i] - max) * factor);
}

// The sum of weights that are at least `least`, in a fixed order.
double sum_of(std::span<const float> weights, float least) {
  double lane_sum[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lane_sum[j] += static_cast<double>(weights[i + j] >= least ? weights[i + j] : 0.0f);
    }
  }
  double sum = 0;
  for (; i < weights.size(); ++i) sum += static_cast<double>(weights[i] >= least ? weights[i] : 0);
  for (const double lane : lane_sum) sum += lane;
  return sum;
}

int32_t first_at(std::span<const float> logits, float value) {
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), value) - logits.begin());
}

// The k highest logits and all that tie with the last of them, of those whose weight is at least
// `least`; in no order. One pass with a rising threshold.
void collect_top(std::span<const float> logits, std::span<const float> weights, float least,
                 size_t k, std::vector<Candidate>& out) {
  out.clear();
  float threshold = -kInfinity;
  size_t full = std::max<size_t>(2 * k, 256);
  const auto cut = [&] {
    if (out.size() <= k) return;
    std::nth_element(out.begin(), out.begin() + static_cast<ptrdiff_t>(k - 1), out.end(), before);
    threshold = out[k - 1].logit;
    std::erase_if(out, [&](const Candidate& c) { return c.logit < threshold; });
    full = std::max(full, 2 * out.size());
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] < threshold || logits[i] == -kInfinity) continue;
    if (!weights.empty() && weights[i] < least) continue;
    out.push_back({logits[i], weights.empty() ? 0 : weights[i], static_cast<int32_t>(i)});
    if (out.size() >= full) cut();
  }
  cut();
}

// Masses are weights in fixed point: sums of integers do not depend on their order, so that
// candidates can stay unsorted. 2^40 for each of up to 2^23 tokens fits into 64 bits.
uint64_t mass(const Candidate& c) {
  return static_cast<uint64_t>(c.weight * 0x1p40f);
}
uint64_t mass(std::span<const Candidate> candidates) {
  uint64_t sum = 0;
  for (const Candidate& c : candidates) sum += mass(c);
  return sum;
}

// The number of best candidates that have at least this mass together, all of them where there is
// not as much. They are moved to the front, the last of them last. Quickselect on mass.
size_t reach(std::span<Candidate> candidates, uint64_t wanted) {
  constexpr size_t kSmall = 32;
  size_t first = 0, last = candidates.size();
  uint64_t sum = 0;  // of what stands before first
  const auto at = [&](size_t i) { return candidates.begin() + static_cast<ptrdiff_t>(i); };
  while (last - first > kSmall) {
    const size_t middle = first + (last - first) / 2;
    std::nth_element(at(first), at(middle), at(last), before);
    const uint64_t half = mass(candidates.subspan(first, middle - first));
    if (sum + half >= wanted) {
      last = middle;
    } else {
      sum += half;
      first = middle;
    }
  }
  std::sort(at(first), at(last), before);
  for (; first < last; ++first) {
    sum += mass(candidates[first]);
    if (sum >= wanted) return first + 1;
  }
  return last;
}

// A token of those that pass min-p, top-k and top-p: the one at share u of their mass, best first.
int32_t draw_filtered(const SamplingParams& params, std::span<const float> logits,
                      SamplerScratch& s, double u) {
  const auto min_p = static_cast<float>(params.min_p);
  const bool all = params.top_k <= 0 || static_cast<size_t>(params.top_k) >= logits.size();
  const size_t k = all ? logits.size() : static_cast<size_t>(params.top_k);
  // Lighter ones weigh less than (1 - top_p) / 2 of the best token together: beyond top-p.
  const double negligible = (1 - params.top_p) / 2 / static_cast<double>(logits.size());
  collect_top(logits, s.weights, all ? std::max(min_p, static_cast<float>(negligible)) : min_p, k,
              s.candidates);
  std::span<Candidate> kept = s.candidates;
  if (params.top_p < 1) {
    const double total = all ? sum_of(s.weights, min_p) * 0x1p40 : static_cast<double>(mass(kept));
    kept = kept.first(reach(kept, static_cast<uint64_t>(std::ceil(params.top_p * total))));
  }
  const uint64_t total = mass(kept);
  const auto share = static_cast<uint64_t>(u * static_cast<double>(total));
  return kept[reach(kept, std::min(share + 1, total)) - 1].id;
}

// A token of the whole vocabulary at share u, in order of id: by blocks first.
int32_t draw_any(std::span<const float> weights, double u) {
  std::vector<double> sums;
  sums.reserve(weights.size() / kBlock + 1);
  double total = 0;
  for (size_t i = 0; i < weights.size(); i += kBlock) {
    sums.push_back(sum_of(weights.subspan(i, std::min(kBlock, weights.size() - i)), 0));
    total += sums.back();
  }
  double left = u * total;
  size_t block = 0;
  for (size_t b = 0; b < sums.size(); ++b) {
    if (sums[b] == 0) continue;
    block = b;
    if (left < sums[b]) break;
    left -= sums[b];
  }
  size_t chosen = block * kBlock;
  for (size_t i = block * kBlock; i < std::min((block + 1) * kBlock, weights.size()); ++i) {
    if (weights[i] == 0) continue;
    chosen = i;
    left -= static_cast<double>(weights[i]);
    if (left < 0) break;
  }
  return static_cast<int32_t>(chosen);
}

// HF's RepetitionPenaltyLogitsProcessor and vLLM's apply_repetition_penalties: once per token.
void penalize(std::span<const int32_t> history, float penalty, SamplerScratch& s) {
  s.seen.resize(s.logits.size());
  for (const int32_t id : history) {
    const auto i = static_cast<size_t>(id);
    if (i >= s.logits.size() || s.seen[i]) continue;
    s.seen[i] = 1;
    s.logits[i] = s.logits[i] > 0 ? s.logits[i] / penalty : s.logits[i] * penalty;
  }
  for (const int32_t id : history) {
    if (static_cast<size_t>(id) < s.seen.size()) s.seen[static_cast<size_t>(id)] = 0;
  }
}

// Fills chosen and top of a token that has its id.
void add_logprobs(std::span<const float> logits, float max, int count, SampledToken& token,
                  SamplerScratch& s) {
  weigh(logits, max, 1, s.weights);
  const double log_sum = std::log(sum_of(s.weights, 0));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(max) - log_sum);
  };
  token.chosen = {token.id, logprob(logits[static_cast<size_t>(token.id)])};
  if (count == 0) return;
  collect_top(logits, {}, 0, std::min(static_cast<size_t>(count), logits.size()), s.candidates);
  std::sort(s.candidates.begin(), s.candidates.end(), before);
  s.candidates.resize(std::min(s.candidates.size(), static_cast<size_t>(count)));
  for (const Candidate& c : s.candidates) token.top.push_back({c.id, logprob(c.logit)});
}

int32_t choose(const SampleInput& input, const SamplingParams& params, float raw_max,
               SamplerScratch& s) {
  std::span<const float> logits = input.logits;
  float max = raw_max;
  if (params.repetition_penalty != 1) {
    s.logits.assign(logits.begin(), logits.end());
    penalize(input.history, static_cast<float>(params.repetition_penalty), s);
    logits = s.logits;
    bool bad = false;
    max = max_of(logits, bad);
    if (bad || max == -kInfinity) {
      throw Error(text(input.name, ": repetition_penalty ", params.repetition_penalty,
                       " takes the logits out of float32's range"),
                  "use a repetition_penalty nearer to 1", Error::Kind::kRuntime);
    }
  }
  if (params.temperature < kGreedyBelow) return first_at(logits, max);
  weigh(logits, max, static_cast<float>(params.temperature), s.weights);
  const double u = random_uniform(params.seed, static_cast<uint64_t>(input.position));
  const bool all = params.top_p >= 1 && params.top_k <= 0 && params.min_p == 0;
  return all ? draw_any(s.weights, u) : draw_filtered(params, logits, s, u);
}

}  // namespace

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

SampledToken sample(const SampleInput& input, const SamplingParams& params,
                    SamplerScratch& scratch) {
  bool bad = false;
  const float max = max_of(input.logits, bad);
  if (bad || max == -kInfinity) {
    const auto at = std::find_if(input.logits.begin(), input.logits.end(),
                                 [](float v) { return !(v < kInfinity); });
    const std::string what =
        bad ? text("logit ", at - input.logits.begin(), " is ", *at) : "all logits are -infinity";
    throw Error(text(input.name, ", position ", input.position, ": ", what),
                "check the checkpoint with `mantissa inspect`, or try another --dtype or scheme",
                Error::Kind::kRuntime);
  }
  SampledToken token;
  token.id = choose(input, params, max, scratch);
  if (params.logprobs >= 0) add_logprobs(input.logits, max, params.logprobs, token, scratch);
  return token;
}

}  // namespace mantissa
