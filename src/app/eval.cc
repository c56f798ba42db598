// `mantissa eval`: tasks of the lm-evaluation-harness, with its numbers and its table.
#include <algorithm>
#include <boost/json.hpp>

#include "app/command.h"
#include "app/evaluation.h"
#include "app/help.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "eval/wikitext.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kOptions[] = {
    {"--tasks", OptionType::kText, "", "NAMES", "comma-separated tasks; this build has wikitext"},
    {"--data", OptionType::kText, "", "DIR", "where the data sets lie; else ./data, then ../shared/data"},
    {"--limit", OptionType::kInteger, "0", "N", "only the first N documents of each task; 0: all", "", 0, 1e9},
    {"--num-fewshot", OptionType::kInteger, "0", "N", "examples before each question; wikitext takes none", "", 0, 1000},
    {"--kld-against", OptionType::kText, "", "SCHEME[@DEVICE]", "also compare with this scheme of the same model (bf16, mostly), on this device or another: bf16@cpu"},
};
// clang-format on

// One line of lm-eval's table. lower: whether a lower value is better.
struct Metric {
  std::string name;
  double value;
  bool lower;
};
struct TaskResult {
  std::string task;
  int version, shots;
  std::vector<Metric> metrics;  // by name
  std::optional<DivergenceResult> divergence;
  std::string base;  // what it is from
  int64_t documents = 0;
  double seconds = 0;
  boost::json::object run_info;
};

// lm-eval's loglikelihood_rolling over pages.
TaskResult run_wikitext(const Args& args) {
  if (args.integer("num-fewshot") > 0)
    throw Error(text("--num-fewshot ", args.integer("num-fewshot"), ": wikitext has no examples"),
                "leave out --num-fewshot");
  ModelOptions options = model_options_of(args);
  set_limit_options(args, options);
  if (options.dummy)
    throw Error("--load-format dummy: random weights have no accuracy to evaluate",
                "use `mantissa bench latency` for their speed");
  const ModelConfig config = config_of(options);
  const int64_t context = context_of(options, config);
  const Tokenizer tokenizer = open_tokenizer(args, options.folder);
  WikitextTask task = open_wikitext(args, tokenizer, config, context);
  EvalModels models = open_eval_models(args, options, config, context);
  const Scored scored = score(args, models, task.windows);
  add_scores(task, scored.nlls);
  const WikitextResult result = summarize(task.pages);
  boost::json::object info;
  add_run_info(info, models.model);
  return {.task = "wikitext",
          .version = 2,
          .shots = 0,
          .metrics = {{"bits_per_byte", result.bits_per_byte, true},
                      {"byte_perplexity", result.byte_perplexity, true},
                      {"word_perplexity", result.word_perplexity, true}},
          .divergence = scored.divergence,
          .base = scored.divergence ? base_label(args, models) : "",
          .documents = std::ssize(task.pages),
          .seconds = scored.seconds,
          .run_info = std::move(info)};
}

struct TaskRow {
  std::string_view name;
  TaskResult (*run)(const Args&);
};
constexpr TaskRow kTasks[] = {{"wikitext", run_wikitext}};

const TaskRow& find_task(std::string_view name) {
  std::vector<std::string> names;
  for (const TaskRow& task : kTasks) {
    if (task.name == name) return task;
    names.emplace_back(task.name);
  }
  throw Error(text("--tasks: this build has no task \"", name, "\""),
              text("use ", join(names, ", ")));
}

// lm-eval's make_table: names once a task, no rule at the bottom.
std::string lm_eval_table(std::span<const TaskResult> results) {
  Table table{{"Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"}, {}};
  for (const TaskResult& result : results) {
    bool first = true;
    for (const Metric& metric : result.metrics) {
      table.rows.push_back({first ? result.task : "", first ? text(result.version) : "", "none",
                            text(result.shots), metric.name, metric.lower ? "↓" : "↑",
                            fixed(metric.value, 4), "±", "   N/A"});
      first = false;
    }
  }
  return tight_markdown(table);
}

void print_results(const Args& args, std::span<const TaskResult> results) {
  if (args.flag("json")) {
    boost::json::object tasks, versions, seconds;
    for (const TaskResult& result : results) {
      boost::json::object metrics;
      for (const Metric& metric : result.metrics) metrics[metric.name] = metric.value;
      if (result.divergence) add_divergence(metrics, *result.divergence);
      tasks[result.task] = std::move(metrics);
      versions[result.task] = result.version;
      seconds[result.task] = result.seconds;
    }
    boost::json::object object{{"results", std::move(tasks)},
                               {"versions", std::move(versions)},
                               {"seconds", std::move(seconds)}};
    for (const boost::json::key_value_pair& member : results.front().run_info)
      object[member.key()] = member.value();
    return print_json(object);
  }
  print_text(lm_eval_table(results));
  for (const TaskResult& result : results) {
    note(text(result.task, ": ", counted(result.documents, "document"), ", ",
              human_seconds(result.seconds)));
    if (!result.divergence) continue;
    Table table{{"task", "against"}, {{result.task, result.base}}};
    add_divergence(table, *result.divergence);
    print_text("\n" + markdown(table));
  }
}

void run(const Args& args) {
  if (split_list(args.text("tasks")).empty())
    throw Error("no tasks are given", "use --tasks wikitext");
  std::vector<const TaskRow*> tasks;
  for (std::string_view name : split_list(args.text("tasks"))) {
    tasks.push_back(&find_task(name));
    if (std::ranges::count(tasks, tasks.back()) > 1)
      throw Error(text("--tasks names ", name, " twice"), "name each task once");
  }
  std::vector<TaskResult> results;
  results.reserve(tasks.size());
  for (const TaskRow* task : tasks) results.push_back(task->run(args));
  print_results(args, results);
}

}  // namespace

const Verb kEvalVerb = {
    .name = "eval",
    .summary = "tasks of the lm-evaluation-harness: wikitext",
    .details =
        "wikitext: log-likelihood of WikiText-2's test pages in rolling windows of the "
        "model's context, after lm-eval's detokenizer; words and bytes are those of the "
        "original pages. Equal to lm-eval's numbers (docs/evaluation.md).",
    .examples =
        "mantissa eval models/wiki-6m --tasks wikitext\n"
        "mantissa eval models/wiki-6m --tasks wikitext --limit 5 -q ptpc_fp8 --kld-against "
        "bf16\n"
        "mantissa eval models/wiki-6m --tasks wikitext --limit 5 --json",
    .groups = kModelOptions | kLimitOptions,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
