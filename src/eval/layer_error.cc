#include "eval/layer_error.h"

#include <algorithm>

#include "base/error.h"

namespace mantissa {
namespace {

// One sequence of these tokens, from position 0, in the first pages.
Model::Step step_of(std::span<const int32_t> tokens, int64_t page_tokens) {
  Model::Step step;
  const auto count = static_cast<int32_t>(tokens.size());
  step.token_ids.assign(tokens.begin(), tokens.end());
  for (int32_t i = 0; i < count; ++i) {
    step.positions.push_back(i);
    step.slots.push_back(i);
  }
  step.query_start = {0, count};
  step.context_len = {count};
  std::vector<int32_t>& pages = step.block_tables.emplace_back();
  for (int32_t page = 0; page * page_tokens < count; ++page) pages.push_back(page);
  return step;
}

double relative_rms(std::span<const float> values, std::span<const float> reference) {
  check(values.size() == reference.size(), "relative_rms: results of the same linear");
  double errors = 0, squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double r = static_cast<double>(reference[i]);
    const double gap = static_cast<double>(values[i]) - r;
    errors += gap * gap;
    squares += r * r;
  }
  if (errors == 0) return 0;
  return std::sqrt(errors / squares);
}

}  // namespace

LayerReference::LayerReference(Model& reference, const Window& window)
    : LayerReference(reference, reference, window) {}

LayerReference::LayerReference(Model& unquantized, Model& reference, const Window& window) {
  const Model::Limits& limits = unquantized.limits();
  const int64_t count = std::min({kTokensMax, limits.tokens, std::ssize(window.inputs)});
  const std::span<const int32_t> tokens(window.inputs.data(), static_cast<size_t>(count));
  inputs_ = unquantized.record_inputs(step_of(tokens, limits.kv_page_tokens));
  outputs_.resize(inputs_.size());
  reference.run_linears(
      inputs_, [this](size_t i, const Model::LinearRows& output) { outputs_[i] = output; });
}

std::vector<LayerError> LayerReference::errors(Model& model) const {
  std::vector<LayerError> out;
  model.run_linears(inputs_, [&](size_t i, const Model::LinearRows& output) {
    out.push_back({.layer = output.layer,
                   .kind = output.kind,
                   .relative_rms = relative_rms(output.values, outputs_[i].values)});
  });
  return out;
}

double mean_relative_rms(std::span<const LayerError> errors) {
  if (errors.empty()) return 0;
  double squares = 0;
  for (const LayerError& e : errors) squares += e.relative_rms * e.relative_rms;
  return std::sqrt(squares / static_cast<double>(errors.size()));
}

}  // namespace mantissa
