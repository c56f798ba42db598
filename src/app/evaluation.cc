#include "app/evaluation.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>

#include "app/load.h"
#include "base/error.h"

namespace mantissa {
namespace {

// Logits of one chunk: enough rows to keep all threads busy, few enough to stay small.
constexpr int64_t kLogitsBytes = int64_t{32} << 20;

}  // namespace

EvalModels open_eval_models(const Args& args, ModelOptions options, const ModelConfig& config,
                            int64_t length_max) {
  options.max_model_len = length_max;
  options.kv_tokens =
      window_kv_tokens(length_max, options.max_num_batched_tokens, options.max_num_seqs);
  options.logits_rows_max =
      std::clamp<int64_t>(kLogitsBytes / 4 / config.vocab_size, 1, options.max_num_batched_tokens);
  Model model = open_model(args, options);
  std::optional<Model> base;
  if (const std::string& scheme = args.text("kld-against"); !scheme.empty()) {
    options.scheme = scheme;
    note(text("the model to compare with (--kld-against ", scheme, "):"));
    base = open_model(args, options);
  }
  return {std::move(model), std::move(base)};
}

int32_t prefix_token(const Args& args, const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.bos_id()) return *tokenizer.bos_id();
  if (!config.bos_token_ids.empty()) return config.bos_token_ids.front();
  const std::optional<int32_t> eos = tokenizer.eos_id() || config.eos_token_ids.empty()
                                         ? tokenizer.eos_id()
                                         : std::optional<int32_t>(config.eos_token_ids.front());
  if (!eos)
    throw Error("neither tokenizer_config.json nor config.json names a BOS or EOS token",
                "add \"bos_token\" to tokenizer_config.json: every window starts with it");
  notice(args, text("there is no BOS token; windows start with EOS, ",
                    quoted(tokenizer.token(*eos)), ", instead"));
  return *eos;
}

Scored score(const Args& args, EvalModels& models, std::span<const Window> windows) {
  ThreadPool pool(static_cast<int>(args.integer("threads")));
  Progress bar(args, "scoring");
  const WindowProgress progress = [&](int64_t done, int64_t total) { bar.update(done, total); };
  const auto start = std::chrono::steady_clock::now();
  Scored out;
  if (models.base) {
    ComparedScores scores = compare_windows(engine_model(models.model), engine_model(*models.base),
                                            windows, pool, progress);
    out.base = summarize(scores.base_nlls);
    out.divergence = summarize(std::span<const TokenDivergence>(scores.tokens));
    out.nlls = std::move(scores.nlls);
  } else {
    out.nlls = window_nlls(engine_model(models.model), windows, pool, progress);
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out.result = summarize(out.nlls);
  return out;
}

void add_divergence(boost::json::object& object, const DivergenceResult& divergence) {
  object["kld_mean"] = divergence.kld_mean;
  object["kld_median"] = divergence.kld_median;
  object["kld_p999"] = divergence.kld_p999;
  object["top1_agreement"] = divergence.top1_agreement;
  object["rms_delta_p"] = divergence.rms_delta_p;
}

void add_divergence(Table& table, const DivergenceResult& divergence) {
  const std::pair<std::string, std::string> cells[] = {
      {"KLD mean", fixed(divergence.kld_mean, 6)},
      {"KLD median", fixed(divergence.kld_median, 6)},
      {"KLD 99.9 %", fixed(divergence.kld_p999, 5)},
      {"same top-1", fixed(100 * divergence.top1_agreement, 2) + " %"},
      {"RMS delta p", fixed(100 * divergence.rms_delta_p, 3) + " %"}};
  for (const auto& [name, value] : cells) {
    table.header.push_back(name);
    table.rows.front().push_back(value);
  }
}

}  // namespace mantissa
