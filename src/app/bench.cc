// `mantissa bench latency` and `mantissa bench throughput`.
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <span>

#include "app/command.h"
#include "app/load.h"
#include "app/output.h"
#include "app/queue.h"
#include "base/error.h"
#include "bench/latency.h"
#include "bench/limits.h"
#include "bench/throughput.h"
#include "device/peaks.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kLatencyOptions[] = {
    {"--input-len", OptionType::kInteger, "32", "N", "prompt tokens of each sequence", "", 1, 1e9},
    {"--output-len", OptionType::kInteger, "128", "N", "generated tokens of each sequence", "", 2, 1e9},
    {"--batch-size", OptionType::kInteger, "1", "N", "sequences at once", "", 1, 65536},
    {"--iterations", OptionType::kInteger, "10", "N", "measured iterations", "", 1, 1e6},
    {"--warmup", OptionType::kInteger, "20", "N", "iterations before them that do not count", "", 0, 1e6},
    {"--operations", OptionType::kFlag, "", "", "where the time goes: every operation of both phases (CPU only)"},
};
constexpr Option kThroughputOptions[] = {
    {"--num-prompts", OptionType::kInteger, "64", "N", "requests, all there at once", "", 1, 1e7},
    {"--input-len", OptionType::kInteger, "32", "N", "prompt tokens of each request", "", 1, 1e9},
    {"--output-len", OptionType::kInteger, "128", "N", "generated tokens of each request", "", 1, 1e9},
};
// clang-format on

// The memory's read bandwidth and how far apart two cores are: a host may move them.
struct Probe {
  double read_gb_s = 0, round_trip_ns = 0;
};
std::string spread_text(double std) {
  return std::isnan(std) ? "n/a" : fixed(std, 2);
}
Probe probe(const Ops& ops, Queue* queue) {
  return {ops.read_gb_s(queue), ops.host_memory ? measure_round_trip_ns() : 0};
}
std::string probe_text(const Probe& p) {
  return text(fixed(p.read_gb_s, 2), " GB/s",
              p.round_trip_ns > 0 ? text(", cores ", fixed(p.round_trip_ns, 0), " ns apart") : "");
}

// Decode against the memory's read bandwidth, measured just before and just after.
struct Bandwidth {
  double weights_gb_s = 0;
  Probe before, after;
  double read_gb_s() const { return (before.read_gb_s + after.read_gb_s) / 2; }
  double percent() const { return 100 * weights_gb_s / read_gb_s(); }
};

void print_iterations(const LatencyOptions& options,
                      const std::vector<LatencyIteration>& iterations) {
  const std::vector<double> prefill = prefill_rates(options, iterations),
                            decode = decode_rates(options, iterations);
  for (size_t i = 0; i < iterations.size(); ++i)
    print_line(text("Time for inference ", i + 1, ": ",
                    fixed(iterations[i].prefill_seconds + iterations[i].decode_seconds, 3),
                    " sec total, ", fixed(decode[i], 2), " tokens/sec (prefill ",
                    fixed(prefill[i], 1), " tokens/sec)"));
}

boost::json::object latency_json(const Args& args, const Model& model,
                                 const LatencyOptions& options, const MeanStd& prefill,
                                 const MeanStd& decode, const Bandwidth& bandwidth) {
  boost::json::object object{{"decode_tok_s", decode.mean},
                             {"decode_tok_s_std", decode.std},
                             {"prefill_tok_s", prefill.mean},
                             {"prefill_tok_s_std", prefill.std},
                             {"weights_gb_s", bandwidth.weights_gb_s},
                             {"pct_of_read_bandwidth", bandwidth.percent()},
                             {"read_gb_s", bandwidth.read_gb_s()},
                             {"read_gb_s_before", bandwidth.before.read_gb_s},
                             {"read_gb_s_after", bandwidth.after.read_gb_s},
                             {"core_round_trip_ns_before", bandwidth.before.round_trip_ns},
                             {"core_round_trip_ns_after", bandwidth.after.round_trip_ns},
                             {"weights_bytes", model.plan().weights_bytes},
                             {"weights_read_bytes", weights_read(model)},
                             {"bits_per_weight", model.plan().bits_per_weight},
                             {"batch_size", options.batch_size},
                             {"input_len", options.input_len},
                             {"output_len", options.output_len},
                             {"iterations", options.iterations},
                             {"warmup", options.warmup},
                             {"load_format", args.text("load-format")},
                             {"enforce_eager", args.flag("enforce-eager")}};
  add_run_info(object, model);
  return object;
}

