#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

int64_t scale_cols(const Spec& spec, int64_t cols) {
  return spec.block.cols == kAll ? 1 : (cols + spec.block.cols - 1) / spec.block.cols;
}

// Everything that some layer's slot of this role wants.
Formats all_formats(const ModelLayout& layout, std::span<const LinearRole> roles) {
  Formats all;
  for (const Layer& layer : layout.layers) {
    for (const LinearRole role : roles) {
      const Formats& input = layer.linears[role].input;
      all.high = all.high || input.high;
      for (const Spec& spec : input.quantized) all.add(spec);
    }
  }
  return all;
}

// Static scales stand beside the slot's weights.
void point_at_statics(const Formats& wanted, Activation& a) {
  for (const StaticInput& given : wanted.statics) {
    for (QuantizedActivation& q : a.quantized) {
      if (q.spec != given.spec) continue;
      if (given.spec.global_scale) {
        q.global_scale = given.global_scale;
        continue;
      }
      q.scales.data = given.scale;
      q.zero_points.data = given.spec.asymmetric ? given.zero_point : nullptr;
    }
  }
}

// sqrt(hidden) is rounded to the run dtype before it is used, as in transformers.
float embedding_multiplier(const ModelLayout& layout, const ModelConfig& config) {
  if (!layout.architecture->embedding_by_root) {
    return static_cast<float>(config.embedding_multiplier);
  }
  const double root = std::sqrt(static_cast<double>(config.hidden_size));
  return static_cast<float>(decode(*layout.run_dtype, encode(*layout.run_dtype, root)));
}

float score_scale(const ModelConfig& config) {
  if (config.attention_multiplier > 0) return static_cast<float>(config.attention_multiplier);
  const double scalar = config.query_pre_attn_scalar > 0 ? config.query_pre_attn_scalar
                                                         : static_cast<double>(config.head_dim);
  return static_cast<float>(1 / std::sqrt(scalar));
}

int64_t rope_bytes(const RopeFrequencies& rope) {
  return Arena::padded(static_cast<int64_t>(rope.inv_freq.size()) * 4);
}

}  // namespace

ActivationBuffer::ActivationBuffer(const Elem& run_dtype, int64_t rows, int64_t cols,
                                   const Formats& all)
    : run_dtype_(&run_dtype), rows_(rows), cols_(cols), high_(all.high) {
  for (const Spec& spec : all.quantized) {
    forms_.push_back({.spec = spec, .scale_cols = scale_cols(spec, cols)});
  }
}

int64_t ActivationBuffer::scale_bytes(const Form& form) const {
  return Arena::padded(rows_ * form.scale_cols * 4);
}

int64_t ActivationBuffer::bytes() const {
  int64_t bytes = high_ ? Arena::padded(rows_ * cols_ * run_dtype_->bits() / 8) : 0;
  for (const Form& form : forms_) {
    bytes += Arena::padded(rows_ * cols_) + scale_bytes(form) * (form.spec.asymmetric ? 2 : 1) +
             Arena::kAlign;
  }
  return bytes;
}

void ActivationBuffer::place(Arena& arena) {
  if (high_) high_data_ = arena.take(rows_ * cols_ * run_dtype_->bits() / 8);
  for (Form& form : forms_) {
    form.codes = arena.take_array<uint8_t>(rows_ * cols_);
    form.scales = reinterpret_cast<float*>(arena.take(scale_bytes(form)));
    if (form.spec.asymmetric) {
      form.zero_points = reinterpret_cast<int32_t*>(arena.take(scale_bytes(form)));
    }
    form.global_scale = arena.take_array<float>(1);
  }
}

Activation ActivationBuffer::forms(const Formats& wanted, int64_t rows) const {
  Activation a;
  if (wanted.high) a.high = View(high_data_, *run_dtype_, rows, cols_);
  for (const Spec& spec : wanted.quantized) {
    for (const Form& form : forms_) {
      if (form.spec != spec) continue;
      check(a.quantized_count < Activation::kFormatsMax, "few enough forms of one activation");
      QuantizedActivation& q = a.quantized[a.quantized_count++];
      const int64_t scale_rows = spec.block.rows == kAll ? 1 : rows;
      q.spec = spec;
      q.codes = {form.codes, rows, cols_};
      q.scales = {form.scales, scale_rows, form.scale_cols};
      if (spec.asymmetric) q.zero_points = {form.zero_points, scale_rows, form.scale_cols};
      q.global_scale = spec.global_scale ? form.global_scale : nullptr;
    }
  }
  point_at_statics(wanted, a);
  return a;
}

