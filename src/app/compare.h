// What `mantissa compare` measures, and its table and page. Not here: how it is measured
// (compare.cc).
#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/evaluation.h"
#include "bench/latency.h"
#include "eval/layer_error.h"
#include "eval/perplexity.h"
#include "quant/scheme.h"
#include "report/page.h"

namespace mantissa {

// Of one scheme; the first one is the reference.
struct SchemeFigures {
  std::string scheme;
  std::string error, fix;            // why there is nothing else, and what to do
  std::string weights, activations;  // formats in words
  int group = 0;                     // of activation formats (kFormatGroups)
  std::vector<std::string> kernels;  // that the layers' linears run
  int64_t weights_bytes = 0;
  double bits_per_weight = 0, load_seconds = 0;
  PerplexityResult perplexity;
  std::optional<double> word_perplexity;       // of --tasks wikitext
  std::optional<DivergenceResult> divergence;  // from the reference; the reference has none
  std::optional<PairedDifference> paired;
  MeanStd prefill_tok_s, decode_tok_s;
  double weights_gb_s = 0, read_gb_s = 0;    // decode, and what memory gives
  double prefill_gflops = 0, math_gops = 0;  // prefill, and what arithmetic gives (0: unknown)
  std::vector<LayerError> layers;
};

struct Comparison {
  std::string model, parameters, text, device, dtype, version, commit, date, command;
  int64_t tokens = 0, windows = 0, ctx = 0, threads = 0;
  int64_t input_len = 0, output_len = 0, iterations = 0;
  int64_t layer_tokens = 0;
  std::string logits_kept;  // how the reference's were
  std::vector<SchemeFigures> schemes;
};

// Formats of activations, as the page colours them. 0: the reference.
int format_group(const Scheme& scheme);

Table compare_table(const Comparison& comparison);
boost::json::object scheme_json(const Comparison& comparison, const SchemeFigures& figures);
report::Page compare_page(const Comparison& comparison);

}  // namespace mantissa
