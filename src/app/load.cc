#include "app/load.h"

#include <algorithm>
#include <boost/json.hpp>

#include "app/output.h"
#include "app/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/list.h"
#include "base/thread_pool.h"
#include "io/config.h"
#include "model/architecture.h"
#include "model/rope.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

std::string bits_text(double bits) {
  return fixed(bits, 2);
}

std::string rate_text(int64_t bytes, double seconds) {
  return text(human_bytes(static_cast<int64_t>(static_cast<double>(bytes) / seconds)), "/s");
}

// ": read 40 GB/s, copy 50 GB/s, quantize 900 GB/s": each stage while it is busy.
std::string stages_text(const LoadReport& report) {
  std::string out;
  for (const LoadStage& stage : report.stages) {
    if (stage.seconds <= 0) continue;
    out += text(out.empty() ? ": " : ", ", stage.name, " ", rate_text(stage.bytes, stage.seconds));
  }
  return out;
}

void print_graphs(const LoadReport& report) {
  if (report.graph_sizes.empty()) return;
  note(text("captured ", report.graph_sizes.size(), " decode graphs, of 1 to ",
            report.graph_sizes.back(), " sequences, ", human_bytes(report.graph_bytes), ", in ",
            human_seconds(report.graph_seconds)));
}

void print_report(const LoadReport& report, const Model& model) {
  for (const std::string& line : report.notices) note(text("notice: ", line));
  for (const std::string& warning : report.warnings) warn(warning);
  print_graphs(report);
  const MemoryPlan& plan = model.plan();
  if (model.options().dummy) {
    note(text("filled ", human_bytes(plan.weights_bytes), " of random weights in ",
              human_seconds(report.seconds), stages_text(report)));
    return;
  }
  const double seconds = std::max(report.seconds, 1e-9);
  note(text("loaded ", report.tensors, " tensors, ", human_bytes(report.bytes_read), " -> ",
            human_bytes(plan.weights_bytes), ", in ", human_seconds(report.seconds), " (",
            rate_text(report.bytes_read, seconds), ")", stages_text(report)));
}

// --ignore names linears that stay unquantized: of a model that is quantized.
void check_ignore(const ModelOptions& options, std::span<const std::string> schemes) {
  if (options.ignore.empty()) return;
  for (const std::string& scheme : schemes) {
    if (scheme == "auto" ? !config_of(options).quantization_config.empty()
                         : parse_scheme(scheme).weight.quantized())
      return;
  }
  throw Error(text("--ignore ", options.ignore.front(),
                   " has no effect: no linear layer would be quantized"),
              "add -q SCHEME, or leave out --ignore");
}

}  // namespace

Scheme scheme_of(std::string_view option, std::string_view name) {
  if (name.empty())
    throw Error(text(option, " has an empty scheme"),
                "name a scheme, as in ptpc_fp8; `mantissa schemes` lists them");
  try {
    return parse_scheme(name);
  } catch (const Error& e) {
    throw Error(text(option, ": ", e.found), e.fix);
  }
}

std::vector<std::string> scheme_names(std::string_view option, std::string_view list,
                                      bool takes_auto) {
  std::vector<std::string> names;
  for (const std::string_view item : split_list(list)) {
    const std::string name = takes_auto && item == "auto" ? "auto" : scheme_of(option, item).name;
    if (std::ranges::find(names, name) != names.end())
      throw Error(
          text(option, " names ", name, " twice", item == name ? "" : text(" (as ", item, ")")),
          "name each scheme once");
    names.push_back(name);
  }
  return names;
}

ModelOptions model_options_of(const Args& args) {
  if (args.text("quantization").find(',') != std::string::npos)
    throw Error(
        text("--quantization ", quoted(args.text("quantization")), ": one scheme is taken here"),
        "run it once for each; `mantissa bench latency` and `compare` take several");
  return model_options_of(args, {&args.text("quantization"), 1});
}