// For sequences of `length` tokens; of the first scheme.
ModelOptions bench_options(const Args& args, int64_t length, std::span<const std::string> schemes) {
  ModelOptions options = model_options_of(args, schemes);
  set_limit_options(args, options);
  const int64_t context = context_of(options, config_of(options));
  if (length > context)
    throw Error(text("--input-len ", args.integer("input-len"), " + --output-len ",
                     args.integer("output-len"), " = ", length,
                     " tokens, but the model's context is ", context),
                text("use at most ", context, " in all"));
  options.max_model_len = length;  // a longer one would only take memory
  return options;
}

// What each operation took in the counted iterations of one phase.
class OperationLog {
 public:
  explicit OperationLog(const Model& model) : model_(model) {}

  void begin() { start_ = model_.operation_times(); }
  void end(LatencyPhase phase) {
    std::map<std::string, OperationTime>& sums = sums_[phase == LatencyPhase::kDecode];
    for (OperationTime now : model_.operation_times()) {
      for (const OperationTime& before : start_) {
        if (before.operation != now.operation) continue;
        now.calls -= before.calls;
        now.seconds -= before.seconds;
      }
      if (now.calls == 0) continue;
      OperationTime& sum = sums[now.operation];
      sum.operation = now.operation;
      sum.calls += now.calls;
      sum.seconds += now.seconds;
    }
  }
  // The costliest first; the last row is what was spent between operations.
  std::vector<OperationTime> rows(LatencyPhase phase, double phase_seconds) const {
    std::vector<OperationTime> out;
    OperationTime rest{"between them", 0, phase_seconds};
    for (const auto& [name, sum] : sums_[phase == LatencyPhase::kDecode]) {
      out.push_back(sum);
      rest.seconds -= sum.seconds;
    }
    std::sort(out.begin(), out.end(),
              [](const OperationTime& a, const OperationTime& b) { return a.seconds > b.seconds; });
    out.push_back(rest);
    return out;
  }

 private:
  const Model& model_;
  std::vector<OperationTime> start_;
  std::map<std::string, OperationTime> sums_[2];  // prefill, decode
};

struct PhaseRow {
  LatencyPhase phase;
  const char* name;
  double LatencyIteration::*seconds;
};
constexpr PhaseRow kPhases[] = {
    {LatencyPhase::kPrefill, "prefill", &LatencyIteration::prefill_seconds},
    {LatencyPhase::kDecode, "decode", &LatencyIteration::decode_seconds}};

double phase_seconds(const PhaseRow& phase, const std::vector<LatencyIteration>& iterations) {
  double sum = 0;
  for (const LatencyIteration& i : iterations) sum += i.*phase.seconds;
  return sum;
}

// Milliseconds of one prefill of the batch, or of one decode step.
double phase_count(const PhaseRow& phase, const LatencyOptions& options) {
  const int64_t steps = phase.phase == LatencyPhase::kDecode ? options.output_len - 1 : 1;
  return static_cast<double>(options.iterations * steps);
}

