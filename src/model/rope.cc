#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/list.h"

namespace mantissa {
namespace {

// What a kind of scaling starts from: freqs[i] = base^(2i / dim), in float32.
struct Shape {
  int64_t dim, positions, context;
};

std::vector<float> powers(float base, int64_t dim) {
  std::vector<float> all(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < all.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    all[i] = static_cast<float>(std::pow(double{base}, exponent));
  }
  return all;
}

RopeFrequencies inverses(float base, int64_t dim) {
  RopeFrequencies f{.inv_freq = powers(base, dim), .attention_factor = 1};
  for (float& x : f.inv_freq) x = 1.0f / x;
  return f;
}

RopeFrequencies plain(const RopeConfig& rope, const Shape& shape) {
  return inverses(static_cast<float>(rope.theta), shape.dim);
}

RopeFrequencies linear(const RopeConfig& rope, const Shape& shape) {
  RopeFrequencies f = plain(rope, shape);
  for (float& x : f.inv_freq) x /= static_cast<float>(rope.factor);
  return f;
}

// The base grows with the context (NTK), in float32.
RopeFrequencies dynamic(const RopeConfig& rope, const Shape& shape) {
  if (shape.context <= shape.positions || shape.dim <= 2) return plain(rope, shape);
  const auto factor = static_cast<float>(rope.factor);
  const float stretch =
      factor * static_cast<float>(shape.context) / static_cast<float>(shape.positions) -
      static_cast<float>(rope.factor - 1);
  const double exponent = static_cast<double>(shape.dim) / static_cast<double>(shape.dim - 2);
  const auto growth = static_cast<float>(std::pow(double{stretch}, exponent));
  return inverses(static_cast<float>(rope.theta) * growth, shape.dim);
}

// Wavelengths beyond the original context are stretched by factor, short ones kept, those between
// interpolated.
RopeFrequencies llama3(const RopeConfig& rope, const Shape& shape) {
  const auto context = static_cast<float>(rope.original_max_position_embeddings);
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  RopeFrequencies all = plain(rope, shape);
  for (float& f : all.inv_freq) {
    const float wavelength = 2 * std::numbers::pi_v<float> / f;
    if (wavelength > context / low) {
      f /= factor;
    } else if (wavelength >= context / high) {
      const float smooth = (context / wavelength - low) / (high - low);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
  return all;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

// Frequencies that turn more than beta_fast times in the original context are kept, those below
// beta_slow interpolated, a linear ramp between. Source: arXiv 2309.00071, section 3.2.
RopeFrequencies yarn(const RopeConfig& rope, const Shape& shape) {
  const auto dim = static_cast<double>(shape.dim);
  const auto dimension_of = [&](double turns) {
    const auto original = static_cast<double>(rope.original_max_position_embeddings);
    return dim * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast > 0 ? rope.beta_fast : 32);
  double high = dimension_of(rope.beta_slow > 0 ? rope.beta_slow : 1);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  RopeFrequencies f{.inv_freq = powers(static_cast<float>(rope.theta), shape.dim)};
  for (size_t i = 0; i < f.inv_freq.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float kept = 1 - ramp;
    const float stretched = 1.0f / (static_cast<float>(rope.factor) * f.inv_freq[i]);
    f.inv_freq[i] = stretched * (1 - kept) + 1.0f / f.inv_freq[i] * kept;
  }
  const bool scales = rope.mscale > 0 && rope.mscale_all_dim > 0;
  const double inferred =
      scales ? yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
             : yarn_mscale(rope.factor, 1);
  f.attention_factor =
      static_cast<float>(rope.attention_factor > 0 ? rope.attention_factor : inferred);
  return f;
}

// One factor for each frequency; two sets, for contexts up to the original one and beyond.
RopeFrequencies longrope(const RopeConfig& rope, const Shape& shape) {
  const int64_t original = rope.original_max_position_embeddings;
  const std::vector<double>& factors =
      shape.context > original ? rope.long_factor : rope.short_factor;
  RopeFrequencies f{.inv_freq = powers(static_cast<float>(rope.theta), shape.dim)};
  for (size_t i = 0; i < f.inv_freq.size(); ++i) {
    f.inv_freq[i] = 1.0f / (static_cast<float>(factors[i]) * f.inv_freq[i]);
  }
  const double stretch = rope.factor > 0
                             ? rope.factor
                             : static_cast<double>(shape.positions) / static_cast<double>(original);
  double factor = 1;
  if (stretch > 1) {
    factor = std::sqrt(1 + std::log(stretch) / std::log(static_cast<double>(original)));
  }
  f.attention_factor =
      static_cast<float>(rope.attention_factor > 0 ? rope.attention_factor : factor);
  return f;
}

struct RopeKind {
  std::string_view type;
  RopeFrequencies (*frequencies)(const RopeConfig&, const Shape&);
};
constexpr RopeKind kKinds[] = {{"default", plain}, {"linear", linear}, {"dynamic", dynamic},
                               {"llama3", llama3}, {"yarn", yarn},     {"longrope", longrope}};

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config, const RopeConfig& rope, int64_t context,
                                 std::string_view known) {
  for (const RopeKind& kind : kKinds) {
    if (kind.type != rope.type || !list_contains(known, kind.type)) continue;
    return kind.frequencies(rope, {.dim = rope.rotary_dim(config.head_dim),
                                   .positions = config.max_position_embeddings,
                                   .context = context});
  }
  throw Error(text("config.json: rope_scaling type \"", rope.type, "\" is not implemented for ",
                   config.id.model_type),
              text("use a model with one of: ", known));
}

int64_t context_limit(const ModelConfig& config) {
  constexpr double kTokensMax = 1 << 27;  // as config.json's own numbers
  const RopeConfig& rope = config.rope;
  const auto stretched = [&](int64_t from) {
    return static_cast<int64_t>(std::min(static_cast<double>(from) * rope.factor, kTokensMax));
  };
  const int64_t positions = config.max_position_embeddings;
  if (rope.type == "linear" || rope.type == "dynamic") {
    return std::max(positions, stretched(positions));
  }
  if (rope.type == "yarn") {
    return std::max(positions, stretched(rope.original_max_position_embeddings));
  }
  return positions;
}

std::string describe_rope(const ModelConfig& config, int64_t context) {
  const RopeConfig& rope = config.rope;
  if (rope.type == "longrope") {
    const int64_t original = rope.original_max_position_embeddings;
    const bool is_long = context > original;
    return text("RoPE longrope: the ", is_long ? "long" : "short",
                " factors, for sequences of every length, as the context is ", context,
                is_long ? text("; --max-model-len ", original, " takes the short ones") : "");
  }
  if (rope.type == "dynamic" && context > config.max_position_embeddings) {
    return text("RoPE dynamic: frequencies of a sequence of ", context,
                " tokens, for sequences of every length");
  }
  return {};
}

}  // namespace mantissa
