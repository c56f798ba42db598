// `mantissa quantize`: writes a quantized checkpoint.
#include <boost/json.hpp>
#include <csignal>

#include "app/command.h"
#include "app/interrupts.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "model/write_quantized.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kOptions[] = {
    {"MODEL", OptionType::kText, "", "", "a folder with config.json, tokenizer.json and *.safetensors, unquantized"},
    {"OUT", OptionType::kText, "", "", "the folder to write, without a model so far"},
    {"--scheme", OptionType::kText, "", "SCHEME", "a row of `mantissa schemes`, with its options"},
    {"--format", OptionType::kText, "compressed-tensors", "F", "how checkpoints name and pack it", "fp8,compressed-tensors"},
    {"--recipe", OptionType::kText, "", "R", "how scales are computed, as the scheme option recipe=R"},
    {"--ignore", OptionType::kList, "", "re:...", "linears that stay unquantized: a name, or re: and a regular expression"},
    {"--calibrate", OptionType::kText, "", "FILE", "make the scales of a static scheme from this text"},
    {"--samples,--calibrate-samples", OptionType::kInteger, "512", "N", "samples of the text, evenly spread; fewer where it has fewer", "", 1, 1e6},
    {"--seq-len,--calibrate-seq-len", OptionType::kInteger, "2048", "N", "tokens of a sample; at most the model's context", "", 2, 1e6},
    {"--dry-run", OptionType::kFlag, "", "", "check and plan, write nothing"},
};
// clang-format on

// Ctrl-C ends the program as anywhere, but after the unfinished files are gone.
WriteReport write_or_stop(const Args& args, const WriteQuantized& job) {
  struct Interrupted {};
  try {
    const InterruptsCounted interrupts;
    const int before = InterruptsCounted::count();
    Progress bar(args, "quantizing", Progress::Unit::kBytes);
    return write_quantized(job, [&](int64_t done, int64_t all) {
      if (InterruptsCounted::count() != before) throw Interrupted();
      bar.update(done, all);
    });
  } catch (const Interrupted&) {
    std::raise(SIGINT);
    throw Error("interrupted", "run it again", Error::Kind::kRuntime);
  }
}

void run(const Args& args) {
  if (!args.given("scheme"))
    throw Error("there is no scheme", "give --scheme, for example --scheme ptpc_fp8");
  std::string name = args.text("scheme");
  if (args.given("recipe")) name += ":recipe=" + args.text("recipe");
  refuse_calibration_without_text(args);
  WriteQuantized job{.from = args.text("MODEL"),
                     .to = args.text("OUT"),
                     .scheme = scheme_of("--scheme", name),
                     .format = args.text("format"),
                     .ignore = args.list("ignore"),
                     .input_ranges = {},
                     .threads = static_cast<int>(args.integer("threads")),
                     .dry_run = args.flag("dry-run"),
                     .strict = args.flag("strict")};
  if (job.threads == 0) job.threads = usable_cores();
  if (args.given("calibrate")) {
    if (!needs_calibration(job.scheme)) {
      throw Error(text("--calibrate: scheme ", job.scheme.name, " has no static scales"),
                  "name one that has: fp8_static, int8:static, int8:asym:static, nvfp4:static");
    }
    ModelOptions observing;
    observing.folder = job.from;
    observing.scheme = job.scheme.name;
    observing.device = args.text("device");
    observing.dtype = args.text("dtype");
    observing.isa = args.text("isa");
    observing.threads = job.threads;
    observing.max_num_seqs = 8;
    calibrate_inputs(args, observing);
    job.input_ranges = std::move(observing.input_ranges);
  }
  const WriteReport report = write_or_stop(args, job);
  for (const std::string& warning : report.warnings) warn(warning);
  if (args.flag("json")) {
    print_json(boost::json::object{{"model", job.from.string()},
                                   {"out", job.to.string()},
                                   {"scheme", job.scheme.name},
                                   {"dialect", report.dialect},
                                   {"linears", report.quantized},
                                   {"copied_tensors", report.copied},
                                   {"bytes_before", report.bytes_before},
                                   {"bytes", report.bytes},
                                   {"seconds", report.seconds},
                                   {"dry_run", job.dry_run}});
    return;
  }
  print_line(text(job.dry_run ? "would write " : "wrote ", job.to.string(), ": ", report.quantized,
                  " linears as ", job.scheme.name, " (", report.dialect, "), ", report.copied,
                  " tensors as they were; ", human_bytes(report.bytes_before), " -> ",
                  human_bytes(report.bytes),
                  job.dry_run ? "" : text(", in ", human_seconds(report.seconds))));
}

}  // namespace

const Verb kQuantizeVerb = {
    .name = "quantize",
    .summary = "write a quantized checkpoint that other engines read too",
    .details =
        "Every linear of the layers is quantized by itself; the head, the embedding and the norms "
        "are copied as they are. OUT runs here without -q, and in engines that read its format "
        "(vLLM, transformers with compressed-tensors). "
        "docs/formats.md says which format holds which scheme.",
    .examples =
        "mantissa quantize models/wiki-6m out/wiki-6m-fp8 --scheme ptpc_fp8\n"
        "mantissa quantize models/wiki-6m out/wiki-6m-static --scheme fp8_static --format fp8 "
        "--calibrate data/wikitext-2-test-4-articles.txt --recipe autofp8\n"
        "mantissa quantize models/wiki-6m out/wiki-6m-w4 --scheme int4_weight_only:g64 --dry-run",
    .groups = kCommonOnly,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
