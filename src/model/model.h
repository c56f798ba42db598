// A loaded model: planned first (sizes, kernels, peak), then loaded and quantized tensor by tensor,
// then run. One transformer over Ops serves every architecture of the table (model/architecture.h).
// Not here: which sequences run when (engine/), where text becomes tokens (text/).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/config.h"
#include "kernels/ops.h"
#include "kernels/step.h"
#include "quant/scheme.h"

namespace mantissa {

// The values that the input of one linear (or of fused ones) took: min <= 0 <= max.
struct InputRange {
  std::string module;  // of the fused whole: "model.layers.0.self_attn.qkv_proj"
  float min = 0, max = 0;
};

struct ModelOptions {
  std::filesystem::path folder;
  std::string device = "auto";  // auto | cpu | ref
  std::string dtype = "auto";   // auto | bfloat16 | float16 | float32
  // --quantization, --lm-head-scheme; auto: the checkpoint's own, bf16 where it is not quantized.
  std::string scheme = "auto", lm_head_scheme = "auto";
  std::vector<std::string> ignore;  // "re:..." or exact module names that stay in the run dtype
  std::string kv_cache_dtype = "auto";
  float kv_scale = 0;  // > 0: --kv-scale
  std::string attention_backend = "auto";
  std::string decode_layers = "auto";  // auto | fused | separate: passes of one token
  bool dummy = false;                  // --load-format dummy: random weights, config.json alone
  bool fast_accum = false;             // --fast-accum (device cuda)
  bool enforce_eager = false;          // --enforce-eager: no graphs (device cuda)
  bool strict = false;
  bool time_operations = false;  // see Model::operation_times()
  uint64_t seed = 0;
  int threads = 0;
  std::string isa = "auto";
  int64_t max_model_len = 0;              // 0: the model's max_position_embeddings
  int64_t max_num_batched_tokens = 2048;  // T of a forward pass
  int64_t max_num_seqs = 256;             // S of a forward pass
  int64_t kv_tokens = 0;                  // capacity of the KV cache; 0: what memory_plan.h gives
  double gpu_memory_utilization = 0;      // part of the GPU's memory; 0: 0.9. An Error elsewhere
  int64_t logits_rows_max = 0;            // R of one logits() call; 0: max_num_seqs
  // Calibration (eval/calibrate.h). observe_inputs: activations stay in the run dtype and the
  // ranges of all linears' inputs are kept. input_ranges: what static scales are made of.
  bool observe_inputs = false;
  std::vector<InputRange> input_ranges;
};

// One kind of layer in the printed plan: "self_attn.qkv_proj: 22 x ptpc_fp8, gemm_...".
struct PlanRow {
  std::string module, scheme, kernel;
  int64_t count = 0, bytes = 0;
  double bits_per_weight = 0;
};
struct MemoryPlan {
  std::vector<PlanRow> rows;
  std::vector<std::string> notices;  // everything a user should know: short groups, ignored modules
  int64_t weights_bytes = 0, kv_bytes = 0, workspace_bytes = 0;
  int64_t scratch_bytes = 0;         // of kernels, at most; not in workspace_bytes
  int64_t graph_bytes = 0;           // a bound of what captured graphs take
  int64_t largest_tensor_bytes = 0;  // of the checkpoint
  int64_t load_bytes = 0;  // on top of the weights while loading; KV cache and workspace come later
  int64_t kv_tokens = 0, kv_page_tokens = 0;
  int64_t kv_scales_given = 0;  // layers whose KV scales come from the checkpoint
  std::string stored;           // the checkpoint's dialect where it is quantized
  std::map<std::string, std::string> tensor_uses;  // stored tensors: "codes of fp8_static"
  int64_t parameters = 0;
  double bits_per_weight = 0;      // weights_bytes * 8 / parameters
  std::string one_token;           // what runs a pass of one token; empty: there is no choice
  std::string misfit, misfit_fix;  // empty: it fits. Else what load() refuses with
};

// A stage of loading and how long it was busy; stages overlap.
struct LoadStage {
  std::string_view name;  // read (by all threads), copy (to the device), quantize (there)
  int64_t bytes = 0;
  double seconds = 0;
};

// What loading met: written once it is done.
struct LoadReport {
  double seconds = 0;
  int64_t tensors = 0, bytes_read = 0;
  std::vector<LoadStage> stages;      // where the device quantizes
  std::vector<std::string> notices;   // which weights the host quantized all the same, and why
  std::vector<std::string> warnings;  // NaN or Inf weights, saturation, unread tensors: by name
  // Decode steps that were captured; no sizes where the device has no graphs or was asked for none.
  std::vector<int32_t> graph_sizes;
  int64_t graph_bytes = 0;
  double graph_seconds = 0;
};

// Called from the loading thread: bytes of the checkpoint done and in all.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

// As --dtype and config.json name a run dtype: "bfloat16".
std::string dtype_name(const Elem& elem);

class Model {
 public:
  // Reads config and tensor headers only; throws Error for anything that cannot work.
  explicit Model(const ModelOptions& options);
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const MemoryPlan& plan() const;
  const ModelConfig& config() const;
  const ModelOptions& options() const;  // with every "auto" and 0 replaced by what it became
  const Elem& run_dtype() const;
  std::string device_description() const;  // "cpu avx512, 2 threads"

