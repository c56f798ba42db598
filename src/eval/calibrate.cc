#include "eval/calibrate.h"

#include <algorithm>

#include "base/error.h"

namespace mantissa {
namespace {

// Windows that run between two calls of `progress`.
constexpr int64_t kWindowsAtOnce = 16;

double amax(const InputRange& range) {
  return std::max(-range.min, range.max);
}

}  // namespace

std::vector<Window> calibration_windows(std::span<const int32_t> tokens, int32_t bos,
                                        int64_t samples, int64_t length, bool with_head) {
  check(samples > 0 && length > 1, "calibration_windows: windows of at least a token");
  const int64_t step = length - 1, all = (std::ssize(tokens) + step - 1) / step;
  const int64_t count = std::min(samples, all);
  std::vector<Window> windows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * all / count * step;
    const int64_t size = std::min(step, std::ssize(tokens) - first);
    Window window;
    window.inputs.push_back(bos);
    const auto from = tokens.begin() + first;
    window.inputs.insert(window.inputs.end(), from, from + size);
    if (with_head) window.targets.assign(window.inputs.size(), bos);
    windows.push_back(std::move(window));
  }
  return windows;
}

Calibration calibrate(Model& model, std::span<const Window> windows,
                      const WindowProgress& progress) {
  check(model.options().observe_inputs, "calibrate: a model that observes");
  const EngineModel engine = engine_model(model);
  const auto total = std::ssize(windows);
  const int64_t before_last = total - std::max<int64_t>(total / 10, total > 1 ? 1 : 0);
  Calibration out;
  std::vector<InputRange> before;
  for (int64_t at = 0; at < total;) {
    if (at == before_last) before = model.input_ranges();
    const int64_t stop = at < before_last ? before_last : total;
    const int64_t count = std::min(kWindowsAtOnce, stop - at);
    const auto some = windows.subspan(static_cast<size_t>(at), static_cast<size_t>(count));
    score_windows({&engine, 1}, some, [](const ScoredRows&) {});
    for (const Window& window : some) out.tokens += std::ssize(window.inputs);
    at += count;
    if (progress) progress(at, total);
  }
  out.ranges = model.input_ranges();
  out.seen = std::ranges::count_if(out.ranges, [](const auto& r) { return amax(r) > 0; });
  for (size_t i = 0; i < before.size(); ++i) {
    const double growth = amax(before[i]) > 0 ? amax(out.ranges[i]) / amax(before[i]) : 1;
    out.grown += growth > 1 ? 1 : 0;
    out.growth_most = std::max(out.growth_most, growth);
  }
  return out;
}

}  // namespace mantissa
