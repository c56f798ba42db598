// The table, the JSON and the page of `mantissa compare`.
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "app/compare.h"
#include "base/error.h"
#include "report/heat_map.h"
#include "report/scatter.h"

namespace mantissa {
namespace {

using report::Scale;

const std::vector<std::string> kFormatGroups = {
    "reference", "16-bit activations (weights only)", "8-bit float activations",
    "8-bit integer activations", "4- and 6-bit activations"};

double percent_of(double value, double limit) {
  return limit > 0 ? 100 * value / limit : std::numeric_limits<double>::quiet_NaN();
}
double decode_percent(const SchemeFigures& f) {
  return percent_of(f.weights_gb_s, f.read_gb_s);
}
double prefill_percent(const SchemeFigures& f) {
  return percent_of(f.prefill_gflops, f.math_gops);
}
// Perplexities: three decimals while they say something.
std::string short_text(double value) {
  const double magnitude = std::fabs(value);
  return fixed(value, magnitude < 1000 ? 3 : magnitude < 1e5 ? 1 : 0);
}
std::string rate_text(double tok_s) {
  return fixed(tok_s, tok_s < 100 ? 1 : 0);
}
std::string percent_cell(double value) {
  return std::isnan(value) ? "-" : fixed(value, 0);
}

const SchemeFigures& reference_of(const Comparison& c) {
  return c.schemes.front();
}

// ---- the page

std::vector<const SchemeFigures*> measured(const Comparison& c) {
  std::vector<const SchemeFigures*> out;
  for (const SchemeFigures& f : c.schemes)
    if (f.error.empty()) out.push_back(&f);
  return out;
}

double divergence_of(const SchemeFigures& f) {
  return f.divergence ? f.divergence->kld_mean : 0;
}

std::string detail_of(const SchemeFigures& f) {
  return text("weights ", f.weights, "; activations ", f.activations, "\n",
              human_bytes(f.weights_bytes), ", perplexity ", fixed(f.perplexity.perplexity, 4),
              ", KLD ", fixed(divergence_of(f), 5), "\nprefill ", fixed(f.prefill_tok_s.mean, 1),
              ", decode ", fixed(f.decode_tok_s.mean, 1), " tokens/s");
}

// x of one kind, y of one kind, for every scheme that was measured.
template <class X, class Y>
report::Scatter scatter_of(const Comparison& c, const X& x, const Y& y) {
  report::Scatter plot;
  plot.groups = kFormatGroups;
  for (const SchemeFigures* f : measured(c)) {
    const auto [x_value, x_error] = x(*f);
    const auto [y_value, y_error] = y(*f);
    plot.points.push_back({.label = f->scheme,
                           .x = x_value,
                           .y = y_value,
                           .x_error = x_error,
                           .y_error = y_error,
                           .group = f->group,
                           .detail = detail_of(*f)});
  }
  return plot;
}

using Value = std::pair<double, double>;  // and its error; 0: none is known

// Sizes in the unit that suits the reference.
struct SizeUnit {
  double bytes;
  const char* name;
};
SizeUnit size_unit(const Comparison& c) {
  return reference_of(c).weights_bytes >= 1'000'000'000 ? SizeUnit{1e9, "GB"} : SizeUnit{1e6, "MB"};
}
Value size_value(const Comparison& c, const SchemeFigures& f) {
  return {static_cast<double>(f.weights_bytes) / size_unit(c).bytes, 0};
}
std::string size_title(const Comparison& c) {
  return text("weights in memory, ", size_unit(c).name, " (left is better)");
}
Value divergence_value(const SchemeFigures& f) {
  return {divergence_of(f), f.divergence ? f.divergence->kld_stderr : 0};
}
constexpr const char* kDivergenceTitle =
    "KL divergence from the reference, nats a token (lower is better)";

// Perplexities next to each other stand on a plain axis; where some are far off, what they are
// above the reference on a logarithmic one.
report::Figure perplexity_figure(const Comparison& c) {
  const double base = reference_of(c).perplexity.perplexity;
  const bool far = std::ranges::any_of(measured(c), [base](const SchemeFigures* f) {
    return !(f->perplexity.perplexity < 1.35 * base);
  });
  report::Scatter plot = scatter_of(
      c, [&](const SchemeFigures& f) { return size_value(c, f); },
      [&](const SchemeFigures& f) {
        const double value = f.perplexity.perplexity, error = f.paired ? f.paired->delta_stderr : 0;
        return Value(far ? value - base : value, std::isfinite(error) ? error : 0);
      });
  plot.title = "Size against perplexity";
  plot.x = {.title = size_title(c)};
  plot.y = far ? report::ScatterAxis{.title = text("perplexity above the reference's ",
                                                   fixed(base, 3), " (lower is better)"),
                                     .scale = Scale::kLog}
               : report::ScatterAxis{.title = "perplexity (lower is better)"};
  return {
      .title = "Size against perplexity",
      .caption = text("Bars: one standard error of the difference to the reference, over the same ",
                      "tokens",
                      far ? "; a bar that reaches the axis means that the text cannot tell "
                            "the two apart."
                          : "."),
      .svg = report::scatter_svg(plot)};
}

report::Figure size_divergence_figure(const Comparison& c) {
  report::Scatter plot = scatter_of(
      c, [&](const SchemeFigures& f) { return size_value(c, f); }, divergence_value);
  plot.title = "Size against divergence";
  plot.x = {.title = size_title(c)};
  plot.y = {.title = kDivergenceTitle, .scale = Scale::kLog};
  return {.title = plot.title,
          .caption =
              "How far the predictions of the next token are from the reference's, token by "
              "token: it tells schemes apart that perplexity cannot. Bars: one standard "
              "error of the mean.",
          .svg = report::scatter_svg(plot)};
}

report::Figure speed_figure(const Comparison& c, const char* what, const std::string& axis,
                            MeanStd SchemeFigures::*speed, const std::string& caption) {
  report::Scatter plot = scatter_of(
      c,
      [speed](const SchemeFigures& f) {
        const MeanStd& rate = f.*speed;
        return Value(rate.mean, std::isnan(rate.std) ? 0 : rate.std);
      },
      divergence_value);
  plot.title = text(what, " speed against divergence");
  plot.x = {.title = axis, .larger_is_better = true};
  plot.y = {.title = kDivergenceTitle, .scale = Scale::kLog};
  return {.title = plot.title, .caption = caption, .svg = report::scatter_svg(plot)};
}

struct Worst {
  double median = 0;
  const LayerError* worst = nullptr;
};
Worst worst_of(const std::vector<LayerError>& layers) {
  std::vector<double> all;
  Worst out;
  for (const LayerError& e : layers) {
    all.push_back(e.sqnr_db());
    if (out.worst == nullptr || e.relative_rms > out.worst->relative_rms) out.worst = &e;
  }
  std::ranges::sort(all);
  if (!all.empty()) out.median = all[all.size() / 2];
  return out;
}

std::string short_kind(const std::string& kind) {
  return kind.substr(kind.rfind('.') + 1);
}

report::Figure layers_figure(const Comparison& c) {
  report::HeatMap map{.title = "Signal to quantization noise of each linear layer",
                      .unit = "dB",
                      .column = "layer",
                      .kinds = {},
                      .strips = {}};
  for (const SchemeFigures* f : measured(c)) {
    if (f->layers.empty()) continue;
    if (map.kinds.empty())
      for (const LayerError& e : f->layers)
        if (e.layer == 0) map.kinds.push_back(short_kind(e.kind));
    const Worst worst = worst_of(f->layers);
    report::HeatStrip strip{
        .label = f->scheme,
        .notes = {text("median ", fixed(worst.median, 1), " dB"),
                  text("least ", fixed(worst.worst->sqnr_db(), 1), " dB (layer ",
                       worst.worst->layer, " ", short_kind(worst.worst->kind), ")")},
        .values = std::vector<std::vector<double>>(map.kinds.size())};
    for (size_t i = 0; i < f->layers.size(); ++i)
      strip.values[i % map.kinds.size()].push_back(f->layers[i].sqnr_db());
    map.strips.push_back(std::move(strip));
  }
  return {.title = "Error of each layer",
          .caption = text("Each linear by itself, on the reference's inputs of the text's first ",
                          c.layer_tokens,
                          " tokens: signal to noise of its output, 20 log10(RMS of the reference "
                          "/ RMS of the difference). 20 dB is an error of 10 %, 40 dB of 1 %. "
                          "Rounding and quantization of the activations are in it."),
          .svg = report::heat_map_svg(map)};
}

std::vector<report::Fact> terms_of(const Comparison& c) {
  std::vector<report::Fact> terms = {
      {"size", "all weights as they lie in memory, embeddings and head included"},
      {"bits/weight", "that size over the number of parameters, scales included"},
      {"perplexity", "exp of the mean negative log-likelihood of the text's tokens"},
      {"difference \u00b1",
       "perplexity minus the reference's, and the standard error of that over the same tokens, "
       "taken as independent"},
      {"KLD",
       "Kullback-Leibler divergence of the next token's distribution from the reference's, "
       "in nats: mean over tokens, and what 99.9 % of them stay below"},
      {"same top-1", "tokens for which the most likely next token is the reference's"},
      {"layer error",
       "RMS over all linears of the relative error of their outputs, each on the "
       "reference's inputs"},
      {"prefill", text("one prompt of ", c.input_len,
                       " tokens; % of the arithmetic peak that `mantissa devices` last measured on "
                       "this machine "
                       "(cuda: clock times units) for the formats that the scheme multiplies")},
      {"decode", text("one sequence, ", c.output_len,
                      " tokens after that prompt, mean \u00b1 "
                      "standard deviation of ",
                      c.iterations,
                      " iterations; % of the read bandwidth measured just before and after, "
                      "counting weights alone")},
      {"load", "reading, quantizing and packing; files may be in the page cache"}};
  if (reference_of(c).word_perplexity)
    terms.insert(terms.begin() + 4, {"per word",
                                     "lm-eval's word_perplexity: the same likelihood, "
                                     "by words of the original page"});
  return terms;
}

}  // namespace

int format_group(const Scheme& scheme) {
  const Spec& activation = scheme.activation;
  if (!activation.quantized()) return 1;
  if (activation.elem->bits() < 8) return 4;
  return activation.elem->is_float() ? 2 : 3;
}

Table compare_table(const Comparison& c) {
  const bool words = reference_of(c).word_perplexity.has_value();
  Table table{{"scheme", "size", "bits/weight", "perplexity"}, {}};
  if (words) table.header.emplace_back("per word");
  for (const char* name :
       {"difference \u00b1", "KLD mean", "KLD 99.9 %", "same top-1", "layer error", "prefill tok/s",
        "% of peak", "decode tok/s \u00b1", "% of read", "load s", "kernel"})
    table.header.emplace_back(name);
  for (const SchemeFigures& f : c.schemes) {
    std::vector<std::string>& row = table.rows.emplace_back();
    row.push_back(f.scheme);
    if (!f.error.empty()) {
      row.resize(table.header.size() - 1, "-");
      row.emplace_back("failed");
      continue;
    }
    row.insert(row.end(), {human_bytes(f.weights_bytes), fixed(f.bits_per_weight, 2),
                           short_text(f.perplexity.perplexity)});
    if (words) row.push_back(short_text(*f.word_perplexity));
    if (f.divergence) {
      const DivergenceResult& d = *f.divergence;
      row.insert(row.end(), {text(f.paired->delta > 0 ? "+" : "", short_text(f.paired->delta),
                                  " \u00b1 ", short_text(f.paired->delta_stderr)),
                             fixed(d.kld_mean, 5), fixed(d.kld_p999, 4),
                             fixed(100 * d.top1_agreement, 2) + " %",
                             fixed(100 * mean_relative_rms(f.layers), 2) + " %"});
    } else {
      row.insert(row.end(), 5, "-");
    }
    row.insert(row.end(),
               {rate_text(f.prefill_tok_s.mean), percent_cell(prefill_percent(f)),
                text(rate_text(f.decode_tok_s.mean), " \u00b1 ",
                     std::isnan(f.decode_tok_s.std) ? "n/a" : rate_text(f.decode_tok_s.std)),
                percent_cell(decode_percent(f)), fixed(f.load_seconds, 2),
                f.kernels.empty() ? "-" : join(f.kernels, ", ")});
  }
  return table;
}

boost::json::object scheme_json(const Comparison& c, const SchemeFigures& f) {
  boost::json::object out{{"scheme", f.scheme},   {"reference", reference_of(c).scheme},
                          {"model", c.model},     {"text", c.text},
                          {"tokens", c.tokens},   {"windows", c.windows},
                          {"ctx", c.ctx},         {"dtype", c.dtype},
                          {"device", c.device},   {"threads", c.threads},
                          {"version", c.version}, {"commit", c.commit},
                          {"date", c.date},       {"command", c.command}};
  if (!f.error.empty()) {
    out["error"] = f.error;
    out["fix"] = f.fix;
    return out;
  }
  boost::json::array kernels(f.kernels.begin(), f.kernels.end()), layers;
  for (const LayerError& e : f.layers)
    layers.push_back(boost::json::object{{"layer", e.layer},
                                         {"kind", e.kind},
                                         {"relative_rms", e.relative_rms},
                                         {"sqnr_db", e.sqnr_db()}});
  out["weights_bytes"] = f.weights_bytes;
  out["bits_per_weight"] = f.bits_per_weight;
  out["perplexity"] = f.perplexity.perplexity;
  out["nll"] = f.perplexity.nll;
  out["stderr"] = f.perplexity.stderr_ppl;
  if (f.word_perplexity) out["word_perplexity"] = *f.word_perplexity;
  if (f.divergence) {
    out["perplexity_difference"] = f.paired->delta;
    out["perplexity_difference_stderr"] = f.paired->delta_stderr;
    add_divergence(out, *f.divergence);
    out["layer_error"] = mean_relative_rms(f.layers);
  }
  out["input_len"] = c.input_len;
  out["output_len"] = c.output_len;
  out["iterations"] = c.iterations;
  out["prefill_tok_s"] = f.prefill_tok_s.mean;
  out["prefill_tok_s_std"] = f.prefill_tok_s.std;
  out["prefill_gflops"] = f.prefill_gflops;
  out["math_gops"] = f.math_gops;
  out["pct_math_peak"] = prefill_percent(f);
  out["decode_tok_s"] = f.decode_tok_s.mean;
  out["decode_tok_s_std"] = f.decode_tok_s.std;
  out["weights_gb_s"] = f.weights_gb_s;
  out["read_gb_s"] = f.read_gb_s;
  out["pct_of_read_bandwidth"] = decode_percent(f);
  out["load_seconds"] = f.load_seconds;
  out["kernels"] = std::move(kernels);
  out["layers"] = std::move(layers);
  return out;
}

report::Page compare_page(const Comparison& c) {
  report::Page page;
  const int64_t others = std::ssize(c.schemes) - 1;
  page.title = text(c.model, ": what each scheme costs and gives");
  page.lead = text(counted(others, "scheme"), " against ", reference_of(c).scheme,
                   ", measured by Mantissa.");
  page.facts = {
      {"Model", text(c.model, ", ", c.parameters, " parameters")},
      {"Text", c.text},
      {"Tokens scored", text(c.tokens, " in ", counted(c.windows, "window"), " of up to ", c.ctx)},
      {"Device", c.device},
      {"Run dtype", c.dtype},
      {"Speed", text("1 sequence, ", c.input_len, " tokens in, ", c.output_len, " out")},
      {"Version", text("Mantissa ", c.version, ", commit ", c.commit)},
      {"Date", c.date}};
  page.command = c.command;
  const Table table = compare_table(c);
  page.table = {.header = table.header, .rows = table.rows, .failures = {}, .caption = ""};
  page.table.header.pop_back();  // kernels have a table of their own
  for (std::vector<std::string>& row : page.table.rows) row.pop_back();
  page.second_title = "Formats and kernels";
  page.second.header = {"scheme", "weights", "activations", "kernel of the layers' linears"};
  for (const SchemeFigures& f : c.schemes) {
    page.table.failures.push_back(f.error.empty() ? "" : "failed: " + f.error);
    if (!f.error.empty()) continue;
    page.second.rows.push_back({f.scheme, f.weights, f.activations, join(f.kernels, ", ")});
    page.second.failures.emplace_back();
  }
  page.figures = {
      perplexity_figure(c), size_divergence_figure(c),
      speed_figure(c, "Decode", "decode, tokens/s of one sequence (right is better)",
                   &SchemeFigures::decode_tok_s,
                   "Bars: one standard deviation of the iterations; of the divergence one standard "
                   "error."),
      speed_figure(c, "Prefill", "prefill, tokens/s of one prompt (right is better)",
                   &SchemeFigures::prefill_tok_s,
                   text("One prompt of ", c.input_len, " tokens. Bars as above."))};
  if (measured(c).size() > 1) page.figures.push_back(layers_figure(c));
  page.terms = terms_of(c);
  return page;
}

}  // namespace mantissa
