// --calibrate: static activation scales from a text, before the model itself is loaded.
#include "eval/calibrate.h"

#include <algorithm>

#include "app/evaluation.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"

namespace mantissa {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 30;

bool is_static(const std::string& scheme) {
  return scheme != "auto" && needs_calibration(parse_scheme(scheme));
}

}  // namespace

void refuse_calibration_without_text(const Args& args) {
  if (args.given("calibrate")) return;
  for (const char* name : {"calibrate-samples", "calibrate-seq-len"}) {
    if (args.given(name)) {
      throw Error(text(args.option_name(name), " has no effect without --calibrate"),
                  "add --calibrate FILE, or leave it out");
    }
  }
}

void check_calibration(const Args& args, std::span<const std::string> schemes,
                       const std::string& lm_head_scheme) {
  refuse_calibration_without_text(args);
  if (!args.given("calibrate")) return;
  if (std::ranges::none_of(schemes, is_static) && !is_static(lm_head_scheme)) {
    throw Error(text("--calibrate: scheme ", join({schemes.begin(), schemes.end()}, ", "),
                     " has no static scales"),
                "name one that has: -q fp8_static, int8:static, int8:asym:static, nvfp4:static");
  }
  (void)File(args.text("calibrate"));
}

void calibrate_inputs(const Args& args, ModelOptions& options) {
  const std::string& file = args.text("calibrate");
  const bool body = is_static(options.scheme), head = is_static(options.lm_head_scheme);
  if (file.empty() || !(body || head)) return;
  const ModelConfig config = config_of(options);
  if (!config.quantization_config.empty()) {
    throw Error("--calibrate: this checkpoint is already quantized, and static scales belong to it",
                "leave out --calibrate, or use the original, unquantized checkpoint");
  }
  if (options.dummy) {
    throw Error("--calibrate has no effect on random weights (--load-format dummy)",
                "leave out --calibrate: their static scales are made up");
  }
  const int64_t length = std::min({args.integer("calibrate-seq-len"),
                                   config.max_position_embeddings, context_of(options, config)});
  const Tokenizer tokenizer = open_tokenizer(args, options.folder);
  const int32_t bos = prefix_token(args, tokenizer, config);
  const std::vector<int32_t> tokens = tokenizer.encode(read_text(args, file, kFileBytesMax), false);
  if (tokens.empty()) throw Error(text("--calibrate ", file, ": no text"), "give another file");
  check_vocabulary(tokenizer, config, tokens);
  const std::vector<Window> windows =
      calibration_windows(tokens, bos, args.integer("calibrate-samples"), length, head);

  ModelOptions observing = options;
  observing.observe_inputs = true;
  observing.max_model_len = length;
  observing.kv_tokens =
      window_kv_tokens(length, observing.max_num_batched_tokens, observing.max_num_seqs);
  observing.logits_rows_max = 64;
  Model model(observing);
  const MemoryPlan& plan = model.plan();
  note(text("calibrating ", options.scheme, " on ", windows.size(), " samples of up to ", length,
            " tokens of ", file, ": weights quantized, activations in ", model.options().dtype,
            "; ", human_bytes(plan.weights_bytes + plan.kv_bytes + plan.workspace_bytes),
            ", given back before the model is loaded"));
  Calibration found;
  {
    Progress loading(args, "loading", Progress::Unit::kBytes);
    model.load([&](int64_t done, int64_t total) { loading.update(done, total); });
  }
  {
    Progress bar(args, "calibrating");
    found = calibrate(model, windows, [&](int64_t done, int64_t all) { bar.update(done, all); });
  }
  note(text("calibrated ", found.seen, " inputs on ", found.tokens, " tokens; ",
            found.grown == 0
                ? std::string("none met a larger value in the last tenth of the samples")
                : text(found.grown, " met a larger value in the last tenth of the samples (up to ",
                       fixed(found.growth_most, 2), " x): a longer text would widen them")));
  options.input_ranges = std::move(found.ranges);
}

}  // namespace mantissa