ModelOptions model_options_of(const Args& args, std::span<const std::string> schemes) {
  ModelOptions options;
  options.folder = args.text("MODEL");
  options.device = args.text("device");
  options.dtype = args.text("dtype");
  options.scheme = schemes.front();
  if (options.scheme != "auto") options.scheme = scheme_of("--quantization", options.scheme).name;
  options.lm_head_scheme = args.text("lm-head-scheme");
  if (options.lm_head_scheme != "auto") scheme_of("--lm-head-scheme", options.lm_head_scheme);
  options.ignore = args.list("ignore");
  options.kv_cache_dtype = args.text("kv-cache-dtype");
  options.kv_scale = static_cast<float>(args.real("kv-scale"));
  options.attention_backend = args.text("attention-backend");
  options.decode_layers = args.text("decode-layers");
  options.dummy = args.text("load-format") == "dummy";
  options.fast_accum = args.flag("fast-accum");
  options.enforce_eager = args.flag("enforce-eager");
  options.strict = args.flag("strict");
  options.seed = static_cast<uint64_t>(args.integer("seed"));
  options.threads = static_cast<int>(args.integer("threads"));
  options.isa = args.text("isa");
  options.max_model_len = args.integer("max-model-len");
  if (args.given("gpu-memory-utilization")) {
    options.gpu_memory_utilization = args.real("gpu-memory-utilization");
  }
  check_ignore(options, schemes);
  check_calibration(args, schemes, options.lm_head_scheme);
  return options;
}

void set_limit_options(const Args& args, ModelOptions& options) {
  options.max_num_seqs = args.integer("max-num-seqs");
  options.max_num_batched_tokens = args.integer("max-num-batched-tokens");
}

ModelConfig config_of(const ModelOptions& options) {
  return read_config(options.folder);
}

int64_t context_of(const ModelOptions& options, const ModelConfig& config) {
  const int64_t most = context_limit(config);
  if (options.max_model_len > most)
    throw Error(text("--max-model-len ", options.max_model_len, ": the model's context is ", most,
                     " tokens (max_position_embeddings)"),
                text("use at most ", most));
  return options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
}

std::string model_name(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::path path = std::filesystem::absolute(folder, code).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return path.filename().string();
}

std::string scheme_label(const Model& model) {
  const std::string& name = model.options().scheme;
  return parse_scheme(name).weight.quantized() ? name : std::string(model.run_dtype().name);
}

std::string plan_text(const Model& model) {
  const MemoryPlan& plan = model.plan();
  const ModelOptions& options = model.options();
  std::string out = text("plan for ", model_name(options.folder), ": ", scheme_label(model),
                         plan.stored.empty() ? "" : text(" (as stored: ", plan.stored, ")"), ", ",
                         options.dtype, ", on ", model.device_description(), "\n");
  Table table{{"layers", "count", "scheme", "kernel", "bits/weight", "size"}, {}};
  for (const PlanRow& row : plan.rows)
    table.rows.push_back({row.module, text(row.count), row.scheme,
                          row.kernel.empty() ? "-" : row.kernel, bits_text(row.bits_per_weight),
                          human_bytes(row.bytes)});
  out += markdown(table);
  const int64_t workspace = plan.workspace_bytes + plan.scratch_bytes;
  out += text("weights ", human_bytes(plan.weights_bytes), " (", human_count(plan.parameters),
              " parameters, ", bits_text(plan.bits_per_weight), " bits each)\n+ KV cache ",
              human_bytes(plan.kv_bytes), " (", plan.kv_tokens, " tokens, ",
              options.kv_cache_dtype == "auto" ? options.dtype : options.kv_cache_dtype,
              plan.kv_scales_given > 0 ? " with the checkpoint's scales" : "", ") + workspace ",
              human_bytes(workspace), " (", human_bytes(plan.scratch_bytes),
              " of it the kernels' own, at most)",
              plan.graph_bytes > 0 ? " + graphs " + human_bytes(plan.graph_bytes) : "", " = ",
              human_bytes(plan.weights_bytes + plan.kv_bytes + workspace + plan.graph_bytes));
  if (plan.load_bytes > 0)
    out += text("; while loading, the weights and up to ", human_bytes(plan.load_bytes));
  if (!plan.one_token.empty()) out += text("\none token at a time: ", plan.one_token);
  if (!plan.misfit.empty()) out += text("\ndoes not fit: ", plan.misfit, "; ", plan.misfit_fix);
  for (const std::string& notice : plan.notices) out += text("\nnotice: ", notice);
  return out;
}

