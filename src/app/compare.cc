// `mantissa compare`: schemes side by side: size, accuracy, speed, errors of layers.
//
// One model is in memory at a time: the reference runs first and its logits of the text are kept in
// a temporary file (eval/stored_logits.h), which every scheme is compared with. Where that file
// would be too large, the reference stays loaded and both models run side by side.
#include "app/compare.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "app/command.h"
#include "app/evaluation.h"
#include "app/load.h"
#include "app/queue.h"
#include "app/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/list.h"
#include "base/thread_pool.h"
#include "bench/limits.h"
#include "eval/stored_logits.h"
#include "kernels/bench_ops.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

// clang-format off
constexpr Option kOptions[] = {
    {"-q,--schemes", OptionType::kText, "", "LIST", "schemes to compare, separated by commas; the run dtype (bf16 mostly) is the reference and always first"},
    {"--tasks", OptionType::kText, "", "NAME", "the text: wikitext, WikiText-2's test pages as lm-eval scores them"},
    {"--data", OptionType::kText, "", "DIR", "where the data sets lie; else ./data, then ../shared/data"},
    {"--file", OptionType::kText, "", "FILE", "the text: this file, UTF-8, as `mantissa perplexity` scores it; -: standard input"},
    {"--ctx", OptionType::kInteger, "0", "N", "with --file: tokens of a window; 0: the model's context, at most 2048", "", 0, 1e9},
    {"--limit", OptionType::kInteger, "0", "N", "only the first N pages of --tasks or windows of --file; 0: all", "", 0, 1e12},
    {"--html", OptionType::kText, "", "FILE", "write a page with table and plots, one file that needs nothing else"},
    {"--input-len", OptionType::kInteger, "0", "N", "speed: tokens of the prompt; 0: 512, or what the context leaves", "", 0, 1e9},
    {"--output-len", OptionType::kInteger, "32", "N", "speed: generated tokens", "", 2, 1e9},
    {"--iterations", OptionType::kInteger, "5", "N", "speed: measured iterations", "", 1, 1e6},
    {"--warmup", OptionType::kInteger, "1", "N", "speed: iterations before them that do not count", "", 0, 1e6},
};
// clang-format on

constexpr int64_t kInputLenMost = 512;

// Canonical names, the reference first.
std::vector<std::string> schemes_of(const Args& args) {
  const std::string reference = parse_scheme("bf16").name;
  std::vector<std::string> names = scheme_names("--schemes", args.text("schemes"), false);
  if (names.empty())
    throw Error("there is nothing to compare",
                "name schemes, for example --schemes fp8,int8,int4_weight_only");
  std::erase(names, reference);
  names.insert(names.begin(), reference);
  return names;
}

// Where the page will be: found to be writable before the long work; written beside its place and
// moved there, so that an old page stays until the new one is whole.
class PageFile {
 public:
  PageFile(const std::string& path, bool given) : path_(path) {
    if (!given) return;
    if (path.empty()) throw Error("--html is empty", "name a file to write");
    const fs::path target(path);
    std::error_code ignored;
    const fs::file_status status = fs::status(target, ignored);
    if (fs::exists(status) && !fs::is_regular_file(status))
      throw Error(text("--html ", quoted(path), " is no regular file"), "name a file to write");
    part_ = text(path, ".part", getpid());
    file_.open(part_, std::ios::binary);
    if (!file_)
      throw Error(text("--html ", quoted(path), " cannot be written: ", std::strerror(errno)),
                  "name a file in a folder that exists and is writable");
    file_.close();
    std::remove(part_.c_str());  // found writable; nothing lies there while the work runs
  }
  ~PageFile() {
    if (!part_.empty()) std::remove(part_.c_str());
  }
  PageFile(const PageFile&) = delete;
  PageFile& operator=(const PageFile&) = delete;

