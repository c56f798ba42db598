#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/logprob.h"
#include "eval/stored_logits.h"

namespace mantissa {
namespace {

// log_sum_exp of a row, which must be finite.
double checked_lse(const ScoredRows& rows, int64_t row, size_t model) {
  const double lse = log_sum_exp(rows.logits[model].row(row));
  if (std::isfinite(lse)) return lse;
  throw Error(text("the logits of window ", rows.windows[static_cast<size_t>(row)],
                   " are not finite (NaN or infinity)"),
              "use --dtype float32 or another quantization; loading warns of NaN weights by name",
              Error::Kind::kRuntime);
}

double logit_of(const ScoredRows& rows, int64_t row, size_t model) {
  const int32_t target = rows.targets[static_cast<size_t>(row)];
  const std::span<const float> logits = rows.logits[model].row(row);
  if (target < 0 || target >= std::ssize(logits))
    throw Error(text("token id ", target, " is beyond the model's vocabulary of ", logits.size()),
                "use the tokenizer.json that belongs to this model");
  return static_cast<double>(logits[static_cast<size_t>(target)]);
}

}  // namespace

PerplexityResult summarize(std::span<const float> nlls) {
  PerplexityResult out;
  out.tokens = std::ssize(nlls);
  if (nlls.empty()) return out;
  const double count = static_cast<double>(nlls.size());
  double sum = 0, squares = 0;
  for (float nll : nlls) sum += static_cast<double>(nll);
  out.nll = sum / count;
  for (float nll : nlls) squares += std::pow(static_cast<double>(nll) - out.nll, 2);
  out.perplexity = std::exp(out.nll);
  if (nlls.size() > 1) out.stderr_ppl = out.perplexity * std::sqrt(squares / count / (count - 1));
  return out;
}

double percentile(std::span<const float> sorted, double fraction) {
  if (sorted.empty()) return 0;
  const double at = fraction * static_cast<double>(sorted.size() - 1);
  const size_t low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  const double part = at - static_cast<double>(low);
  return (1 - part) * static_cast<double>(sorted[low]) + part * static_cast<double>(sorted[high]);
}

namespace {

void add_gaps(DivergenceResult& out, std::span<const TokenDivergence> tokens) {
  std::vector<float> gaps;
  gaps.reserve(tokens.size());
  for (const TokenDivergence& token : tokens) {
    gaps.push_back(token.logit_gap);
    if (token.same_top) continue;
    ++out.disagreements;
    if (token.margin > token.logit_gap) ++out.disagreements_beyond;
    out.margin_max = std::max(out.margin_max, static_cast<double>(token.margin));
  }
  std::sort(gaps.begin(), gaps.end());
  out.logit_gap_median = percentile(gaps, 0.5);
  out.logit_gap_max = gaps.empty() ? 0 : static_cast<double>(gaps.back());
}

}  // namespace

DivergenceResult summarize(std::span<const TokenDivergence> tokens) {
  DivergenceResult out;
  if (tokens.empty()) return out;
  const double count = static_cast<double>(tokens.size());
  std::vector<float> klds;
  klds.reserve(tokens.size());
  double kld = 0, squares = 0;
  int64_t same = 0;
  for (const TokenDivergence& token : tokens) {
    klds.push_back(token.kld);
    kld += static_cast<double>(token.kld);
    squares += std::pow(static_cast<double>(token.delta_p), 2);
    same += token.same_top ? 1 : 0;
  }
  std::sort(klds.begin(), klds.end());
  out.kld_mean = kld / count;
  if (tokens.size() > 1) {
    double spread = 0;
    for (float one : klds) spread += std::pow(static_cast<double>(one) - out.kld_mean, 2);
    out.kld_stderr = std::sqrt(spread / count / (count - 1));
    const double part = static_cast<double>(same) / count;
    out.top1_stderr = std::sqrt(part * (1 - part) / (count - 1));
  }
  out.kld_median = percentile(klds, 0.5);
  out.kld_p999 = percentile(klds, 0.999);
  out.top1_agreement = static_cast<double>(same) / count;
  out.rms_delta_p = std::sqrt(squares / count);
  add_gaps(out, tokens);
  return out;
}

PairedDifference paired_difference(std::span<const float> nlls, std::span<const float> base) {
  check(nlls.size() == base.size(), "paired_difference: scores of the same tokens");
  const PerplexityResult model = summarize(nlls), reference = summarize(base);
  PairedDifference out{.ln_ratio = model.nll - reference.nll,
                       .delta = model.perplexity - reference.perplexity};
  if (nlls.size() < 2) return out;
  double squares = 0, weighted = 0;  // of nll - base nll, and of what the perplexities differ by
  for (size_t i = 0; i < nlls.size(); ++i) {
    const double x = static_cast<double>(nlls[i]) - model.nll,
                 b = static_cast<double>(base[i]) - reference.nll;
    squares += (x - b) * (x - b);
    weighted += std::pow(model.perplexity * x - reference.perplexity * b, 2);
  }
  const double count = static_cast<double>(nlls.size());
  out.ln_ratio_stderr = std::sqrt(squares / count / (count - 1));
  out.delta_stderr = std::sqrt(weighted / count / (count - 1));
  return out;
}

namespace {

// -ln p of each target of a chunk, behind those that are there.
void add_nlls(std::vector<float>& nlls, const ScoredRows& rows, ThreadPool& pool) {
  const size_t first = nlls.size();
  nlls.resize(first + rows.targets.size());
  pool.parallel_for(std::ssize(rows.targets), 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      nlls[first + static_cast<size_t>(r)] =
          static_cast<float>(checked_lse(rows, r, 0) - logit_of(rows, r, 0));
  });
}

// A chunk of the model's (0) and the base's (1) logits.
void add_compared(ComparedScores& out, const ScoredRows& rows, ThreadPool& pool) {
  const size_t first = out.nlls.size(), count = first + rows.targets.size();
  out.nlls.resize(count);
  out.base_nlls.resize(count);
  out.tokens.resize(count);
  pool.parallel_for(std::ssize(rows.targets), 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const std::span<const float> x = rows.logits[0].row(r), b = rows.logits[1].row(r);
      const double lse = checked_lse(rows, r, 0), base_lse = checked_lse(rows, r, 1);
      const double logp = logit_of(rows, r, 0) - lse, base_logp = logit_of(rows, r, 1) - base_lse;
      const size_t at = first + static_cast<size_t>(r);
      out.nlls[at] = static_cast<float>(-logp);
      out.base_nlls[at] = static_cast<float>(-base_logp);
      const bool same_top = argmax(x) == argmax(b);
      out.tokens[at] = {.kld = static_cast<float>(kl_divergence(b, base_lse, x, lse)),
                        .delta_p = static_cast<float>(std::exp(logp) - std::exp(base_logp)),
                        .same_top = same_top,
                        .margin = same_top ? 0 : top_margin(b),
                        .logit_gap = largest_gap(x, b)};
    }
  });
}

}  // namespace