boost::json::object plan_json(const Model& model) {
  const MemoryPlan& plan = model.plan();
  boost::json::array rows;
  for (const PlanRow& row : plan.rows)
    rows.push_back(boost::json::object{{"layers", row.module},
                                       {"count", row.count},
                                       {"scheme", row.scheme},
                                       {"kernel", row.kernel},
                                       {"bits_per_weight", row.bits_per_weight},
                                       {"bytes", row.bytes}});
  boost::json::array notices;
  for (const std::string& notice : plan.notices) notices.emplace_back(notice);
  return {{"stored", plan.stored},
          {"kv_scales_given", plan.kv_scales_given},
          {"weights_bytes", plan.weights_bytes},
          {"kv_bytes", plan.kv_bytes},
          {"workspace_bytes", plan.workspace_bytes},
          {"scratch_bytes", plan.scratch_bytes},
          {"graph_bytes", plan.graph_bytes},
          {"largest_tensor_bytes", plan.largest_tensor_bytes},
          {"load_bytes", plan.load_bytes},
          {"fits", plan.misfit.empty()},
          {"misfit", plan.misfit},
          {"kv_tokens", plan.kv_tokens},
          {"one_token", plan.one_token},
          {"parameters", plan.parameters},
          {"bits_per_weight", plan.bits_per_weight},
          {"rows", std::move(rows)},
          {"notices", std::move(notices)}};
}

void notice(const Args& args, const std::string& line) {
  if (args.flag("strict")) throw Error(line, "leave out --strict to run all the same");
  note(text("notice: ", line));
}

void check_utf8(const Args& args, const std::string& name, std::string_view content) {
  for (std::string_view rest = content; !rest.empty();) {
    const Utf8Head head = utf8_head(rest);
    if (head.kind != Utf8Head::Kind::kCodePoint) {
      notice(args, text(name, " is no valid UTF-8 at byte ", content.size() - rest.size(),
                        ": invalid parts count as U+FFFD"));
      return;
    }
    rest.remove_prefix(head.bytes);
  }
}

std::string read_text(const Args& args, const std::filesystem::path& path, int64_t bytes_max) {
  std::string content = is_stream(path) ? read_stream(path, bytes_max) : read_file(path, bytes_max);
  check_utf8(args, printable(path.string()), content);
  return content;
}

Tokenizer open_tokenizer(const Args& args, const std::filesystem::path& folder) {
  Tokenizer tokenizer = Tokenizer::load(folder);
  for (const std::string& line : tokenizer.notes()) notice(args, line);
  return tokenizer;
}

void check_vocabulary(const Tokenizer& tokenizer, const ModelConfig& config,
                      std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < config.vocab_size) continue;
    throw Error(text("the tokenizer makes id ", id, " of ", quoted(tokenizer.token(id)),
                     ", but the model has ", config.vocab_size,
                     " tokens (config.json): they do not ", "belong together"),
                "use the tokenizer files that came with this config.json and these weights");
  }
}

Model open_model(const Args& args, ModelOptions options, LoadReport* report_out) {
  calibrate_inputs(args, options);
  Model model(options);
  note(plan_text(model));
  if (options.strict && !model.plan().notices.empty())
    throw Error(model.plan().notices.front(), "leave out --strict to run all the same");
  LoadReport report;
  {
    Progress progress(args, options.dummy ? "filling" : "loading", Progress::Unit::kBytes);
    report = model.load([&](int64_t done, int64_t total) { progress.update(done, total); });
  }
  print_report(report, model);
  if (report_out != nullptr) *report_out = std::move(report);
  return model;
}

void add_run_info(boost::json::object& object, const Model& model) {
  const ModelOptions& options = model.options();
  object["model"] = options.folder.string();
  object["scheme"] = scheme_label(model);
  object["dtype"] = options.dtype;
  object["kv_cache_dtype"] = options.kv_cache_dtype;
  object["device"] = model.device_description();
  object["threads"] = options.threads > 0 ? options.threads : usable_cores();
  object["version"] = std::string(version());
  object["commit"] = std::string(commit());
}

}  // namespace mantissa