  LoadReport load(const LoadProgress& progress = {});

  // ---- running; needs load(). Not thread-safe: one caller at a time.
  struct Limits {
    int64_t tokens, sequences, logits_rows, model_len, vocab;
    int64_t kv_pages, kv_page_tokens;
  };
  const Limits& limits() const;
  // Host arrays of one step: checked against limits(), copied to the device, run. K and V of every
  // token are in the cache afterwards; hidden states stay inside for logits(). slots are what block
  // tables and positions say; a sequence's positions ascend by one. Takes seats 0 to S - 1.
  struct Step {
    std::vector<int32_t> token_ids, positions, slots;  // [T]
    std::vector<int32_t> query_start;                  // [S + 1]
    std::vector<int32_t> context_len;                  // [S]
    std::vector<std::vector<int32_t>> block_tables;    // [S] pages of each sequence, in order
  };
  void forward(const Step& step);
  // A step will follow soon (Ops::wake).
  void wake();
  // Float32 logits [R, V] of these token rows of the last forward pass; valid until the next call.
  Matrix<const float> logits(std::span<const int32_t> rows);

  // Of every linear's input, over all forward passes so far; needs observe_inputs.
  std::vector<InputRange> input_ranges();

  // Time inside each operation since the model was opened; needs time_operations.
  std::vector<OperationTime> operation_times() const;

  // ---- the layers' linears one by one: how far those of one scheme are from another's
  // Rows of one linear's input or output.
  struct LinearRows {
    int64_t layer = 0;
    std::string kind;  // "self_attn.qkv_proj": the fused whole
    int64_t rows = 0, cols = 0;
    std::vector<float> values;  // [rows, cols]
  };
  // forward(step), and what the linears of each layer read, in the order in which they run. All of
  // them must read the run dtype.
  std::vector<LinearRows> record_inputs(const Step& step);
  // What each linear makes of its input by itself, biases included: `take` gets one result after
  // the other. At most limits().tokens rows; the last pass's hidden states are lost.
  void run_linears(std::span<const LinearRows> inputs,
                   const std::function<void(size_t index, const LinearRows& output)>& take);

  // A step that samples where the model runs. A sequence keeps its seat, below limits().sequences,
  // and sends each page of its table once; its next token may be kSampledId, what it sampled last.
  struct StepRequest {
    std::vector<StepSequence> sequences;  // [S] kernels/step.h; result and padding are set inside
    std::vector<int32_t> token_ids;       // [T]
    std::vector<int32_t> pages;
    std::vector<int32_t> sampling;  // ascending: sequences whose last token gives the next one
    bool logprobs = false;          // of every sampled token
  };
  struct StepResult {
    std::span<const SampledRow> rows;      // [sampling]
    std::span<const LogprobRow> logprobs;  // likewise, where asked for
  };
  // Whether launch() returns before the step is done. Steps run in the order of their launch.
  bool runs_ahead() const;
  int64_t launch(const StepRequest& request);
  // Of one of the last kStepsInFlight launches; the result is valid until as many have followed.
  StepResult wait(int64_t ticket);
  static constexpr int kStepsInFlight = kMarks - 1;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa
