// Texts as windows that fit a model's context, and the loop that runs them through one or several
// models: batched under the models' limits, logits in chunks of rows, so that memory stays what the
// plan said.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"

namespace mantissa {

// targets.size() <= inputs.size(): the last inputs predict the targets, one each.
struct Window {
  std::vector<int32_t> inputs, targets;
};

// `perplexity`'s protocol (docs/evaluation.md): each window has ctx targets, its inputs are bos and
// the first ctx - 1 of them; the last window is short. stride 0 is ctx. A smaller stride overlaps
// windows, and only the last `stride` targets of each count (all of the first): every token is
// scored once. Throws Error unless 1 <= stride <= ctx.
std::vector<Window> perplexity_windows(std::span<const int32_t> tokens, int32_t bos, int64_t ctx,
                                       int64_t stride = 0);

// lm-eval's get_rolling_token_windows with context_len 1: windows of length_max targets; the first
// starts from `prefix`, later ones from the token before. The last one is filled up with context to
// its left.
std::vector<Window> rolling_windows(std::span<const int32_t> tokens, int32_t prefix,
                                    int64_t length_max);

// One chunk of scored rows, in the order of windows and of targets in them.
struct ScoredRows {
  std::span<const int32_t> targets;             // [R]
  std::span<const int32_t> windows;             // [R] index of the window
  std::span<const Matrix<const float>> logits;  // of each model, [R, V]
};
using RowSink = std::function<void(const ScoredRows&)>;
using WindowProgress = std::function<void(int64_t done, int64_t total)>;  // scored targets

// Every model gets the same steps. Throws Error where a window does not fit the limits.
void score_windows(std::span<const EngineModel> models, std::span<const Window> windows,
                   const RowSink& sink, const WindowProgress& progress = {});

// The KV capacity that keeps passes of tokens_max tokens full with windows of length_max inputs.
int64_t window_kv_tokens(int64_t length_max, int64_t tokens_max, int64_t sequences_max);

}  // namespace mantissa
