// `mantissa bench attention`: attention over the paged cache by itself.
#include <boost/json.hpp>

#include "app/command.h"
#include "app/help.h"
#include "app/operation_bench.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"
#include "base/list.h"
#include "bench/attention.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kOptions[] = {
    {"--phases", OptionType::kText, "prefill,decode", "LIST", "prefill: all tokens of the context at once; decode: one new token a sequence"},
    {"--batch", OptionType::kText, "1", "LIST", "sequences"},
    {"--context", OptionType::kText, "1024,8192", "LIST", "tokens of each"},
    {"--heads", OptionType::kInteger, "32", "N", "query heads; the defaults are Llama-3.1-8B's", "", 1, 4096},
    {"--kv-heads", OptionType::kInteger, "8", "N", "heads of keys and values; divides --heads", "", 1, 4096},
    {"--head-size", OptionType::kInteger, "128", "N", "elements of a head", "", 1, 1024},
    {"--kv-cache-dtypes", OptionType::kText, "auto,fp8", "LIST", "formats of the cache; auto: as --dtype"},
};
// clang-format on

constexpr double kPrefillTokensMax = 262144;

std::vector<AttentionCase> cases_of(const Args& args) {
  AttentionCase base{.heads = args.integer("heads"),
                     .kv_heads = args.integer("kv-heads"),
                     .head_dim = args.integer("head-size")};
  if (base.heads % base.kv_heads != 0)
    throw Error(text("--heads ", base.heads, " is no multiple of --kv-heads ", base.kv_heads),
                "every KV head serves the same number of query heads");
  constexpr int64_t kWidthMax = 131072;  // of queries, keys and values of a token
  if ((base.heads + 2 * base.kv_heads) * base.head_dim > kWidthMax)
    throw Error(text("heads x size are more than ", kWidthMax, " values a token"),
                "use fewer --heads, --kv-heads or a smaller --head-size");
  std::vector<AttentionCase> out;
  for (const std::string_view phase : split_list(args.text("phases"))) {
    if (phase != "prefill" && phase != "decode")
      throw Error(text("--phases: ", quoted(phase)), "use prefill, decode or prefill,decode");
    base.prefill = phase == "prefill";
    for (const std::string_view cache : split_list(args.text("kv-cache-dtypes"))) {
      base.cache = &parse_kv_format(cache);
      for (const int64_t context : sizes_of(args, "context")) {
        for (const int64_t batch : sizes_of(args, "batch")) {
          base.context = context;
          base.batch = batch;
          if (base.prefill && static_cast<double>(batch * context) > kPrefillTokensMax)
            throw Error(
                text("a prefill of ", batch, " x ", context, " tokens"),
                text("use at most ", kPrefillTokensMax, " in one pass, or --phases decode"));
          out.push_back(base);
        }
      }
    }
  }
  if (out.empty())
    throw Error("--phases or --kv-cache-dtypes is empty",
                "name some, as in --phases decode --kv-cache-dtypes auto");
  return out;
}

std::string phase_of(const AttentionCase& c) {
  return c.prefill ? "prefill" : "decode";
}

void run(const Args& args) {
  std::vector<AttentionCase> cases = cases_of(args);
  const OperationBench bench = open_operation_bench(args, false);
  Table table{{"phase", "batch", "context", "cache", "us", "p10", "p90", "TFLOP/s", "GB/s",
               "% math", "% memory", "rms error"},
              {}};
  Progress bar(args, "timing");
  for (size_t i = 0; i < cases.size(); ++i) {
    AttentionCase& c = cases[i];
    c.run_dtype = bench.run_dtype;
    const AttentionResult r = measure_attention(bench.ops, bench.queue.get(), c,
                                                static_cast<uint64_t>(args.integer("seed")));
    const double read_gb_s = r.rotated ? bench.read_gb_s : 0;
    bar.update(static_cast<int64_t>(i) + 1, std::ssize(cases));
    table.rows.push_back({phase_of(c), text(c.batch), text(c.context), std::string(c.cache->name),
                          fixed(r.times.p50_us, 1), fixed(r.times.p10_us, 1),
                          fixed(r.times.p90_us, 1), fixed(r.tflops(), r.tflops() < 1 ? 4 : 1),
                          fixed(r.gb_s(), 1), percent_text(r.tflops() * 1000, r.math_gops),
                          percent_text(r.gb_s(), read_gb_s), text(r.rms_error)});
    if (!args.flag("json")) continue;
    boost::json::object object{{"phase", phase_of(c)},
                               {"batch", c.batch},
                               {"context", c.context},
                               {"heads", c.heads},
                               {"kv_heads", c.kv_heads},
                               {"head_size", c.head_dim},
                               {"kv_cache_dtype", std::string(c.cache->name)}};
    add_figures(object, r, read_gb_s);
    add_bench_info(object, args, bench);
    print_json(object);
  }
  bar.clear();
  if (!args.flag("json")) print_text(markdown(table));
}

}  // namespace

const Verb kBenchAttentionVerb = {
    .name = "bench attention",
    .summary = "attention by itself: speed, how near to the limits, error against ref",
    .details =
        "Causal attention over the paged cache. TFLOP/s counts both products of keys that are not "
        "masked; GB/s counts keys and values with their scales, queries and results once. The "
        "caches of decode are rotated over 160 MiB, more than a GPU's L2 (of a CPU's L3, see "
        "`mantissa devices`); where they are too small for that, % memory is left out. Sampled "
        "rows are compared "
        "with ref on the same cache: rms error has the cache's format, not its loss.",
    .examples =
        "mantissa bench attention --device cuda\n"
        "mantissa bench attention --phases decode --batch 1 --context 512 --heads 8 --kv-heads 4 "
        "--head-size 64 --json",
    .groups = kCommonOnly,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