  void write(const std::string& page) {
    file_.open(part_, std::ios::binary);
    file_ << page;
    file_.close();
    std::error_code failed;
    if (file_) fs::rename(part_, path_, failed);
    if (!file_ || failed)
      throw Error(text("--html ", quoted(path_), " could not be written"),
                  "free some space, or name another place", Error::Kind::kRuntime);
    part_.clear();
  }

 private:
  std::string path_, part_;
  std::ofstream file_;
};

// What is scored: windows of a file, or a task's.
struct ScoredText {
  std::string name;
  std::vector<Window> windows;
  std::optional<WikitextTask> task;
  int64_t length_max = 0;  // of a window's inputs
  int64_t targets = 0;
};

ScoredText text_of(const Args& args, const ModelOptions& options, const ModelConfig& config) {
  if (args.given("tasks") == args.given("file"))
    throw Error(
        args.given("file") ? "both --tasks and --file are given" : "there is no text to score",
        "give --tasks wikitext, or --file TEXT, for example --file "
        "data/wikitext-2-test-4-articles.txt");
  ScoredText out;
  if (args.given("tasks")) {
    if (args.given("ctx"))
      throw Error("--ctx belongs to --file", "leave it out; wikitext uses the model's context");
    if (args.text("tasks") != "wikitext")
      throw Error(text("--tasks ", quoted(args.text("tasks")), ": compare scores wikitext"),
                  "use --tasks wikitext, or --file TEXT");
    const Tokenizer tokenizer = open_tokenizer(args, options.folder);
    out.task = open_wikitext(args, tokenizer, config, context_of(options, config));
    out.windows = std::move(out.task->windows);
    out.name = text("WikiText-2 test, ", out.task->pages.size(), " pages, as lm-eval scores them");
  } else {
    const Tokenizer tokenizer = open_tokenizer(args, options.folder);
    out.windows = file_windows(args, tokenizer, options, config).windows;
    out.name = fs::path(args.text("file")).filename().string();
  }
  for (const Window& window : out.windows) {
    out.length_max = std::max(out.length_max, std::ssize(window.inputs));
    out.targets += std::ssize(window.targets);
  }
  if (out.targets == 0) throw Error("the text has no tokens to score", "give another text");
  return out;
}

// The speeds' shape, within the model's context.
LatencyOptions latency_of(const Args& args, int64_t context) {
  LatencyOptions out{.batch_size = 1,
                     .input_len = args.integer("input-len"),
                     .output_len = args.integer("output-len"),
                     .iterations = args.integer("iterations"),
                     .warmup = args.integer("warmup"),
                     .seed = static_cast<uint64_t>(args.integer("seed"))};
  if (out.input_len == 0) out.input_len = std::min(kInputLenMost, context - out.output_len);
  if (out.input_len < 1 || out.input_len + out.output_len > context)
    throw Error(text("a prompt of ", std::max<int64_t>(1, out.input_len), " and ", out.output_len,
                     " generated tokens are more than the model's context of ", context),
                "use a smaller --input-len or --output-len");
  return out;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M UTC", &utc);
  return buffer;
}