Transformer::Transformer(const ModelLayout& layout, const ModelConfig& config,
                         TransformerLimits limits)
    : layout_(layout), config_(config), limits_(limits) {
  const Elem& run = *layout.run_dtype;
  eps_ = static_cast<float>(config.rms_norm_eps);
  embedding_multiplier_ = embedding_multiplier(layout, config);
  residual_multiplier_ = static_cast<float>(config.residual_multiplier);
  logits_multiplier_ = static_cast<float>(1 / config.logits_scaling);
  for (const LayerConfig& layer : config.layers) {
    const RopeFrequencies& rope = layer.local_rope ? layout.local_rope : layout.rope;
    const auto pairs = static_cast<int32_t>(rope.inv_freq.size());
    attention_.push_back(
        {.rope = {.inv_freq = nullptr,
                  .rotary_dim = layer.rope ? 2 * pairs : 0,
                  .attention_factor = rope.attention_factor},
         .params = {.heads = static_cast<int32_t>(config.num_attention_heads),
                    .scale = score_scale(config),
                    .window = static_cast<int32_t>(layer.window),
                    .soft_cap = static_cast<float>(config.attn_logit_softcapping)}});
  }
  const auto& norms = layout.architecture->norms;
  adds_apart_ = config.residual_multiplier != 1 || !norms[kAttentionResult].empty() ||
                !norms[kMlpResult].empty();
  qkv_cols_ = size_of(Size::kQkv, config);

  constexpr LinearRole kFromNorm[] = {kQkv, kGateUp};
  constexpr LinearRole kFromAttention[] = {kAttentionOut};
  constexpr LinearRole kFromGate[] = {kDown};
  hidden_ =
      ActivationBuffer(run, limits.tokens, config.hidden_size, all_formats(layout, kFromNorm));
  Formats attended = all_formats(layout, kFromAttention);
  attended.high = true;  // a per-token scale spans all heads: the value is written, then quantized
  attended_ = ActivationBuffer(run, limits.tokens, size_of(Size::kQueries, config), attended);
  gated_ = ActivationBuffer(run, limits.tokens, config.intermediate_size,
                            all_formats(layout, kFromGate));
  head_in_ = ActivationBuffer(run, limits.logits_rows, config.hidden_size, layout.head.input);
}

int64_t Transformer::workspace_bytes() const {
  const int64_t element = layout_.run_dtype->bits() / 8;
  const int64_t per_token =
      config_.hidden_size * (adds_apart_ ? 2 : 1) + qkv_cols_ + 2 * config_.intermediate_size;
  return hidden_.bytes() + attended_.bytes() + gated_.bytes() + head_in_.bytes() +
         limits_.tokens * per_token * element + 4 * Arena::kAlign +
         Arena::padded(limits_.logits_rows * config_.hidden_size * element) +
         Arena::padded(limits_.logits_rows * config_.vocab_size * 4) + rope_bytes(layout_.rope) +
         rope_bytes(layout_.local_rope);
}

void Transformer::place(Arena& arena, const Ops& ops, Queue* queue) {
  const int64_t element = layout_.run_dtype->bits() / 8;
  for (ActivationBuffer* buffer : {&hidden_, &attended_, &gated_, &head_in_}) buffer->place(arena);
  x_ = arena.take(limits_.tokens * config_.hidden_size * element);
  qkv_ = arena.take(limits_.tokens * qkv_cols_ * element);
  gate_up_ = arena.take(limits_.tokens * 2 * config_.intermediate_size * element);
  head_rows_ = arena.take(limits_.logits_rows * config_.hidden_size * element);
  logits_ = arena.take_array<float>(limits_.logits_rows * config_.vocab_size);
  if (adds_apart_) result_ = arena.take(limits_.tokens * config_.hidden_size * element);
  const float* rope = place_rope(layout_.rope, arena, ops, queue);
  const float* local_rope = place_rope(layout_.local_rope, arena, ops, queue);
  for (size_t i = 0; i < attention_.size(); ++i) {
    attention_[i].rope.inv_freq = config_.layers[i].local_rope ? local_rope : rope;
  }
}