void print_operations(const OperationLog& log, const LatencyOptions& options,
                      const std::vector<LatencyIteration>& iterations) {
  for (const PhaseRow& phase : kPhases) {
    const double seconds = phase_seconds(phase, iterations), count = phase_count(phase, options);
    Table table{{phase.name, "calls", "ms", "%"}, {}};
    for (const OperationTime& row : log.rows(phase.phase, seconds))
      table.rows.push_back({row.operation, fixed(static_cast<double>(row.calls) / count, 0),
                            fixed(1e3 * row.seconds / count, 3),
                            fixed(100 * row.seconds / seconds, 1)});
    print_text("\n" + markdown(table));
  }
}

boost::json::object operations_json(const OperationLog& log, const LatencyOptions& options,
                                    const std::vector<LatencyIteration>& iterations) {
  boost::json::object out;
  for (const PhaseRow& phase : kPhases) {
    boost::json::object ms;
    for (const OperationTime& row : log.rows(phase.phase, phase_seconds(phase, iterations)))
      ms[row.operation] = 1e3 * row.seconds / phase_count(phase, options);
    out[phase.name] = std::move(ms);
  }
  return out;
}

// -q A,B,...: canonical names.
std::vector<std::string> latency_schemes(const Args& args) {
  std::vector<std::string> schemes = scheme_names("-q", args.text("quantization"), true);
  if (schemes.empty()) throw Error("-q is empty", "name a scheme, or several: int8,int4_int8");
  return schemes;
}

// A model that is measured.
struct Subject {
  explicit Subject(Model loaded)
      : model(std::move(loaded)), log(model), engine(engine_model(model)) {}
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  Model model;
  OperationLog log;
  EngineModel engine;
  std::vector<LatencyIteration> iterations;

  MeanStd prefill(const LatencyOptions& bench) const {
    return mean_std(prefill_rates(bench, iterations));
  }
  MeanStd decode(const LatencyOptions& bench) const {
    return mean_std(decode_rates(bench, iterations));
  }
  Bandwidth bandwidth(const LatencyOptions& bench, const Probe& before, const Probe& after) const {
    const double steps_per_s = decode(bench).mean / static_cast<double>(bench.batch_size);
    return {.weights_gb_s = static_cast<double>(weights_read(model)) * steps_per_s / 1e9,
            .before = before,
            .after = after};
  }
};
using Subjects = std::vector<std::unique_ptr<Subject>>;

// All are in memory at once: refused before the first is loaded.
void check_sum(const ModelOptions& options, const std::vector<std::string>& schemes) {
  int64_t sum = 0;
  std::string device;
  for (const std::string& scheme : schemes) {
    ModelOptions one = options;
    one.scheme = scheme;
    const Model model(one);
    device = model.options().device;
    const MemoryPlan& plan = model.plan();
    sum += plan.weights_bytes + plan.kv_bytes + plan.workspace_bytes + plan.scratch_bytes +
           plan.graph_bytes;
  }
  const Ops& ops = find_ops(device);
  const OpenQueue queue = open_queue(ops, {.scratch_tokens = 1});
  const int64_t free = ops.memory(queue.get()).free;
  if (sum > free)
    throw Error(text("the ", schemes.size(), " models need ", human_bytes(sum), " in all, but ",
                     human_bytes(free), " are free"),
                "name fewer schemes, or use --batch-size and lengths that are smaller");
}

Subjects open_subjects(const Args& args, ModelOptions options,
                       const std::vector<std::string>& schemes) {
  if (schemes.size() > 1) check_sum(options, schemes);
  Subjects out;
  for (const std::string& scheme : schemes) {
    options.scheme = scheme;
    out.push_back(std::make_unique<Subject>(open_model(args, options)));
  }
  return out;
}