// A word as a shell reads it.
std::string shell_word(const std::string& word) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_./:,=@%+-").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::ranges::all_of(word, plain)) return word;
  std::string out = "'";
  for (char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// The command as a person would type it again.
std::string command_of(const Args& args) {
  std::string out = "mantissa compare " + shell_word(args.text("MODEL"));
  for (const char* name : {"schemes",
                           "tasks",
                           "data",
                           "file",
                           "ctx",
                           "limit",
                           "input-len",
                           "output-len",
                           "iterations",
                           "warmup",
                           "seed",
                           "device",
                           "dtype",
                           "isa",
                           "threads",
                           "lm-head-scheme",
                           "kv-cache-dtype",
                           "kv-scale",
                           "calibrate",
                           "calibrate-samples",
                           "calibrate-seq-len",
                           "attention-backend",
                           "decode-layers",
                           "gpu-memory-utilization",
                           "max-num-seqs",
                           "max-model-len",
                           "max-num-batched-tokens"})
    if (args.given(name)) out += text(" --", name, " ", shell_word(args.given_text(name)));
  for (const std::string& pattern : args.list("ignore")) out += " --ignore " + shell_word(pattern);
  for (const char* name : {"fast-accum", "enforce-eager", "no-library-kernels", "strict"})
    if (args.flag(name)) out += text(" --", name);
  return out;
}

fs::path temporary_folder() {
  std::error_code code;
  fs::path folder = fs::temp_directory_path(code);
  if (code)
    throw Error(text("there is no folder for temporary files: ", code.message()),
                "set TMPDIR to a folder with free space");
  return folder;
}

class Comparer {
 public:
  Comparer(const Args& args, ModelOptions options, const ModelConfig& config, ScoredText scored);
  // Throws what the reference throws; a scheme's failure is in its figures.
  // done: after each scheme, with all so far.
  Comparison run(std::span<const std::string> schemes,
                 const std::function<void(const Comparison&)>& done);

 private:
  SchemeFigures measure(const std::string& scheme);
  void describe(SchemeFigures& out, const Model& model) const;
  void measure_accuracy(SchemeFigures& out, Model& model);
  void measure_speed(SchemeFigures& out, Model& model);
  std::vector<float> score_reference(Model& model, const WindowProgress& progress);

  const Args& args_;
  ModelOptions options_;
  ScoredText text_;
  LatencyOptions latency_;
  ThreadPool pool_;
  const Ops& ops_;
  OpenQueue queue_;  // for the probes
  Comparison out_;
  size_t at_ = 0, count_ = 0;

  // The reference: its logits in a file, or itself.
  std::optional<StoredLogits> logits_;
  std::optional<Model> model_;
  std::vector<float> nlls_;
  std::optional<LayerReference> layers_;
};

Comparer::Comparer(const Args& args, ModelOptions options, const ModelConfig& config,
                   ScoredText scored)
    : args_(args),
      options_(std::move(options)),
      text_(std::move(scored)),
      latency_(latency_of(args, context_of(options_, config))),
      pool_(static_cast<int>(args.integer("threads"))),
      ops_(find_ops(options_.device == "auto" ? "cpu" : options_.device)),
      queue_(open_queue(ops_, args)) {
  const int64_t length = std::max(text_.length_max, latency_.input_len + latency_.output_len);
  size_for_windows(options_, config, length);
  options_.kv_tokens = std::max(options_.kv_tokens, latency_kv_tokens(latency_));
  const fs::path folder = temporary_folder();
  const std::string refusal = StoredLogits::refusal(text_.targets, config.vocab_size, folder);
  if (refusal.empty()) {
    logits_.emplace(config.vocab_size, folder);
    out_.logits_kept = "in a temporary file, float32";
  } else {
    out_.logits_kept = "both models in memory side by side";
    note(text("the reference stays in memory beside each scheme: its logits are not kept, ",
              refusal));
  }
  out_.text = text_.name;
  out_.tokens = text_.targets;
  out_.windows = std::ssize(text_.windows);
  out_.ctx = text_.length_max;
  out_.input_len = latency_.input_len;
  out_.output_len = latency_.output_len;
  out_.iterations = latency_.iterations;
  out_.layer_tokens = std::min({LayerReference::kTokensMax, options_.max_num_batched_tokens,
                                std::ssize(text_.windows.front().inputs)});
  out_.version = version();
  out_.commit = commit();
  out_.date = now_utc();
  out_.command = command_of(args);
}

void Comparer::describe(SchemeFigures& out, const Model& model) const {
  const Scheme scheme = parse_scheme(out.scheme);
  const MemoryPlan& plan = model.plan();
  out.weights = mantissa::describe(scheme.weight, model.run_dtype());
  out.activations = mantissa::describe(scheme.activation, model.run_dtype());
  out.group = format_group(scheme);
  out.weights_bytes = plan.weights_bytes;
  out.bits_per_weight = plan.bits_per_weight;
  for (const PlanRow& row : plan.rows) {
    const bool layer = row.module.find('.') != std::string::npos && row.count > 1;
    if (!layer || row.kernel.empty()) continue;
    if (std::ranges::find(out.kernels, row.kernel) == out.kernels.end())
      out.kernels.push_back(row.kernel);
  }
}

std::vector<float> Comparer::score_reference(Model& model, const WindowProgress& progress) {
  const EngineModel engine = engine_model(model);
  if (logits_) return store_windows(engine, text_.windows, *logits_, pool_, progress);
  return window_nlls(engine, text_.windows, pool_, progress);
}

void Comparer::measure_accuracy(SchemeFigures& out, Model& model) {
  std::vector<float> nlls;
  {
    Progress bar(args_, text("scoring ", out.scheme, " (", at_ + 1, " of ", count_, ")"));
    const WindowProgress progress = [&](int64_t done, int64_t total) { bar.update(done, total); };
    if (at_ == 0) {
      nlls = nlls_ = score_reference(model, progress);
    } else {
      const EngineModel engine = engine_model(model);
      ComparedScores scores =
          logits_ ? compare_with_stored(engine, *logits_, text_.windows, pool_, progress)
                  : compare_windows(engine, engine_model(*model_), text_.windows, pool_, progress);
      out.divergence = summarize(std::span<const TokenDivergence>(scores.tokens));
      out.paired = paired_difference(scores.nlls, nlls_);
      nlls = std::move(scores.nlls);
    }
  }
  out.perplexity = summarize(nlls);
  if (text_.task) {
    for (PageScore& page : text_.task->pages) page.log_likelihood = 0;
    add_scores(*text_.task, nlls);
    out.word_perplexity = summarize(text_.task->pages).word_perplexity;
  }
}

void Comparer::measure_speed(SchemeFigures& out, Model& model) {
  const double before = ops_.read_gb_s(queue_.get());
  std::vector<LatencyIteration> iterations;
  {
    Progress bar(args_, text("timing ", out.scheme, " (", at_ + 1, " of ", count_, ")"));
    LatencyEvents events;
    events.progress = [&](int64_t done, int64_t total) { bar.update(done, total); };
    iterations = measure_latency(engine_model(model), latency_, events);
  }
  out.read_gb_s = (before + ops_.read_gb_s(queue_.get())) / 2;
  out.prefill_tok_s = mean_std(prefill_rates(latency_, iterations));
  out.decode_tok_s = mean_std(decode_rates(latency_, iterations));
  out.weights_gb_s = static_cast<double>(weights_read(model)) * out.decode_tok_s.mean / 1e9;
  out.prefill_gflops = prefill_operations(model, latency_.input_len) * out.prefill_tok_s.mean /
                       static_cast<double>(latency_.input_len) / 1e9;
  if (const BenchOps* bench = find_bench_ops(ops_); bench != nullptr)
    out.math_gops = bench->math_gops(parse_scheme(out.scheme), model.run_dtype(), queue_.get());
  if (out.math_gops > 0 && out.prefill_gflops > out.math_gops)
    warn(text(out.scheme, ": prefill is above the arithmetic peak kept for this machine (",
              fixed(out.math_gops, 0),
              " GFLOP/s): run `mantissa devices` while nothing else runs"));
}

SchemeFigures Comparer::measure(const std::string& scheme) {
  SchemeFigures out;
  out.scheme = scheme;
  out.group = at_ == 0 ? 0 : format_group(parse_scheme(scheme));
  ModelOptions options = options_;
  options.scheme = scheme;
  LoadReport report;
  Model model = open_model(args_, options, &report);
  out.load_seconds = report.seconds;
  describe(out, model);
  measure_accuracy(out, model);
  if (at_ == 0) {
    layers_.emplace(model, text_.windows.front());
  } else {
    out.layers = layers_->errors(model);
  }
  measure_speed(out, model);
  if (at_ > 0) return out;
  out.group = 0;
  out.scheme = scheme_label(model);
  out_.model = model_name(model.options().folder);
  out_.parameters = human_count(model.plan().parameters);
  out_.device = model.device_description();
  out_.dtype = model.options().dtype;
  out_.threads = model.options().threads;
  if (!logits_) model_.emplace(std::move(model));
  return out;
}

Comparison Comparer::run(std::span<const std::string> schemes,
                         const std::function<void(const Comparison&)>& done) {
  count_ = schemes.size();
  for (at_ = 0; at_ < count_; ++at_) {
    note(text(at_ == 0 ? "-- the reference" : "\n-- " + schemes[at_], " (", at_ + 1, " of ", count_,
              ")"));
    try {
      out_.schemes.push_back(measure(schemes[at_]));
    } catch (const Error& e) {
      if (at_ == 0) throw;
      warn(text(schemes[at_], ": ", e.found));
      SchemeFigures& failed = out_.schemes.emplace_back();
      failed.scheme = schemes[at_];
      failed.error = e.found;
      failed.fix = e.fix;
      failed.group = format_group(parse_scheme(schemes[at_]));
    }
    done(out_);
  }
  return out_;
}

void run(const Args& args) {
  const std::vector<std::string> schemes = schemes_of(args);
  ModelOptions options = model_options_of(args, schemes);
  set_limit_options(args, options);
  if (options.dummy)
    throw Error("--load-format dummy: random weights have no accuracy to compare",
                "use `mantissa bench latency` for their speed");
  const ModelConfig config = config_of(options);
  if (!config.quantization_config.empty())
    throw Error("this checkpoint is already quantized: it runs in its own scheme only",
                "compare the original, unquantized one; `mantissa perplexity` scores this one");
  PageFile page(args.text("html"), args.given("html"));
  Comparer comparer(args, options, config, text_of(args, options, config));
  const bool json = args.flag("json");
  const Comparison all = comparer.run(schemes, [json](const Comparison& so_far) {
    if (json) print_json(scheme_json(so_far, so_far.schemes.back()));
  });
  if (!json) {
    print_text(markdown(compare_table(all)));
    for (const SchemeFigures& figures : all.schemes)
      if (!figures.error.empty())
        print_text(text("\n`", figures.scheme, "` failed: ", figures.error,
                        "\n  fix: ", figures.fix, "\n"));
  }
  if (args.given("html")) {
    page.write(report::page_html(compare_page(all)));
    note(text("wrote ", args.text("html")));
  }
  std::vector<std::string> failed;
  for (const SchemeFigures& figures : all.schemes)
    if (!figures.error.empty()) failed.push_back(figures.scheme);
  if (!failed.empty())
    throw Error(
        text(failed.size(), " of ", all.schemes.size(), " schemes failed: ", join(failed, ", ")),
        "the table says why; leave them out, or see `mantissa schemes`", Error::Kind::kRuntime);
}

}  // namespace

const Verb kCompareVerb = {
    .name = "compare",
    .summary = "schemes side by side: size, accuracy, speed, errors of layers; as table and page",
    .details =
        "The unquantized model is the reference. Accuracy: perplexity of a text, its difference to "
        "the reference with the error of paired tokens, Kullback-Leibler divergence, same most "
        "likely token. Speed: one sequence, prefill as part of the arithmetic peak, decode as part "
        "of the measured read bandwidth. Layers: each linear by itself on the reference's inputs. "
        "A "
        "scheme that fails is shown with its reason; the others go on, and the exit code is 1. One "
        "model is in memory at a time; the reference's logits wait in an unnamed temporary file "
        "(TMPDIR).",
    .examples =
        "mantissa compare models/wiki-6m --schemes fp8,int8,int4_weight_only --file "
        "data/wikitext-2-test-4-articles.txt --limit 8\n"
        "mantissa compare models/wiki-6m --schemes ptpc_fp8,int8 --tasks wikitext --limit 2 --html "
        "report.html\n"
        "mantissa compare models/wiki-6m --schemes int8 --file data/wikitext-2-test-4-articles.txt "
        "--limit 2 --json",
    .groups = kModelFlags | kLimitOptions,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