const float* Transformer::place_rope(const RopeFrequencies& rope, Arena& arena, const Ops& ops,
                                     Queue* queue) {
  const auto count = static_cast<int64_t>(rope.inv_freq.size());
  if (count == 0) return nullptr;
  float* table = arena.take_array<float>(count);
  ops.upload(table, rope.inv_freq.data(), count * 4, queue);
  return table;
}

View Transformer::view(std::byte* data, int64_t rows, int64_t cols) const {
  return {data, *layout_.run_dtype, rows, cols};
}

void Transformer::run_slot(const Slot& slot, const Activation& x, View out, ConstView residual,
                           const Ops& ops, Queue* queue) const {
  if (slot.observed != nullptr) ops.observe(x.high, slot.observed, queue);
  for (const PlannedWeight& w : slot.weights) {
    const int64_t cols = w.weight.request.rows;
    const Epilogue epilogue{
        .bias = w.bias, .residual = residual.empty() ? residual : residual.col_range(w.col0, cols)};
    ops.linear(out.col_range(w.col0, cols), x, w.weight, epilogue, queue);
  }
}

Activation Transformer::branch_input(const Vector& norm, const Formats& wanted, View x,
                                     const Ops& ops, Queue* queue) const {
  if (norm.size > 0) {
    const Activation in = hidden_.forms(wanted, x.rows);
    ops.rms_norm(in, x, norm.data, eps_, queue);
    return in;
  }
  Formats codes = wanted;
  codes.high = false;
  Activation in = hidden_.forms(codes, x.rows);
  in.high = x;
  ops.quantize_rows(in, queue);
  return in;
}

void Transformer::join(const Slot& slot, const Activation& in, const Vector& norm, View x,
                       const Ops& ops, Queue* queue) const {
  if (norm.size == 0 && residual_multiplier_ == 1) {
    run_slot(slot, in, x, x, ops, queue);
    return;
  }
  const View result = view(result_, x.rows, x.cols);
  run_slot(slot, in, result, {}, ops, queue);
  ops.add_rows(x, result, {.gain = norm.data, .eps = eps_, .multiplier = residual_multiplier_},
               queue);
}

void Transformer::run_attention(size_t index, View x, const Batch& batch, const KvLayer& kv,
                                const Ops& ops, Queue* queue) const {
  const Layer& layer = layout_.layers[index];
  const Slot* slots = layer.linears;
  const LayerAttention& attention = attention_[index];
  const View qkv = view(qkv_, x.rows, qkv_cols_);
  const Activation in = branch_input(layer.norms[kAttentionIn], slots[kQkv].input, x, ops, queue);
  record(index, kQkv, in, ops, queue);
  run_slot(slots[kQkv], in, qkv, {}, ops, queue);
  if (layer.q_norm.size > 0) {
    ops.norm_heads(qkv,
                   {.q_gain = layer.q_norm.data,
                    .k_gain = layer.k_norm.data,
                    .heads = attention.params.heads,
                    .kv_heads = kv.shape.kv_heads,
                    .head_dim = kv.shape.head_dim,
                    .each_head = layout_.architecture->head_norms == HeadNorms::kEachHead,
                    .eps = eps_},
                   queue);
  }
  ops.rope_write(qkv, attention.rope, attention.params, batch, kv, queue);
  Formats attended = slots[kAttentionOut].input;
  attended.high = true;
  const Activation out = attended_.forms(attended, x.rows);
  ops.attention(out, qkv, attention.params, batch, kv, queue);
  record(index, kAttentionOut, out, ops, queue);
  join(slots[kAttentionOut], out, layer.norms[kAttentionResult], x, ops, queue);
}

void Transformer::run_mlp(size_t index, View x, const Ops& ops, Queue* queue) const {
  const Layer& layer = layout_.layers[index];
  const Slot* slots = layer.linears;
  const View gate_up = view(gate_up_, x.rows, 2 * config_.intermediate_size);
  const Activation in = branch_input(layer.norms[kMlpIn], slots[kGateUp].input, x, ops, queue);
  record(index, kGateUp, in, ops, queue);
  run_slot(slots[kGateUp], in, gate_up, {}, ops, queue);
  const Activation gated = gated_.forms(slots[kDown].input, x.rows);
  ops.gate(gated, gate_up, layout_.gate, queue);
  record(index, kDown, gated, ops, queue);
  join(slots[kDown], gated, layer.norms[kMlpResult], x, ops, queue);
}

