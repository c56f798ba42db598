#include "model/transformer.h"

#include <cmath>

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
      q.global_scale = given.global_scale;
      if (given.spec.global_scale) continue;
      q.scales.data = given.scale;
      q.zero_points.data = given.spec.asymmetric ? given.zero_point : nullptr;
    }
  }
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
      q.global_scale = form.global_scale;
    }
  }
  point_at_statics(wanted, a);
  return a;
}

Transformer::Transformer(const ModelLayout& layout, const ModelConfig& config,
                         TransformerLimits limits)
    : layout_(layout), config_(config), limits_(limits) {
  const auto head_dim = static_cast<int32_t>(config.head_dim);
  attention_ = {.heads = static_cast<int32_t>(config.num_attention_heads),
                .scale = 1 / std::sqrt(static_cast<float>(head_dim))};
  rope_ = {.inv_freq = nullptr, .rotary_dim = head_dim};
  qkv_cols_ = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;

  constexpr LinearRole kFromNorm[] = {kQkv, kGateUp};
  constexpr LinearRole kFromAttention[] = {kAttentionOut};
  constexpr LinearRole kFromGate[] = {kDown};
  const Elem& run = *layout.run_dtype;
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
  const int64_t per_token = config_.hidden_size + qkv_cols_ + 2 * config_.intermediate_size;
  return hidden_.bytes() + attended_.bytes() + gated_.bytes() + head_in_.bytes() +
         limits_.tokens * per_token * element + 3 * Arena::kAlign +
         Arena::padded(limits_.logits_rows * config_.hidden_size * element) +
         Arena::padded(limits_.logits_rows * config_.vocab_size * 4) +
         Arena::padded(static_cast<int64_t>(layout_.inv_freq.size()) * 4);
}

void Transformer::place(Arena& arena, const Ops& ops, Queue* queue) {
  const int64_t element = layout_.run_dtype->bits() / 8;
  for (ActivationBuffer* buffer : {&hidden_, &attended_, &gated_, &head_in_}) buffer->place(arena);
  x_ = arena.take(limits_.tokens * config_.hidden_size * element);
  qkv_ = arena.take(limits_.tokens * qkv_cols_ * element);
  gate_up_ = arena.take(limits_.tokens * 2 * config_.intermediate_size * element);
  head_rows_ = arena.take(limits_.logits_rows * config_.hidden_size * element);
  logits_ = arena.take_array<float>(limits_.logits_rows * config_.vocab_size);
  inv_freq_ = arena.take_array<float>(static_cast<int64_t>(layout_.inv_freq.size()));
  rope_.inv_freq = inv_freq_;
  ops.upload(inv_freq_, layout_.inv_freq.data(), static_cast<int64_t>(layout_.inv_freq.size()) * 4,
             queue);
  if (!ops.host_memory)
    host_logits_.resize(static_cast<size_t>(limits_.logits_rows * config_.vocab_size));
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

void Transformer::forward(const Batch& batch, std::span<const KvLayer> kv_layers, const Ops& ops,
                          Queue* queue) {
  tokens_ = batch.tokens;
  const int64_t t = batch.tokens;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const View x = view(x_, t, config_.hidden_size);
  const View qkv = view(qkv_, t, qkv_cols_);
  const View gate_up = view(gate_up_, t, 2 * config_.intermediate_size);

  ops.embed(x, layout_.embed_table(), batch, queue);
  for (size_t i = 0; i < layout_.layers.size(); ++i) {
    const Layer& layer = layout_.layers[i];
    const Slot* slots = layer.linears;

    const Activation attention_in = hidden_.forms(slots[kQkv].input, t);
    ops.rms_norm(attention_in, x, layer.attention_norm.data, eps, queue);
    run_slot(slots[kQkv], attention_in, qkv, {}, ops, queue);
    ops.rope_write(qkv, rope_, attention_, batch, kv_layers[i], queue);
    Formats attended = slots[kAttentionOut].input;
    attended.high = true;
    const Activation attention_out = attended_.forms(attended, t);
    ops.attention(attention_out, qkv, attention_, batch, kv_layers[i], queue);
    run_slot(slots[kAttentionOut], attention_out, x, x, ops, queue);

    const Activation mlp_in = hidden_.forms(slots[kGateUp].input, t);
    ops.rms_norm(mlp_in, x, layer.mlp_norm.data, eps, queue);
    run_slot(slots[kGateUp], mlp_in, gate_up, {}, ops, queue);
    const Activation gated = gated_.forms(slots[kDown].input, t);
    ops.gate(gated, gate_up, layout_.gate, queue);
    run_slot(slots[kDown], gated, x, x, ops, queue);
  }
}

Matrix<const float> Transformer::logits(std::span<const int32_t> rows, const Ops& ops,
                                        Queue* queue) {
  const auto r = static_cast<int64_t>(rows.size());
  check(r <= limits_.logits_rows, "logits of no more rows than planned");
  for (const int32_t row : rows)
    check(row >= 0 && row < tokens_, "logits of a row of the last pass");
  const View picked = view(head_rows_, r, config_.hidden_size);
  ops.gather_rows(picked, view(x_, tokens_, config_.hidden_size), rows, queue);
  const Activation normed = head_in_.forms(layout_.head.input, r);
  ops.rms_norm(normed, picked, layout_.final_norm.data, static_cast<float>(config_.rms_norm_eps),
               queue);
  const View out(reinterpret_cast<std::byte*>(logits_), kF32, r, config_.vocab_size);
  run_slot(layout_.head, normed, out, {}, ops, queue);
  if (ops.host_memory) return {logits_, r, config_.vocab_size};
  ops.download(host_logits_.data(), logits_, r * config_.vocab_size * 4, queue);
  return {host_logits_.data(), r, config_.vocab_size};
}

}  // namespace mantissa