void measure(const Args& args, const LatencyOptions& bench, Subjects& subjects) {
  Progress bar(args, "running");
  std::vector<LatencySubject> turns;
  const auto count = std::ssize(subjects);
  int64_t done = 0;
  for (const std::unique_ptr<Subject>& s : subjects) {
    LatencyEvents events;
    events.progress = [&](int64_t, int64_t total) { bar.update(++done, total * count); };
    if (args.flag("operations")) {
      OperationLog& log = s->log;
      events.begins = [&log](LatencyPhase, bool) { log.begin(); };
      events.ended = [&log](LatencyPhase phase, bool warmup) {
        if (!warmup) log.end(phase);
      };
    }
    turns.push_back({s->engine, std::move(events)});
  }
  std::vector<std::vector<LatencyIteration>> iterations = measure_by_turns(turns, bench);
  for (size_t i = 0; i < subjects.size(); ++i) subjects[i]->iterations = std::move(iterations[i]);
}

void print_latency(const Args& args, const LatencyOptions& bench, const Subjects& subjects,
                   const Probe& before, const Probe& after) {
  const Bandwidth first = subjects.front()->bandwidth(bench, before, after);
  const std::string probes =
      text(fixed(first.read_gb_s(), 2),
           " GB/s that reading memory reaches here (before: ", probe_text(before),
           "; after: ", probe_text(after), ")");
  if (subjects.size() == 1) {
    const MeanStd decode = subjects.front()->decode(bench);
    print_iterations(bench, subjects.front()->iterations);
    print_line(
        text("Average tokens/sec: ", fixed(decode.mean, 2), " +- ", spread_text(decode.std)));
    print_line(text("Bandwidth achieved: ", fixed(first.weights_gb_s, 2), " GB/s, ",
                    fixed(first.percent(), 1), " % of the ", probes));
  } else {
    print_line(text("By turns, ", bench.iterations, " iterations each; % of the ", probes));
  }
  Table table{{"model", "scheme", "size", "decode tokens/s", "+-", "prefill tokens/s",
               "weights GB/s", "% of read bandwidth"},
              {}};
  for (const std::unique_ptr<Subject>& s : subjects) {
    const Model& model = s->model;
    const MeanStd prefill = s->prefill(bench), decode = s->decode(bench);
    const Bandwidth bandwidth = s->bandwidth(bench, before, after);
    table.rows.push_back({model_name(model.options().folder), model.options().scheme,
                          human_bytes(model.plan().weights_bytes), fixed(decode.mean, 2),
                          spread_text(decode.std), fixed(prefill.mean, 1),
                          fixed(bandwidth.weights_gb_s, 2), fixed(bandwidth.percent(), 1)});
  }
  print_text("\n" + markdown(table));
  if (!args.flag("operations")) return;
  for (const std::unique_ptr<Subject>& s : subjects) {
    if (subjects.size() > 1) print_line("\n" + s->model.options().scheme + ":");
    print_operations(s->log, bench, s->iterations);
  }
}

void run_latency(const Args& args) {
  const LatencyOptions bench{.batch_size = args.integer("batch-size"),
                             .input_len = args.integer("input-len"),
                             .output_len = args.integer("output-len"),
                             .iterations = args.integer("iterations"),
                             .warmup = args.integer("warmup"),
                             .seed = static_cast<uint64_t>(args.integer("seed"))};
  const std::vector<std::string> schemes = latency_schemes(args);
  ModelOptions options = bench_options(args, bench.input_len + bench.output_len, schemes);
  if (bench.batch_size > std::min(options.max_num_seqs, options.max_num_batched_tokens))
    throw Error(
        text("--batch-size ", bench.batch_size, " is beyond --max-num-seqs ", options.max_num_seqs,
             " or --max-num-batched-tokens ", options.max_num_batched_tokens),
        "raise those, or use a smaller batch");
  options.max_num_seqs = bench.batch_size;  // more would only take memory
  options.logits_rows_max = bench.batch_size;
  options.kv_tokens = latency_kv_tokens(bench);
  options.time_operations = args.flag("operations");
  Subjects subjects = open_subjects(args, options, schemes);
  const Ops& ops = find_ops(subjects.front()->model.options().device);
  const OpenQueue queue = open_queue(ops, args);  // for the probes
  const Probe before = probe(ops, queue.get());
  measure(args, bench, subjects);
  const Probe after = probe(ops, queue.get());
  if (!args.flag("json")) return print_latency(args, bench, subjects, before, after);
  boost::json::array rows;
  for (const std::unique_ptr<Subject>& s : subjects) {
    boost::json::object object = latency_json(args, s->model, bench, s->prefill(bench),
                                              s->decode(bench), s->bandwidth(bench, before, after));
    if (options.time_operations)
      object["operations_ms"] = operations_json(s->log, bench, s->iterations);
    rows.push_back(std::move(object));
  }
  if (rows.size() == 1) return print_json(rows.front());
  print_json(rows);
}