namespace {

const float* static_scale_of(const Formats& input) {
  return input.statics.empty() ? nullptr : input.statics[0].scale;
}

}  // namespace

std::vector<DecodeLayer> Transformer::decode_layers() const {
  constexpr std::pair<DecodeRole, LinearRole> kRoles[] = {{kDecodeQkv, kQkv},
                                                          {kDecodeOut, kAttentionOut},
                                                          {kDecodeGateUp, kGateUp},
                                                          {kDecodeDown, kDown}};
  std::vector<DecodeLayer> layers;
  for (size_t i = 0; i < layout_.layers.size(); ++i) {
    const Layer& from = layout_.layers[i];
    DecodeLayer to{.linears = {},
                   .attention_gain = from.norms[kAttentionIn].data,
                   .mlp_gain = from.norms[kMlpIn].data,
                   .attention = attention_[i].params,
                   .rope = attention_[i].rope};
    for (const auto& [role, slot] : kRoles) {
      to.linears[role] = {.weight = &from.linears[slot].weights[0].weight,
                          .bias = from.linears[slot].weights[0].bias,
                          .static_scale = static_scale_of(from.linears[slot].input)};
    }
    layers.push_back(to);
  }
  return layers;
}

DecodePass Transformer::decode_pass(std::span<const DecodeLayer> layers,
                                    std::span<const KvLayer> kv_layers) const {
  return {.layers = layers,
          .kv = kv_layers,
          .gate = layout_.gate,
          .eps = eps_,
          .x = view(x_, 1, config_.hidden_size)};
}

std::string Transformer::decode_why_not(std::span<const KvLayer> kv_layers, const Ops& ops,
                                        Queue* queue) const {
  if (ops.decode_layers == nullptr) return text("the device ", ops.name, " has no such kernel");
  if (adds_apart_) return "results are normalized or multiplied before they are added";
  for (const Layer& layer : layout_.layers) {
    if (layer.q_norm.size > 0) return "queries and keys are normalized";
    if (layer.norms[kAttentionIn].size == 0 || layer.norms[kMlpIn].size == 0)
      return "a branch's input is not normalized";
    for (const Slot& slot : layer.linears) {
      if (slot.weights.size() != 1) return text(slot.module, " has parts of several schemes");
      if (slot.observed != nullptr || layout_.observes) return "inputs are observed";
    }
  }
  const std::vector<DecodeLayer> layers = decode_layers();
  return ops.decode_why_not(decode_pass(layers, kv_layers), queue);
}

void Transformer::forward(const Batch& batch, std::span<const KvLayer> kv_layers, const Ops& ops,
                          Queue* queue) {
  tokens_ = batch.tokens;
  const View x = view(x_, batch.tokens, config_.hidden_size);
  ops.embed(x, layout_.embed_table(), embedding_multiplier_, batch, queue);
  if (at_once_ && batch.tokens == 1) {
    const std::vector<DecodeLayer> layers = decode_layers();
    ops.decode_layers(decode_pass(layers, kv_layers), batch, queue);
    return;
  }
  for (size_t i = 0; i < layout_.layers.size(); ++i) {
    run_attention(i, x, batch, kv_layers[i], ops, queue);
    run_mlp(i, x, ops, queue);
  }
}

Matrix<float> Transformer::head(std::span<const int32_t> rows, const Ops& ops, Queue* queue) {
  const auto r = static_cast<int64_t>(rows.size());
  check(r <= limits_.logits_rows, "logits of no more rows than planned");
  bool all_in_order = r == tokens_;
  for (int64_t i = 0; i < r; ++i) {
    const int32_t row = rows[static_cast<size_t>(i)];
    check(row >= 0 && row < tokens_, "logits of a row of the last pass");
    all_in_order = all_in_order && row == i;
  }
  View picked = view(x_, tokens_, config_.hidden_size);
  if (!all_in_order) {
    picked = view(head_rows_, r, config_.hidden_size);
    ops.gather_rows(picked, view(x_, tokens_, config_.hidden_size), rows, queue);
  }
  const Activation normed = head_in_.forms(layout_.head.input, r);
  ops.rms_norm(normed, picked, layout_.final_norm.data, eps_, queue);
  const View out(reinterpret_cast<std::byte*>(logits_), kF32, r, config_.vocab_size);
  run_slot(layout_.head, normed, out, {}, ops, queue);
  if (logits_multiplier_ != 1 || config_.final_logit_softcapping > 0) {
    ops.cap_logits({logits_, r, config_.vocab_size}, logits_multiplier_,
                   static_cast<float>(config_.final_logit_softcapping), queue);
  }
  return {logits_, r, config_.vocab_size};
}

