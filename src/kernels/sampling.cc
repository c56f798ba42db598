#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/sampling_math.h"

namespace mantissa {
namespace {

using Candidate = SamplerScratch::Candidate;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kBlock = 512;  // weights summed together

// Of every processor; several at once, for the chains of comparisons.
constexpr size_t kLanes = 4, kVectors = 8;
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t VectorMask __attribute__((vector_size(kLanes * sizeof(int32_t))));

// Highest logit first, ties to the lowest id: a total order, so that what is sorted or selected by
// it is the same with every library.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

struct Top {
  float value = -kInfinity;
  size_t block = 0;  // where the first block that holds it begins
  bool bad = false;  // there is a NaN or +infinity
};

// The largest value, by blocks: which of them holds it is known without a second pass.
Top top_of(std::span<const float> values) {
  Top top;
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const std::span<const float> block =
        values.subspan(begin, std::min(kBlock, values.size() - begin));
    Vector most[kVectors];
    VectorMask nan[kVectors] = {};
    std::fill_n(most, kVectors, Vector{} - kInfinity);
    size_t i = 0;
    for (; i + kVectors * kLanes <= block.size(); i += kVectors * kLanes) {
      for (size_t j = 0; j < kVectors; ++j) {
        Vector v;
        std::memcpy(&v, block.data() + i + j * kLanes, sizeof v);
        most[j] = v > most[j] ? v : most[j];
        nan[j] |= v != v;
      }
    }
    float value = -kInfinity;
    for (; i < block.size(); ++i) {
      value = std::max(value, block[i]);
      top.bad = top.bad || block[i] != block[i];
    }
    for (size_t j = 0; j < kVectors * kLanes; ++j) {
      value = std::max(value, most[j / kLanes][j % kLanes]);
      top.bad = top.bad || nan[j / kLanes][j % kLanes] != 0;
    }
    if (value > top.value) top = {value, begin, top.bad};
  }
  top.bad = top.bad || top.value == kInfinity;
  return top;
}

void weigh(std::span<const float> logits, float max, float temperature,
           std::vector<float>& weights) {
  weights.resize(logits.size());
  const float factor = 1.0f / temperature;
  const float* in = logits.data();
  float* out = weights.data();
  for (size_t i = 0; i < logits.size(); ++i) out[i] = sampling::weight_of(in[i], max, factor);
}

// Of weights that are at least `least`.
uint64_t mass_of(std::span<const float> weights, float least) {
  uint64_t sum = 0;
  for (const float w : weights) sum += w >= least ? sampling::mass_of(w) : 0;
  return sum;
}
uint64_t mass_of(std::span<const Candidate> candidates) {
  uint64_t sum = 0;
  for (const Candidate& c : candidates) sum += sampling::mass_of(c.weight);
  return sum;
}

int32_t first_at(std::span<const float> logits, const Top& top) {
  const auto from = logits.begin() + static_cast<ptrdiff_t>(top.block);
  return static_cast<int32_t>(std::find(from, logits.end(), top.value) - logits.begin());
}

// The k highest logits and all that tie with the last of them, of those whose weight is at least
// `least`; in no order. One pass with a rising threshold.
void collect_top(std::span<const float> logits, std::span<const float> weights, float least,
                 size_t k, std::vector<Candidate>& out) {
  out.clear();
  out.reserve(logits.size());  // as sampler_scratch_bytes() counts
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
    const uint64_t half = mass_of(candidates.subspan(first, middle - first));
    if (sum + half >= wanted) {
      last = middle;
    } else {
      sum += half;
      first = middle;
    }
  }
  std::sort(at(first), at(last), before);
  for (; first < last; ++first) {
    sum += sampling::mass_of(candidates[first].weight);
    if (sum >= wanted) return first + 1;
  }
  return last;
}