std::vector<float> window_nlls(const EngineModel& model, std::span<const Window> windows,
                               ThreadPool& pool, const WindowProgress& progress) {
  std::vector<float> nlls;
  score_windows(
      {&model, 1}, windows, [&](const ScoredRows& rows) { add_nlls(nlls, rows, pool); }, progress);
  return nlls;
}

std::vector<float> store_windows(const EngineModel& model, std::span<const Window> windows,
                                 StoredLogits& store, ThreadPool& pool,
                                 const WindowProgress& progress) {
  std::vector<float> nlls;
  const RowSink sink = [&](const ScoredRows& rows) {
    add_nlls(nlls, rows, pool);
    store.append(rows.logits[0]);
  };
  score_windows({&model, 1}, windows, sink, progress);
  return nlls;
}

ComparedScores compare_windows(const EngineModel& model, const EngineModel& base,
                               std::span<const Window> windows, ThreadPool& pool,
                               const WindowProgress& progress) {
  const EngineModel models[] = {model, base};
  ComparedScores out;
  score_windows(
      models, windows, [&](const ScoredRows& rows) { add_compared(out, rows, pool); }, progress);
  return out;
}

ComparedScores compare_with_stored(const EngineModel& model, const StoredLogits& base,
                                   std::span<const Window> windows, ThreadPool& pool,
                                   const WindowProgress& progress) {
  ComparedScores out;
  std::vector<float> stored;
  const RowSink sink = [&](const ScoredRows& rows) {
    const Matrix<const float> x = rows.logits[0];
    stored.resize(static_cast<size_t>(x.rows * x.cols));
    const Matrix<float> b(stored.data(), x.rows, x.cols);
    base.read(std::ssize(out.nlls), b);
    const Matrix<const float> both[] = {x, b};
    add_compared(out, {rows.targets, rows.windows, both}, pool);
  };
  score_windows({&model, 1}, windows, sink, progress);
  return out;
}

}  // namespace mantissa