Matrix<const float> Transformer::logits(std::span<const int32_t> rows, const Ops& ops,
                                        Queue* queue) {
  const Matrix<float> out = head(rows, ops, queue);
  if (ops.host_memory) return out;
  host_logits_.resize(static_cast<size_t>(limits_.logits_rows * config_.vocab_size));
  ops.download(host_logits_.data(), logits_, out.rows * out.cols * 4, queue);
  return {host_logits_.data(), out.rows, out.cols};
}

void Transformer::record(size_t layer, LinearRole role, const Activation& in, const Ops& ops,
                         Queue* queue) const {
  if (recorded_ == nullptr) return;
  const View x = in.high;
  check(x.data != nullptr && x.stride == x.cols, "record_inputs: linears that read the run dtype");
  std::vector<std::byte> stored(static_cast<size_t>(x.rows * x.cols * x.elem->bits() / 8));
  ops.download(stored.data(), x.data, std::ssize(stored), queue);
  Model::LinearRows& out = recorded_->emplace_back();
  out = {.layer = static_cast<int64_t>(layer),
         .kind = std::string(layout_.architecture->linears[role].module),
         .rows = x.rows,
         .cols = x.cols,
         .values = std::vector<float>(static_cast<size_t>(x.rows * x.cols))};
  to_f32(ConstView(stored.data(), *x.elem, x.rows, x.cols), {out.values.data(), x.rows, x.cols});
}

Model::LinearRows Transformer::run_linear(size_t layer, LinearRole role,
                                          const Model::LinearRows& input, const Ops& ops,
                                          Queue* queue) {
  const Slot& slot = layout_.layers[layer].linears[role];
  check(input.cols == slot.cols, "run_linear: a row of the linear's inputs");
  // Memory of passes that holds as much: what is read and what is written are apart.
  const bool from_stream = role == kQkv || role == kGateUp;
  const ActivationBuffer& buffer = from_stream             ? hidden_
                                   : role == kAttentionOut ? attended_
                                                           : gated_;
  std::byte* const from = from_stream ? x_ : role == kAttentionOut ? qkv_ : gate_up_;
  std::byte* const to = role == kQkv ? qkv_ : role == kGateUp ? gate_up_ : x_;
  const View high = view(from, input.rows, slot.cols);
  const int64_t element = layout_.run_dtype->bits() / 8;
  std::vector<std::byte> stored(static_cast<size_t>(input.rows * slot.cols * element));
  from_f32({input.values.data(), input.rows, input.cols},
           View(stored.data(), *layout_.run_dtype, input.rows, input.cols));
  ops.upload(high.data, stored.data(), std::ssize(stored), queue);
  Formats codes = slot.input;
  codes.high = false;
  Activation in = buffer.forms(codes, input.rows);
  in.high = high;
  if (in.quantized_count > 0) ops.quantize_rows(in, queue);
  const View out = view(to, input.rows, slot.rows);
  run_slot(slot, in, out, {}, ops, queue);
  Model::LinearRows result{
      .layer = input.layer,
      .kind = input.kind,
      .rows = input.rows,
      .cols = slot.rows,
      .values = std::vector<float>(static_cast<size_t>(input.rows * slot.rows))};
  stored.resize(static_cast<size_t>(input.rows * slot.rows * element));
  ops.download(stored.data(), out.data, std::ssize(stored), queue);
  to_f32(ConstView(stored.data(), *layout_.run_dtype, input.rows, slot.rows),
         {result.values.data(), input.rows, slot.rows});
  return result;
}

bool Transformer::rows_share_scales() const {
  const auto shared = [](const Slot& slot) {
    return std::any_of(
        slot.input.quantized.begin(), slot.input.quantized.end(),
        [](const Spec& spec) { return spec.block.rows == kAll && spec.when == When::kPerCall; });
  };
  for (const Layer& layer : layout_.layers) {
    if (std::any_of(std::begin(layer.linears), std::end(layer.linears), shared)) return true;
  }
  return shared(layout_.head);
}

}  // namespace mantissa
