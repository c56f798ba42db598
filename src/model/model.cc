#include "model/model.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "base/list.h"
#include "base/thread_pool.h"
#include "io/safetensors.h"
#include "kernels/open_queue.h"
#include "model/arena.h"
#include "model/device_loader.h"
#include "model/layout.h"
#include "model/loader.h"
#include "model/memory_plan.h"
#include "model/steps.h"
#include "model/transformer.h"

namespace mantissa {
namespace {

// --dtype and config.json's torch_dtype use the same names.
struct DtypeRow {
  std::string_view name, aliases;
  const Elem* elem;
};
constexpr DtypeRow kDtypes[] = {{"bfloat16", "bf16", &kBF16},
                                {"float16", "half,fp16,f16", &kF16},
                                {"float32", "float,fp32,f32", &kF32}};

const Elem& run_dtype_of(const std::string& name, const ModelConfig& config,
                         std::vector<std::string>& notices) {
  if (name == "auto") {
    if (config.dtype != nullptr) return *config.dtype;
    notices.emplace_back("config.json names no torch_dtype; running in bfloat16");
    return kBF16;
  }
  for (const DtypeRow& row : kDtypes) {
    if (name == row.name || list_contains(row.aliases, name)) return *row.elem;
  }
  throw Error(text("--dtype ", name, ": not a run dtype"),
              "choose auto, bfloat16, float16 or float32");
}

// Attention designs (architecture.md); one so far. Aliases are vLLM's names of the same design.
struct AttentionBackendRow {
  std::string_view name, aliases;
};
constexpr AttentionBackendRow kAttentionBackends[] = {
    {"unified", "TRITON_ATTN,ROCM_AITER_UNIFIED_ATTN"}};

std::string attention_backend_of(const std::string& name) {
  if (name == "auto") return std::string(kAttentionBackends[0].name);
  for (const AttentionBackendRow& row : kAttentionBackends) {
    if (name == row.name || list_contains(row.aliases, name)) return std::string(row.name);
  }
  throw Error(
      text("--attention-backend ", name, ": not an attention backend of this build"),
      "choose auto or unified (TRITON_ATTN and ROCM_AITER_UNIFIED_ATTN name the same design)");
}

constexpr std::string_view kDecodeLayers[] = {"auto", "fused", "separate"};
void check_decode_layers(const std::string& name) {
  if (std::ranges::find(kDecodeLayers, name) == std::end(kDecodeLayers)) {
    throw Error(text("--decode-layers ", name, ": not a way to run layers"),
                "choose auto, fused or separate");
  }
}

int64_t pages_for(int64_t tokens, int64_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

void check_positive(int64_t value, const char* option) {
  if (value < 1) throw Error(text(option, " is ", value), "give a whole number of at least 1");
}

}  // namespace

std::string dtype_name(const Elem& elem) {
  for (const DtypeRow& row : kDtypes) {
    if (*row.elem == elem) return std::string(row.name);
  }
  return std::string(elem.name);
}

struct Model::State {
  explicit State(const ModelOptions& given);

  void resolve_limits();
  void plan_cache();
  void use_kv_scales();
  KvShape kv_shape_of(int32_t layer) const;
  void plan_one_token();
  void plan_memory();
  PassLimits pass_limits();
  void size_cache();
  void allocate();
  void check_step(const Step& step) const;
  const StepRequest& request_of(const Step& step);
  void capture(LoadReport& report);

  ModelOptions options;
  ModelConfig config;
  const Elem* run_dtype = nullptr;
  const Ops* ops = nullptr;
  OpenQueue queue;
  std::optional<Checkpoint> checkpoint;
  ModelLayout layout;
  Limits limits{};
  KvShape kv_shape;
  int64_t kv_page_bytes = 0, page_bytes_all = 0, block_table_cols = 0;
  bool graphs = false;
  std::vector<int32_t> sizes;  // of graphs
  std::optional<Transformer> transformer;
  MemoryPlan plan;

  Arena weights, cache, workspace;
  std::vector<KvLayer> kv_layers;
  std::optional<Steps> steps;  // goes before the memory that its graphs use
  StepRequest request;         // of forward()
};

Model::State::State(const ModelOptions& given) : options(given) {
  config = read_config(options.folder);
  std::vector<std::string> notices;
  run_dtype = &run_dtype_of(options.dtype, config, notices);
  options.dtype = dtype_name(*run_dtype);
  options.attention_backend = attention_backend_of(options.attention_backend);
  check_decode_layers(options.decode_layers);
  if (options.device == "auto") options.device = "cpu";
  ops = &find_ops(options.device);
  if (options.fast_accum && ops->host_memory) {
    throw Error(text("--fast-accum has no effect on ", options.device,
                     ", which always sums in full precision"),
                "leave out --fast-accum");
  }
  if (options.enforce_eager && ops->begin_capture == nullptr) {
    throw Error(text("--enforce-eager has no effect on ", options.device, ", which has no graphs"),
                "leave out --enforce-eager");
  }
  if (!ops->host_memory && config.vocab_size > kVocabMax) {
    throw Error(text("config.json: vocab_size is ", config.vocab_size, ", but the device ",
                     options.device, " samples from at most ", kVocabMax, " tokens"),
                "use --device cpu");
  }
  if (options.gpu_memory_utilization > 0 && ops->host_memory) {
    throw Error(text("--gpu-memory-utilization has no effect on ", options.device),
                "leave out --gpu-memory-utilization");
  }
  if (options.gpu_memory_utilization <= 0 && !ops->host_memory) {
    options.gpu_memory_utilization = kGpuMemoryUtilization;
  }
  if (options.time_operations && ops->operation_times == nullptr) {
    throw Error(text("operations of the device ", options.device, " are not timed one by one"),
                "use --device cpu");
  }
  if (options.threads == 0) options.threads = usable_cores();
  resolve_limits();
  queue = open_queue(*ops, {.threads = options.threads,
                            .isa = options.isa,
                            .fast_accum = options.fast_accum,
                            .scratch_tokens = limits.tokens,
                            .time_operations = options.time_operations});
  if (!options.dummy) checkpoint = Checkpoint::open(options.folder);
  layout = make_layout(config, options, *run_dtype, *ops, queue.get(),
                       checkpoint ? &*checkpoint : nullptr);
  notices.insert(notices.end(), layout.notices.begin(), layout.notices.end());
  options.scheme = layout.scheme;
  options.lm_head_scheme = layout.head_scheme;
  layout.notices = std::move(notices);
  plan_cache();
  plan_memory();
  plan_one_token();
}

void Model::State::resolve_limits() {
  if (options.max_model_len == 0) options.max_model_len = config.max_position_embeddings;
  check_positive(options.max_model_len, "--max-model-len");
  check_positive(options.max_num_batched_tokens, "--max-num-batched-tokens");
  check_positive(options.max_num_seqs, "--max-num-seqs");
  const int64_t most = context_limit(config);
  if (options.max_model_len > most) {
    throw Error(text("--max-model-len ", options.max_model_len, ": the model's positions end at ",
                     most, " (max_position_embeddings ", config.max_position_embeddings, ", RoPE ",
                     config.rope.type, ")"),
                text("give at most ", most));
  }
  constexpr int64_t kCountMax = int64_t{1} << 24;  // keeps every product of counts within 64 bits
  if (std::max({options.max_num_batched_tokens, options.max_num_seqs, options.logits_rows_max}) >
      kCountMax) {
    throw Error("--max-num-batched-tokens or --max-num-seqs is beyond 16777216",
                "give a smaller number");
  }
  if (options.logits_rows_max == 0) options.logits_rows_max = options.max_num_seqs;
  limits = {.tokens = options.max_num_batched_tokens,
            .sequences = options.max_num_seqs,
            .logits_rows = options.logits_rows_max,
            .model_len = options.max_model_len,
            .vocab = config.vocab_size,
            .kv_pages = 0,
            .kv_page_tokens = 16};
}

// The checkpoint's scales of K and V are for e4m3; a user who asks for another cache is told.
void Model::State::use_kv_scales() {
  if (layout.kv_scales.empty()) return;
  const size_t count = layout.kv_scales.size();
  const auto unused = [&](const std::string& why) {
    layout.notices.push_back(
        text("the checkpoint's KV scales of ", count, " layers are not used: ", why));
  };
  if (options.kv_scale > 0) return unused("--kv-scale is given");
  if (!(*kv_shape.elem == kE4M3)) {
    return unused("they are for --kv-cache-dtype fp8, and the cache is " +
                  std::string(kv_shape.elem->name));
  }
  kv_shape.scaled = false;
  kv_shape.k_scale = layout.kv_scales[0].k;
  kv_shape.v_scale = layout.kv_scales[0].v;
  plan.kv_scales_given = static_cast<int64_t>(count);
}

KvShape Model::State::kv_shape_of(int32_t layer) const {
  KvShape shape = kv_shape;
  if (plan.kv_scales_given == 0) return shape;
  shape.k_scale = layout.kv_scales[static_cast<size_t>(layer)].k;
  shape.v_scale = layout.kv_scales[static_cast<size_t>(layer)].v;
  return shape;
}

// What a page is; how many follows from the rest of the plan (size_cache).
void Model::State::plan_cache() {
  const KvFormatRow& format = parse_kv_format(options.kv_cache_dtype);
  options.kv_cache_dtype = std::string(format.name);
  kv_shape = {.layers = static_cast<int32_t>(config.num_hidden_layers),
              .kv_heads = static_cast<int32_t>(config.num_key_value_heads),
              .head_dim = static_cast<int32_t>(config.head_dim),
              .page_tokens = static_cast<int32_t>(limits.kv_page_tokens),
              .elem = format.elem != nullptr ? format.elem : run_dtype,
              .scaled = format.elem != nullptr && options.kv_scale <= 0,
              .k_scale = format.elem != nullptr ? options.kv_scale : 0,
              .v_scale = format.elem != nullptr ? options.kv_scale : 0};
  use_kv_scales();
  if (options.kv_scale > 0 && format.elem == nullptr) {
    throw Error("--kv-scale needs a quantized cache, but --kv-cache-dtype is auto (the run dtype)",
                "add --kv-cache-dtype fp8, or leave out --kv-scale");
  }
  kv_page_bytes = ops->kv_page_bytes(kv_shape);
  if (__builtin_mul_overflow(kv_page_bytes, int64_t{kv_shape.layers}, &page_bytes_all)) {
    throw Error("config.json: a KV cache page of all layers is beyond 2^63 bytes",
                "check num_hidden_layers, num_key_value_heads and head_dim");
  }
  block_table_cols = pages_for(limits.model_len, limits.kv_page_tokens);
}

void Model::State::plan_memory() {
  transformer.emplace(
      layout, config,
      TransformerLimits{.tokens = limits.tokens, .logits_rows = limits.logits_rows});
  graphs = ops->begin_capture != nullptr && !options.enforce_eager && !options.observe_inputs;
  const int64_t kv_scales_given = plan.kv_scales_given;
  plan = plan_weights(layout);
  plan.kv_scales_given = kv_scales_given;
  plan.scratch_bytes = ops->scratch_bytes(pass_limits(), queue.get());
  if (graphs) {
    sizes = graph_sizes(std::min({limits.sequences, limits.tokens, limits.logits_rows}));
    plan.graph_bytes = std::ssize(sizes) * kv_shape.layers * kGraphLayerBytes + kGraphStepBytes;
  }
  if (checkpoint) {
    for (const TensorInfo& t : checkpoint->tensors()) {
      plan.largest_tensor_bytes = std::max(plan.largest_tensor_bytes, t.bytes);
    }
  }
  plan.load_bytes = ops->load != nullptr
                        ? device_load_bytes(layout, checkpoint ? &*checkpoint : nullptr, *ops)
                        : plan.largest_tensor_bytes;
  size_cache();
}

// Whether a pass of one token is one operation: asked once, said in the plan.
void Model::State::plan_one_token() {
  if (ops->decode_layers == nullptr && options.decode_layers != "fused") {
    options.decode_layers = "separate";
    return;
  }
  if (options.decode_layers == "separate") {
    plan.one_token = "operation by operation (--decode-layers separate)";
    return;
  }
  std::vector<KvLayer> shapes;
  shapes.reserve(static_cast<size_t>(kv_shape.layers));
  for (int32_t layer = 0; layer < kv_shape.layers; ++layer)
    shapes.push_back({.shape = kv_shape_of(layer), .pages = nullptr, .page_bytes = kv_page_bytes});
  const std::string why_not = transformer->decode_why_not(shapes, *ops, queue.get());
  if (why_not.empty()) {
    transformer->use_decode_layers();
    options.decode_layers = "fused";
    plan.one_token = "all layers in one kernel";
    return;
  }
  if (options.decode_layers == "fused") {
    throw Error(text("--decode-layers fused: ", why_not), "use --decode-layers auto");
  }
  options.decode_layers = "separate";
  plan.one_token = text("operation by operation: ", why_not);
}

PassLimits Model::State::pass_limits() {
  PassLimits pass{.tokens = limits.tokens,
                  .sequences = limits.sequences,
                  .model_len = limits.model_len,
                  .vocab = limits.vocab,
                  .heads = static_cast<int32_t>(config.num_attention_heads),
                  .kv = kv_shape,
                  .run_dtype = run_dtype};
  for_each_slot(layout, [&](const Slot& slot) { pass.cols = std::max(pass.cols, slot.cols); });
  return pass;
}

// A page costs its number in a step's input too.
void Model::State::size_cache() {
  const int64_t spare = graphs ? 1 : 0;  // a captured batch has padding, which needs a page
  const Steps without_pages(limits, block_table_cols, 0, *transformer);
  const CachePlan cache_plan =
      ::mantissa::plan_cache({.weights = plan.weights_bytes,
                              .load = plan.load_bytes,
                              .workspace = transformer->workspace_bytes() +
                                           without_pages.workspace_bytes() + plan.scratch_bytes,
                              .graphs = plan.graph_bytes},
                             {.page_bytes = page_bytes_all + 4,
                              .page_tokens = limits.kv_page_tokens,
                              .spare_pages = spare,
                              .model_len = limits.model_len,
                              .sequences = limits.sequences,
                              .tokens = options.kv_tokens},
                             ops->memory(queue.get()), options.gpu_memory_utilization);
  limits.kv_pages = cache_plan.pages;
  options.kv_tokens = limits.kv_pages * limits.kv_page_tokens;
  steps.emplace(limits, block_table_cols, limits.kv_pages, *transformer);
  plan.workspace_bytes = transformer->workspace_bytes() + steps->workspace_bytes();
  plan.kv_bytes = (limits.kv_pages + spare) * page_bytes_all;
  plan.kv_tokens = options.kv_tokens;
  plan.kv_page_tokens = limits.kv_page_tokens;
  plan.misfit = cache_plan.misfit;
  plan.misfit_fix = cache_plan.fix;
}

void Model::State::allocate() {
  cache = Arena(plan.kv_bytes, "the KV cache", *ops, queue.get());
  workspace = Arena(plan.workspace_bytes, "the workspace", *ops, queue.get());
  for (int32_t layer = 0; layer < kv_shape.layers; ++layer) {
    kv_layers.push_back({.shape = kv_shape_of(layer),
                         .pages = cache.take((limits.kv_pages + (graphs ? 1 : 0)) * kv_page_bytes),
                         .page_bytes = kv_page_bytes});
  }
  steps->place(workspace, kv_layers, *ops, queue.get());
  transformer->place(workspace, *ops, queue.get());
}

// Token ids come from outside; the rest comes from our own code, so a mistake there is a bug. More
// is checked in Steps.
void Model::State::check_step(const Step& step) const {
  const size_t tokens = step.token_ids.size(), sequences = step.context_len.size();
  check(step.positions.size() == tokens && step.slots.size() == tokens,
        "a step's token arrays of one length");
  check(step.query_start.size() == sequences + 1 && step.block_tables.size() == sequences,
        "a step's sequence arrays of one length");
  check(step.query_start.front() == 0 && step.query_start.back() == static_cast<int32_t>(tokens),
        "query_start covers the step");
  for (const int32_t id : step.token_ids) check_token(id, limits.vocab);
  for (size_t s = 0; s < sequences; ++s) {
    const int32_t begin = step.query_start[s], end = step.query_start[s + 1],
                  first = step.context_len[s] - (end - begin);
    const std::vector<int32_t>& pages = step.block_tables[s];
    check(begin >= 0 && begin <= end && first >= 0, "a sequence within its context");
    check(pages_for(step.context_len[s], limits.kv_page_tokens) <= std::ssize(pages),
          "pages for the whole context");
    for (int32_t t = begin; t < end; ++t) {
      const int32_t position = first + (t - begin);
      const int64_t page = pages[static_cast<size_t>(position / limits.kv_page_tokens)];
      check(step.positions[static_cast<size_t>(t)] == position &&
                step.slots[static_cast<size_t>(t)] ==
                    page * limits.kv_page_tokens + position % limits.kv_page_tokens,
            "positions and slots as context and block table say");
    }
  }
}

const Model::StepRequest& Model::State::request_of(const Step& step) {
  check_step(step);
  request.token_ids = step.token_ids;
  request.sequences.clear();
  request.pages.clear();
  for (size_t s = 0; s < step.context_len.size(); ++s) {
    const int32_t tokens = step.query_start[s + 1] - step.query_start[s];
    const auto used =
        static_cast<std::ptrdiff_t>(pages_for(step.context_len[s], limits.kv_page_tokens));
    request.sequences.push_back({.seat = static_cast<int32_t>(s),
                                 .first_token = step.query_start[s],
                                 .tokens = tokens,
                                 .position = step.context_len[s] - tokens,
                                 .page_col = 0,
                                 .pages = static_cast<int32_t>(used),
                                 .page_at = static_cast<int32_t>(request.pages.size()),
                                 .sampling = {}});
    const std::vector<int32_t>& pages = step.block_tables[s];
    request.pages.insert(request.pages.end(), pages.begin(), pages.begin() + used);
  }
  return request;
}

void Model::State::capture(LoadReport& report) {
  const auto start = std::chrono::steady_clock::now();
  report.graph_sizes = sizes;
  report.graph_bytes = steps->capture(report.graph_sizes);
  report.graph_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Model::Model(const ModelOptions& options) : state_(std::make_unique<State>(options)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

const MemoryPlan& Model::plan() const {
  return state_->plan;
}
const ModelConfig& Model::config() const {
  return state_->config;
}
const ModelOptions& Model::options() const {
  return state_->options;
}
const Elem& Model::run_dtype() const {
  return *state_->run_dtype;
}
const Model::Limits& Model::limits() const {
  return state_->limits;
}
std::string Model::device_description() const {
  return state_->ops->describe(state_->queue.get());
}

LoadReport Model::load(const LoadProgress& progress) {
  State& s = *state_;
  check(s.weights.bytes() == 0, "a model is loaded once");
  if (!s.plan.misfit.empty()) throw Error(s.plan.misfit, s.plan.misfit_fix);
  s.weights = Arena(arena_bytes(s.layout), "the weights", *s.ops, s.queue.get());
  ThreadPool pool(load_threads(*s.ops, s.options.threads));
  LoadReport report =
      load_weights(s.layout, s.weights, {s.checkpoint ? &*s.checkpoint : nullptr, s.options.seed},
                   *s.ops, s.queue.get(), pool, progress);
  if (s.options.strict && !report.warnings.empty()) {
    throw Error(report.warnings.front(), "leave out --strict to run all the same");
  }
  s.checkpoint.reset();
  s.allocate();  // after loading, so that what it took is free again
  if (s.graphs) s.capture(report);
  return report;
}

void Model::forward(const Step& step) {
  State& s = *state_;
  check(s.weights.bytes() > 0, "load() before forward()");
  s.steps->forward(s.request_of(step));
}

std::vector<InputRange> Model::input_ranges() {
  State& s = *state_;
  check(s.options.observe_inputs, "input_ranges() of a model that observes");
  std::vector<InputRange> ranges;
  for_each_slot(s.layout, [&](const Slot& slot) {
    float seen[2];
    s.ops->download(seen, slot.observed, sizeof seen, s.queue.get());
    ranges.push_back({.module = slot.module, .min = -seen[0], .max = seen[1]});
  });
  return ranges;
}

std::vector<OperationTime> Model::operation_times() const {
  check(state_->options.time_operations, "operation_times() of a model that times them");
  return state_->ops->operation_times(state_->queue.get());
}

Matrix<const float> Model::logits(std::span<const int32_t> rows) {
  return state_->transformer->logits(rows, *state_->ops, state_->queue.get());
}

std::vector<Model::LinearRows> Model::record_inputs(const Step& step) {
  std::vector<LinearRows> inputs;
  state_->transformer->record_inputs(&inputs);
  forward(step);
  state_->transformer->record_inputs(nullptr);
  return inputs;
}

void Model::run_linears(std::span<const LinearRows> inputs,
                        const std::function<void(size_t index, const LinearRows& output)>& take) {
  State& s = *state_;
  check(inputs.size() == s.layout.layers.size() * kLinearRoles, "inputs of every linear");
  for (size_t i = 0; i < inputs.size(); ++i) {
    check(inputs[i].rows <= s.limits.tokens, "no more rows than a pass has");
    take(i, s.transformer->run_linear(i / kLinearRoles, static_cast<LinearRole>(i % kLinearRoles),
                                      inputs[i], *s.ops, s.queue.get()));
  }
}

bool Model::runs_ahead() const {
  return !state_->ops->host_memory;
}

void Model::wake() {
  if (state_->ops->wake != nullptr) state_->ops->wake(state_->queue.get());
}

int64_t Model::launch(const StepRequest& request) {
  check(state_->weights.bytes() > 0, "load() before launch()");
  return state_->steps->launch(request);
}

Model::StepResult Model::wait(int64_t ticket) {
  return state_->steps->wait(ticket);
}

}  // namespace mantissa