void run_throughput(const Args& args) {
  const ThroughputOptions bench{.num_prompts = args.integer("num-prompts"),
                                .input_len = args.integer("input-len"),
                                .output_len = args.integer("output-len"),
                                .seed = static_cast<uint64_t>(args.integer("seed"))};
  const ModelOptions options =
      bench_options(args, bench.input_len + bench.output_len, {&args.text("quantization"), 1});
  Model model = open_model(args, options);
  ThroughputResult result;
  {
    Progress bar(args, "requests");
    result = measure_throughput(engine_model(model), bench,
                                [&](int64_t done, int64_t total) { bar.update(done, total); });
  }
  if (!args.flag("json"))
    return print_line(text("Throughput: ", fixed(result.requests_per_s(), 2), " requests/s, ",
                           fixed(result.total_tok_s(), 2), " total tokens/s, ",
                           fixed(result.output_tok_s(), 2), " output tokens/s"));
  boost::json::object object{{"requests_per_second", result.requests_per_s()},
                             {"tokens_per_second", result.total_tok_s()},
                             {"output_tokens_per_second", result.output_tok_s()},
                             {"elapsed_time", result.seconds},
                             {"num_requests", result.requests},
                             {"total_num_tokens", result.input_tokens + result.output_tokens},
                             {"input_len", bench.input_len},
                             {"output_len", bench.output_len}};
  add_run_info(object, model);
  print_json(object);
}

}  // namespace

const Verb kBenchLatencyVerb = {
    .name = "bench latency",
    .summary = "decode and prefill speed of one batch, and how near it is to the memory's limit",
    .details =
        "gpt-fast's protocol: random prompts, 30 iterations of which the first 20 are not "
        "counted, then mean and standard deviation of decoded tokens a second. Bandwidth counts "
        "the packed weights "
        "that a decode step reads, not the KV cache; the read bandwidth is measured just "
        "before and after. -q A,B,... loads a model of each scheme and takes turns, an iteration "
        "of each: one table, and with --json one array.",
    .examples =
        "mantissa bench latency models/wiki-6m -q int8_weight_only\n"
        "mantissa bench latency models/shapes/Llama-3.2-1B --load-format dummy -q ptpc_fp8\n"
        "mantissa bench latency models/wiki-6m -q bf16,int8,int4_int8 --output-len 64\n"
        "mantissa bench latency models/wiki-6m --batch-size 8 --iterations 10 --json",
    .groups = kModelOptions | kLimitOptions,
    .options = kLatencyOptions,
    .run = run_latency,
};

const Verb kBenchThroughputVerb = {
    .name = "bench throughput",
    .summary = "requests and tokens a second when all requests are there at once",
    .details =
        "Random prompts of equal length through the engine's continuous batching; ends of "
        "text are ignored. Prints vLLM's line.",
    .examples =
        "mantissa bench throughput models/wiki-6m --num-prompts 64 -q int8\n"
        "mantissa bench throughput models/wiki-6m --input-len 256 --output-len 16 --json",
    .groups = kModelOptions | kLimitOptions,
    .options = kThroughputOptions,
    .run = run_throughput,
};

}  // namespace mantissa
