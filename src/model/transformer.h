// The forward pass, written once over Ops, and the memory it works in. Which form of an activation
// is made is decided by who reads it (Formats of the slots).
#pragma once

#include <span>

#include "model/arena.h"
#include "model/layout.h"

namespace mantissa {

struct TransformerLimits {
  int64_t tokens = 0;       // T of a pass
  int64_t logits_rows = 0;  // R of one logits() call
};

// Memory for one activation in all forms that any reader wants; forms() hands out M rows of some.
class ActivationBuffer {
 public:
  ActivationBuffer() = default;
  // cols K, the forms of every reader together.
  ActivationBuffer(const Elem& run_dtype, int64_t rows, int64_t cols, const Formats& all);
  int64_t bytes() const;
  void place(Arena& arena);
  Activation forms(const Formats& wanted, int64_t rows) const;

 private:
  struct Form {
    Spec spec;
    int64_t scale_cols = 0;
    uint8_t* codes = nullptr;
    float* scales = nullptr;
    int32_t* zero_points = nullptr;
    float* global_scale = nullptr;
  };
  int64_t scale_bytes(const Form& form) const;

  const Elem* run_dtype_ = nullptr;
  int64_t rows_ = 0, cols_ = 0;
  bool high_ = false;
  std::byte* high_data_ = nullptr;
  std::vector<Form> forms_;
};

class Transformer {
 public:
  // layout must outlive the transformer. No memory is taken before place().
  Transformer(const ModelLayout& layout, const ModelConfig& config, TransformerLimits limits);
  int64_t workspace_bytes() const;
  void place(Arena& arena, const Ops& ops, Queue* queue);

  // Empty where passes of one token are one operation (Ops::decode_layers), else why they are not.
  // Answered without memory or weights; use_decode_layers() makes it so, after place().
  std::string decode_why_not(std::span<const KvLayer> kv_layers, const Ops& ops,
                             Queue* queue) const;
  void use_decode_layers() { at_once_ = true; }

  // One pass over the batch; kv_layers has one entry per layer.
  void forward(const Batch& batch, std::span<const KvLayer> kv_layers, const Ops& ops,
               Queue* queue);
  // Float32 logits [R, V] of rows of the last pass, on the device until the next call.
  Matrix<float> head(std::span<const int32_t> rows, const Ops& ops, Queue* queue);
  // Those of the last head() call, or of a captured one of this many rows.
  Matrix<float> last_logits(int64_t rows) const { return {logits_, rows, config_.vocab_size}; }
  // head() and its result on the host; waits for it.
  Matrix<const float> logits(std::span<const int32_t> rows, const Ops& ops, Queue* queue);
  // While `inputs` is not null, passes add what every linear of the layers reads. One linear of a
  // layer by itself: what it makes of such rows, without residual.
  void record_inputs(std::vector<Model::LinearRows>* inputs) { recorded_ = inputs; }
  Model::LinearRows run_linear(size_t layer, LinearRole role, const Model::LinearRows& input,
                               const Ops& ops, Queue* queue);
  // Whether a row's values depend on the others of its pass: some activation has one scale for all.
  bool rows_share_scales() const;

 private:
  // What attention does in one layer, with the tables of `place`.
  struct LayerAttention {
    RopeParams rope;
    AttentionParams params;
  };

  View view(std::byte* data, int64_t rows, int64_t cols) const;
  std::vector<DecodeLayer> decode_layers() const;
  DecodePass decode_pass(std::span<const DecodeLayer> layers,
                         std::span<const KvLayer> kv_layers) const;
  const float* place_rope(const RopeFrequencies& rope, Arena& arena, const Ops& ops, Queue* queue);
  // The input of a branch: the stream normalized, or the stream itself.
  Activation branch_input(const Vector& norm, const Formats& wanted, View x, const Ops& ops,
                          Queue* queue) const;
  void run_attention(size_t index, View x, const Batch& batch, const KvLayer& kv, const Ops& ops,
                     Queue* queue) const;
  void run_mlp(size_t index, View x, const Ops& ops, Queue* queue) const;
  // x += the branch's last linear, normalized or multiplied where the family does so.
  void join(const Slot& slot, const Activation& in, const Vector& norm, View x, const Ops& ops,
            Queue* queue) const;
  void record(size_t layer, LinearRole role, const Activation& in, const Ops& ops,
              Queue* queue) const;
  void run_slot(const Slot& slot, const Activation& x, View out, ConstView residual, const Ops& ops,
                Queue* queue) const;

  const ModelLayout& layout_;
  const ModelConfig& config_;
  TransformerLimits limits_;
  float eps_ = 0;
  float embedding_multiplier_ = 1, residual_multiplier_ = 1, logits_multiplier_ = 1;
  std::vector<LayerAttention> attention_;  // [layers]
  int64_t qkv_cols_ = 0;
  bool adds_apart_ = false;  // some result is normalized or multiplied before it is added
  bool at_once_ = false;     // passes of one token are one operation

  ActivationBuffer hidden_, attended_, gated_, head_in_;  // inputs of the linears
  std::byte* x_ = nullptr;                                // [T, hidden] the residual stream
  std::byte* qkv_ = nullptr;                              // [T, (H + 2 KV) * D]
  std::byte* gate_up_ = nullptr;                          // [T, 2 * inner]
  std::byte* result_ = nullptr;                           // [T, hidden]; where adds_apart_
  std::byte* head_rows_ = nullptr;                        // [R, hidden]
  float* logits_ = nullptr;                               // [R, vocab]
  std::vector<float> host_logits_;  // where the device's memory is not the host's
  int64_t tokens_ = 0;              // of the last pass
  std::vector<Model::LinearRows>* recorded_ = nullptr;
};

}  // namespace mantissa
