#include "app/evaluation.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>

#include "app/load.h"
#include "base/error.h"
#include "base/file.h"
#include "kernels/open_queue.h"

namespace mantissa {
namespace {

// Logits of one chunk: enough rows to keep all threads busy, few enough to stay small.
constexpr int64_t kLogitsBytes = int64_t{32} << 20;

constexpr int64_t kFileBytesMax = int64_t{4} << 30;
constexpr int64_t kCtxDefaultMax = 2048;  // what published tables use for long-context models
constexpr std::string_view kDataFolders[] = {"data", "../shared/data"};

int64_t ctx_of(const Args& args, const ModelOptions& options, const ModelConfig& config) {
  const int64_t context = context_of(options, config), ctx = args.integer("ctx");
  if (ctx > context)
    throw Error(text("--ctx ", ctx, ": the model's context is ", context, " tokens"),
                text("use --ctx ", context, " or less"));
  return ctx > 0 ? ctx : std::min(context, kCtxDefaultMax);
}

std::filesystem::path data_file(const Args& args, std::string_view file) {
  namespace fs = std::filesystem;
  if (args.given("data")) return fs::path(args.text("data")) / file;
  for (std::string_view folder : kDataFolders) {
    fs::path path = fs::path(folder) / file;
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    note(text("data: ", path.string()));
    return path;
  }
  throw Error(text("found ", file, " neither in ./data nor in ../shared/data"),
              "give the folder that has it with --data DIR");
}

// The first --limit; 0: all.
template <class T>
void keep_first(std::vector<T>& items, int64_t limit) {
  if (limit > 0) items.resize(std::min(items.size(), static_cast<size_t>(limit)));
}

}  // namespace

FileWindows file_windows(const Args& args, const Tokenizer& tokenizer, const ModelOptions& options,
                         const ModelConfig& config, int64_t stride) {
  const int64_t ctx = ctx_of(args, options, config);
  const int32_t bos = prefix_token(args, tokenizer, config);
  const std::vector<int32_t> tokens =
      tokenizer.encode(read_text(args, args.text("file"), kFileBytesMax), false);
  if (tokens.empty()) throw Error(text(args.text("file"), " has no text"), "give another --file");
  check_vocabulary(tokenizer, config, tokens);
  FileWindows out{perplexity_windows(tokens, bos, ctx, stride), ctx};
  keep_first(out.windows, args.integer("limit"));
  return out;
}

WikitextTask open_wikitext(const Args& args, const Tokenizer& tokenizer, const ModelConfig& config,
                           int64_t context) {
  std::vector<std::string> pages = read_wikitext_pages(data_file(args, kWikitextFile));
  keep_first(pages, args.integer("limit"));
  WikitextTask task = wikitext_task(
      tokenizer, pages, {.prefix = prefix_token(args, tokenizer, config), .length_max = context});
  for (const Window& window : task.windows) check_vocabulary(tokenizer, config, window.targets);
  return task;
}

Reference reference_of(const std::string& text, const std::string& device) {
  const size_t at = text.find('@');
  if (at == std::string::npos) return {text, device};
  Reference out{text.substr(0, at), text.substr(at + 1)};
  if (out.scheme.empty() || out.device.empty())
    throw Error(mantissa::text("--kld-against ", quoted(text), " has no ",
                               out.scheme.empty() ? "scheme before the @" : "device after the @"),
                "write SCHEME or SCHEME@DEVICE, as in bf16@cpu");
  check_device(out.device, "--kld-against " + text, out.scheme + "@");
  return out;
}

ModelOptions reference_options(ModelOptions options, const Reference& reference) {
  options.scheme = reference.scheme;
  if (options.device == reference.device) return options;
  options.device = reference.device;
  options.attention_backend = options.decode_layers = options.isa = "auto";
  options.fast_accum = options.enforce_eager = false;
  options.gpu_memory_utilization = 0;
  return options;
}

void size_for_windows(ModelOptions& options, const ModelConfig& config, int64_t length_max) {
  options.max_model_len = length_max;
  options.kv_tokens =
      window_kv_tokens(length_max, options.max_num_batched_tokens, options.max_num_seqs);
  options.logits_rows_max =
      std::clamp<int64_t>(kLogitsBytes / 4 / config.vocab_size, 1, options.max_num_batched_tokens);
}

EvalModels open_eval_models(const Args& args, ModelOptions options, const ModelConfig& config,
                            int64_t length_max) {
  size_for_windows(options, config, length_max);
  const std::string& against = args.text("kld-against");
  const Reference reference = reference_of(against, options.device);
  if (!against.empty() && reference.scheme != "auto") scheme_of("--kld-against", reference.scheme);
  if (!against.empty() && reference.device != options.device && reference.device != "auto") {
    // A device that cannot run is said before a model is loaded on the other.
    (void)open_queue(find_ops(reference.device), {.scratch_tokens = 1});
  }
  Model model = open_model(args, options);
  std::optional<Model> base;
  if (!against.empty()) {
    note(text("the model to compare with (--kld-against ", against, "):"));
    options = reference_options(options, reference);
    base = open_model(args, options);
  }
  return {std::move(model), std::move(base), std::move(options)};
}

std::string base_label(const Args& args, const EvalModels& models) {
  const std::string& given = args.text("kld-against");
  const size_t at = given.find('@');
  return scheme_label(*models.base) + (at == std::string::npos ? "" : given.substr(at));
}

std::vector<LayerError> compare_linears(const Args& args, EvalModels& models,
                                        const Window& window) {
  if (!models.base) return {};
  const ModelOptions &model = models.model.options(), &base = models.base->options();
  if (model.scheme != base.scheme || model.device == base.device ||
      !models.model.config().quantization_config.empty())
    return {};
  ModelOptions options = models.base_options;
  options.scheme = "bf16";
  options.ignore.clear();  // all of it is unquantized
  note("the unquantized model, whose linears' inputs both devices get:");
  Model unquantized = open_model(args, options);
  return LayerReference(unquantized, *models.base, window).errors(models.model);
}

int32_t prefix_token(const Args& args, const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.bos_id()) {
    check_vocabulary(tokenizer, config, {{*tokenizer.bos_id()}});
    return *tokenizer.bos_id();
  }
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
    out.paired = paired_difference(scores.nlls, scores.base_nlls);
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
  object["kld_stderr"] = divergence.kld_stderr;
  object["kld_median"] = divergence.kld_median;
  object["kld_p999"] = divergence.kld_p999;
  object["top1_agreement"] = divergence.top1_agreement;
  object["disagreements"] = divergence.disagreements;
  object["disagreements_beyond"] = divergence.disagreements_beyond;
  object["disagreement_margin_max"] = divergence.margin_max;
  object["logit_gap_median"] = divergence.logit_gap_median;
  object["logit_gap_max"] = divergence.logit_gap_max;
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

std::string disagreement_text(const DivergenceResult& d, int64_t tokens) {
  return text(d.disagreements, " of ", tokens, " tokens have another most likely token; ",
              d.disagreements_beyond,
              " of them although the reference's two largest logits are further apart than any "
              "logit moved there (largest margin ",
              fixed(d.margin_max, 4), "; the largest change of a logit: median ",
              fixed(d.logit_gap_median, 4), ", most ", fixed(d.logit_gap_max, 4), ")");
}

}  // namespace mantissa