// A token of those that pass min-p, top-k and top-p.
int32_t draw_filtered(const SampleParams& params, std::span<const float> logits, int64_t position,
                      SamplerScratch& s) {
  const bool all = params.top_k <= 0 || static_cast<size_t>(params.top_k) >= logits.size();
  const size_t k = all ? logits.size() : static_cast<size_t>(params.top_k);
  // Lighter ones weigh less than (1 - top_p) / 2 of the best token together: beyond top-p.
  const double negligible = (1 - params.top_p) / 2 / static_cast<double>(logits.size());
  const float least = all ? std::max(params.min_p, static_cast<float>(negligible)) : params.min_p;
  collect_top(logits, s.weights, least, k, s.candidates);
  std::span<Candidate> kept = s.candidates;
  if (params.top_p < 1) {
    const uint64_t total = all ? mass_of(s.weights, params.min_p) : mass_of(kept);
    kept = kept.first(reach(kept, sampling::top_p_mass(params.top_p, total)));
  }
  const uint64_t share = sampling::share_of(params.seed, position, mass_of(kept));
  return kept[reach(kept, share + 1) - 1].id;
}

// A token of the whole vocabulary, by blocks first.
int32_t draw_any(const SampleParams& params, int64_t position, SamplerScratch& s) {
  const std::span<const float> weights = s.weights;
  s.masses.clear();
  s.masses.reserve((weights.size() + kBlock - 1) / kBlock);
  uint64_t total = 0;
  for (size_t i = 0; i < weights.size(); i += kBlock) {
    s.masses.push_back(mass_of(weights.subspan(i, std::min(kBlock, weights.size() - i)), 0));
    total += s.masses.back();
  }
  uint64_t left = sampling::share_of(params.seed, position, total);
  size_t i = 0;
  for (size_t block = 0; left >= s.masses[block]; ++block) {
    left -= s.masses[block];
    i += kBlock;
  }
  for (; left >= sampling::mass_of(weights[i]); ++i) left -= sampling::mass_of(weights[i]);
  return static_cast<int32_t>(i);
}

}  // namespace

int64_t sampler_scratch_bytes(int64_t vocab) {
  constexpr int64_t kEach = 2 * sizeof(float) + sizeof(Candidate);
  const int64_t blocks = (vocab + static_cast<int64_t>(kBlock) - 1) / static_cast<int64_t>(kBlock);
  return vocab * kEach + blocks * static_cast<int64_t>(sizeof(uint64_t));
}

SampledRow sample_row(std::span<const float> logits, const uint32_t* seen, int64_t position,
                      const SampleParams& params, SamplerScratch& s) {
  Top top = top_of(logits);
  if (top.bad) {
    const auto at =
        std::find_if(logits.begin(), logits.end(), [](float v) { return !(v < kInfinity); });
    return {static_cast<int32_t>(at - logits.begin()), SampleStatus::kBadLogit, *at};
  }
  if (top.value == -kInfinity) return {0, SampleStatus::kAllMinusInfinity};
  if (params.repetition_penalty != 1) {
    s.logits.assign(logits.begin(), logits.end());
    for (size_t i = 0; i < logits.size(); ++i) {
      if (sampling::seen(seen, static_cast<int64_t>(i)))
        s.logits[i] = sampling::penalized(logits[i], params.repetition_penalty);
    }
    logits = s.logits;
    top = top_of(logits);
    if (top.bad || top.value == -kInfinity) return {0, SampleStatus::kPenaltyRange};
  }
  if (params.temperature == 0) return {first_at(logits, top)};
  weigh(logits, top.value, params.temperature, s.weights);
  return {sampling::draws_from_all(params) ? draw_any(params, position, s)
                                           : draw_filtered(params, logits, position, s)};
}

LogprobRow logprob_row(std::span<const float> logits, int32_t chosen, SamplerScratch& s) {
  LogprobRow row{};
  row.max = top_of(logits).value;
  row.chosen = logits[static_cast<size_t>(chosen)];
  weigh(logits, row.max, 1, s.weights);
  row.mass = mass_of(s.weights, 0);
  const size_t count = std::min<size_t>(kLogprobsMax, logits.size());
  collect_top(logits, {}, 0, count, s.candidates);
  std::sort(s.candidates.begin(), s.candidates.end(), before);
  row.count = static_cast<int32_t>(std::min(s.candidates.size(), count));
  for (int32_t i = 0; i < row.count; ++i) {
    row.ids[i] = s.candidates[static_cast<size_t>(i)].id;
    row.logits[i] = s.candidates[static_cast<size_t>(i)].logit;
  }
  return row;
}

float logprob(const LogprobRow& row, float logit) {
  const double total = static_cast<double>(row.mass) / static_cast<double>(sampling::kMassOne);
  return static_cast<float>(static_cast<double>(logit) - static_cast<double>(row.max) -
                            std::log(total));
}

}  // namespace mantissa
