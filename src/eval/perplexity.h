// Perplexity of a text, and how far a model's predictions are from a base model's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/windows.h"

namespace mantissa {

struct PerplexityResult {
  double perplexity = 0;  // exp(nll)
  double nll = 0;         // mean of -ln p over the scored tokens
  double stderr_ppl = 0;  // standard error of the perplexity: exp(nll) * s / sqrt(n - 1)
  int64_t tokens = 0;
};

// llama.cpp's statistics. Delta p: p(correct token) minus the base model's. Standard errors take
// tokens as independent.
struct DivergenceResult {
  double kld_mean = 0, kld_stderr = 0;
  double kld_median = 0, kld_p999 = 0;  // nats; p999: the 99.9 % percentile
  double top1_agreement = 0;  // part of the tokens where both have the same most likely token
  double top1_stderr = 0;
  double rms_delta_p = 0;
  // Tokens whose most likely token differs. beyond: where the base's margin between its two largest
  // logits is above the largest difference of any logit of that token between the models.
  int64_t disagreements = 0, disagreements_beyond = 0;
  double margin_max = 0;                           // of disagreements
  double logit_gap_median = 0, logit_gap_max = 0;  // of each token's largest difference
};

// What is kept of each scored token.
struct TokenDivergence {
  float kld = 0, delta_p = 0;
  bool same_top = false;
  float margin = 0;     // between the base's two largest logits; 0 where same_top
  float logit_gap = 0;  // the largest |logit - base logit|
};

// Of the same tokens: smaller than the difference of two independent texts' errors, because a token
// that is hard for one model is hard for the other.
struct PairedDifference {
  double ln_ratio = 0, ln_ratio_stderr = 0;  // ln(perplexity / base perplexity)
  double delta = 0, delta_stderr = 0;        // perplexity - base perplexity
};

PerplexityResult summarize(std::span<const float> nlls);
DivergenceResult summarize(std::span<const TokenDivergence> tokens);
PairedDifference paired_difference(std::span<const float> nlls, std::span<const float> base);
// Linear between neighbours, as numpy's default; `sorted` ascending; fraction in [0, 1].
double percentile(std::span<const float> sorted, double fraction);

// -ln p of each scored token, in order. Throws Error (kRuntime) where logits are not finite.
std::vector<float> window_nlls(const EngineModel& model, std::span<const Window> windows,
                               ThreadPool& pool, const WindowProgress& progress = {});

// What two models say of the same windows, side by side; no logits are stored.
struct ComparedScores {
  std::vector<float> nlls, base_nlls;
  std::vector<TokenDivergence> tokens;
};
ComparedScores compare_windows(const EngineModel& model, const EngineModel& base,
                               std::span<const Window> windows, ThreadPool& pool,
                               const WindowProgress& progress = {});

}  // namespace mantissa
