// `mantissa perplexity`: of a text file, by the protocol of docs/evaluation.md.
#include <algorithm>
#include <boost/json.hpp>

#include "app/command.h"
#include "app/evaluation.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kOptions[] = {
    {"--file", OptionType::kText, "", "FILE", "the text, UTF-8; -: standard input"},
    {"--ctx", OptionType::kInteger, "0", "N", "tokens of a window; 0: the model's context, at most 2048", "", 0, 1e9},
    {"--stride", OptionType::kInteger, "0", "S", "windows overlap and only the last S tokens of each count; 0: no overlap", "", 0, 1e9},
    {"--limit", OptionType::kInteger, "0", "N", "only the first N windows; 0: all", "", 0, 1e12},
    {"--kld-against", OptionType::kText, "", "SCHEME[@DEVICE]", "also compare with this scheme of the same model (bf16, mostly), on this device or another: bf16@cpu"},
};
// clang-format on

// A standard error needs two tokens.
std::string error_text(double error, int64_t tokens) {
  return tokens > 1 ? fixed(error, 4) : "n/a";
}
boost::json::value error_json(double error, int64_t tokens) {
  return tokens > 1 ? boost::json::value(error) : boost::json::value(nullptr);
}

void print_table(const Args& args, const EvalModels& models, const Scored& scored, int64_t ctx,
                 int64_t windows) {
  const PerplexityResult& result = scored.result;
  Table table{{"scheme", "bits/weight", "perplexity", "+-"},
              {{scheme_label(models.model), fixed(models.model.plan().bits_per_weight, 2),
                fixed(result.perplexity, 4), error_text(result.stderr_ppl, result.tokens)}}};
  if (scored.divergence) {
    table.header.insert(table.header.end(), {base_label(args, models), "difference", "+-"});
    table.rows.front().push_back(fixed(scored.base->perplexity, 4));
    table.rows.front().push_back(fixed(scored.paired->delta, 4));
    table.rows.front().push_back(error_text(scored.paired->delta_stderr, result.tokens));
    add_divergence(table, *scored.divergence);
  }
  print_text(markdown(table));
  if (scored.divergence) note(disagreement_text(*scored.divergence, result.tokens));
  note(text(counted(result.tokens, "token"), " in ", counted(windows, "window"), " of ", ctx, ", ",
            human_seconds(scored.seconds), ", ",
            fixed(static_cast<double>(result.tokens) / scored.seconds, 0), " tokens/s"));
}

void run(const Args& args) {
  ModelOptions options = model_options_of(args);
  set_limit_options(args, options);
  if (!args.given("file"))
    throw Error("there is no text to score", "give --file FILE, for example wiki.test.raw");
  const ModelConfig config = config_of(options);
  const Tokenizer tokenizer = open_tokenizer(args, options.folder);
  const auto [windows, ctx] =
      file_windows(args, tokenizer, options, config, args.integer("stride"));
  EvalModels models = open_eval_models(args, options, config, std::ssize(windows.front().inputs));
  const Scored scored = score(args, models, windows);
  const std::vector<LayerError> linears = compare_linears(args, models, windows.front());
  const double linears_worst =
      linears.empty() ? 0 : std::ranges::max(linears, {}, &LayerError::relative_rms).relative_rms;
  if (!args.flag("json")) {
    print_table(args, models, scored, ctx, std::ssize(windows));
    if (!linears.empty())
      note(text("linears one by one on the same inputs: relative RMS difference of the devices ",
                mean_relative_rms(linears), ", at most ", linears_worst));
    return;
  }
  const int64_t tokens = scored.result.tokens;
  boost::json::object object{{"perplexity", scored.result.perplexity},
                             {"nll", scored.result.nll},
                             {"stderr", error_json(scored.result.stderr_ppl, tokens)},
                             {"tokens", tokens},
                             {"windows", windows.size()},
                             {"seconds", scored.seconds},
                             {"ctx", ctx}};
  if (scored.divergence) {
    object["base_scheme"] = base_label(args, models);
    object["base_device"] = models.base->options().device;
    object["base_perplexity"] = scored.base->perplexity;
    object["perplexity_difference"] = scored.paired->delta;
    object["perplexity_difference_stderr"] = error_json(scored.paired->delta_stderr, tokens);
    add_divergence(object, *scored.divergence);
    object["kld_stderr"] = error_json(scored.divergence->kld_stderr, tokens);
  }
  if (!linears.empty()) {
    object["linears_rms_mean"] = mean_relative_rms(linears);
    object["linears_rms_max"] = linears_worst;
  }
  object["bits_per_weight"] = models.model.plan().bits_per_weight;
  object["weights_bytes"] = models.model.plan().weights_bytes;
  add_run_info(object, models.model);
  print_json(object);
}

}  // namespace

const Verb kPerplexityVerb = {
    .name = "perplexity",
    .summary = "perplexity of a text file, and how far a scheme is from bf16",
    .details =
        "The text is encoded once, whole, without special tokens. Each window has --ctx "
        "targets and sees BOS and the tokens before each target; every token is scored once. "
        "+- is the standard error of the perplexity (n/a of one token); that of the difference to "
        "--kld-against is of "
        "the same tokens, so it is smaller. --kld-against bf16@cpu compares devices.",
    .examples =
        "mantissa perplexity models/wiki-6m --file data/wikitext-2-test-4-articles.txt\n"
        "mantissa perplexity models/wiki-6m --file data/wikitext-2-test-4-articles.txt -q "
        "ptpc_fp8 --kld-against bf16\n"
        "mantissa perplexity models/wiki-6m --file data/wikitext-2-test-4-articles.txt "
        "--ctx 512 --stride 256 --json",
    .groups = kModelOptions | kLimitOptions,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
