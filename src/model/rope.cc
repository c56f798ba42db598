#include "model/rope.h"

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/list.h"

namespace mantissa {
namespace {

// Wavelengths beyond the original context are stretched by factor, short ones kept, those between
// interpolated.
void scale_llama3(const RopeScaling& s, std::vector<float>& inv_freq) {
  const auto context = static_cast<float>(s.original_max_position_embeddings);
  const auto factor = static_cast<float>(s.factor);
  const auto low = static_cast<float>(s.low_freq_factor);
  const auto high = static_cast<float>(s.high_freq_factor);
  for (float& f : inv_freq) {
    const float wavelength = 2 * std::numbers::pi_v<float> / f;
    if (wavelength > context / low) {
      f /= factor;
    } else if (wavelength >= context / high) {
      const float smooth = (context / wavelength - low) / (high - low);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
}

}  // namespace

std::vector<float> rope_inv_freq(const ModelConfig& config, std::string_view known) {
  const RopeScaling& scaling = config.rope_scaling;
  if (!list_contains(known, scaling.type)) {
    throw Error(text("config.json: rope_scaling type \"", scaling.type,
                     "\" is not implemented for ", config.id.model_type),
                text("use a model with one of: ", known));
  }
  std::vector<float> inv_freq(static_cast<size_t>(config.head_dim / 2));
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const auto power = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(config.rope_theta)), exponent));
    inv_freq[i] = 1.0f / power;
  }
  if (scaling.type == "llama3") scale_llama3(scaling, inv_freq);
  return inv_freq;
}

}  // namespace mantissa
