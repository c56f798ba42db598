// What `perplexity` and `eval` share: models sized for windows, the base model of --kld-against,
// and how results are shown.
#pragma once

#include <boost/json/fwd.hpp>
#include <optional>

#include "app/command.h"
#include "app/output.h"
#include "eval/layer_error.h"
#include "eval/perplexity.h"
#include "eval/wikitext.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mantissa {

// The windows of --file in --ctx tokens, the first --limit of them. stride: see
// perplexity_windows().
struct FileWindows {
  std::vector<Window> windows;
  int64_t ctx = 0;
};
FileWindows file_windows(const Args& args, const Tokenizer& tokenizer, const ModelOptions& options,
                         const ModelConfig& config, int64_t stride = 0);
// The first --limit pages of lm-eval's wikitext, from --data.
WikitextTask open_wikitext(const Args& args, const Tokenizer& tokenizer, const ModelConfig& config,
                           int64_t context);

struct EvalModels {
  Model model;
  std::optional<Model> base;  // --kld-against
  ModelOptions base_options;  // that it was opened with
};
// What a scheme is compared with: SCHEME, or SCHEME@DEVICE for another device than --device.
struct Reference {
  std::string scheme, device;
};
Reference reference_of(const std::string& text, const std::string& device);
// `options` for another scheme and device: what only the first device knows goes back to its
// default.
ModelOptions reference_options(ModelOptions options, const Reference& reference);

// Room for full passes of windows of length_max tokens, and for their logits in chunks.
void size_for_windows(ModelOptions& options, const ModelConfig& config, int64_t length_max);

// Loads MODEL (and the base) so that passes are full with windows of length_max tokens.
EvalModels open_eval_models(const Args& args, ModelOptions options, const ModelConfig& config,
                            int64_t length_max);

// The base model as tables name it: "bf16", "f32@cpu".
std::string base_label(const Args& args, const EvalModels& models);

// BOS, or EOS with a notice where there is none. Throws Error where there is neither.
int32_t prefix_token(const Args& args, const Tokenizer& tokenizer, const ModelConfig& config);

struct Scored {
  std::vector<float> nlls;
  PerplexityResult result;
  std::optional<PerplexityResult> base;
  std::optional<DivergenceResult> divergence;
  std::optional<PairedDifference> paired;
  double seconds = 0;
};
// Where both are the same scheme on two devices: how far each linear of one is from the other's on
// the same inputs, which are those of the unquantized model. Empty elsewhere.
std::vector<LayerError> compare_linears(const Args& args, EvalModels& models, const Window& window);

Scored score(const Args& args, EvalModels& models, std::span<const Window> windows);

void add_divergence(boost::json::object& object, const DivergenceResult& divergence);
// The columns of add_divergence for a table of one row.
void add_divergence(Table& table, const DivergenceResult& divergence);
// "12 of 100 tokens have another most likely token; 0 of them ...": one line.
std::string disagreement_text(const DivergenceResult& divergence, int64_t tokens);

}  // namespace mantissa
