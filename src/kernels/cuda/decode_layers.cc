// `decode_layers`: which models' layers the persistent kernel takes, and its arguments.
#include "kernels/cuda/decode_layers.h"

#include <algorithm>

#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/linear_call.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

LayerLinear layer_linear(const DecodeLinear& linear) {
  const Weight& w = *linear.weight;
  const WeightLayout l(w.request);
  const auto at = [&](int64_t offset) { return w.data + offset; };
  return {.w = reinterpret_cast<const unsigned char*>(at(l.codes)),
          .w_scale = l.groups > 0 ? at(l.scales) : nullptr,
          .w_global = w.request.scheme.weight.global_scale
                          ? reinterpret_cast<const float*>(at(l.globals))
                          : nullptr,
          .bias = linear.bias,
          .x_scale = linear.static_scale};
}

RoleShape role_shape(const Weight& w) {
  const WeightLayout l(w.request);
  return {.n = static_cast<int>(l.rows),
          .k = static_cast<int>(l.cols),
          .row_bytes = l.row_bytes,
          .group_cols = l.group_cols};
}

template <class T>
T* run_values(const View& v) {
  return reinterpret_cast<T*>(v.data);
}

RowExchange row_exchange(const RoleShape (&roles)[kDecodeLinears], std::byte* memory) {
  RowExchange rows{};
  rows.ended = reinterpret_cast<unsigned*>(memory);
  rows.words = reinterpret_cast<uint32_t*>(memory + kEndedBytes);
  const int cols[kExchangedRows] = {roles[kDecodeQkv].n, roles[kDecodeOut].n,
                                    roles[kDecodeGateUp].n / 2, roles[kDecodeDown].n,
                                    roles[kDecodeOut].k};
  for (int r = 0; r < kExchangedRows; ++r) {
    rows.at[r] = rows.layer_words;
    rows.layer_words += (cols[r] + 63) / 64 * 32;  // lines of 128 bytes
  }
  return rows;
}

// Everything but the layers and the batch.
DecodeArgs model_args(const DecodePass& pass, const GemvFormats& formats, const CudaQueue& queue) {
  const DecodeLayer& first = pass.layers[0];
  const Spec& input = first.linears[0].weight->request.scheme.activation;
  const AttentionState state = attention_state(queue);
  DecodeArgs d{};
  for (int r = 0; r < kDecodeLinears; ++r) d.roles[r] = role_shape(*first.linears[r].weight);
  d.weight = formats.weight;
  d.input = formats.input;
  d.x_over_tensor = input.quantized() && input.block.rows == kAll;
  d.x_static = input.quantized() && input.when == When::kStatic;
  d.gate = pass.gate;
  d.eps = pass.eps;
  d.x = run_values<__nv_bfloat16>(pass.x);
  d.rows = row_exchange(d.roles, queue.decode_rows.get());
  d.inv_freq = first.rope.inv_freq;
  d.rope_half = first.rope.rotary_dim / 2;
  d.rope_factor = first.rope.attention_factor;
  d.attention.heads = first.attention.heads;
  d.attention.sequences = 1;
  d.attention.scale = first.attention.scale;
  d.attention.soft_cap = first.attention.soft_cap;
  d.cache = cache_of(pass.kv[0]);
  d.part_tops = state.tops;
  d.part_sums = state.sums;
  d.part_arrivals = state.arrivals;
  return d;
}

bool same_linear(const DecodeLinear& a, const DecodeLinear& b) {
  const WeightRequest &x = a.weight->request, &y = b.weight->request;
  return x.scheme.weight == y.scheme.weight && x.scheme.activation == y.scheme.activation &&
         x.rows == y.rows && x.cols == y.cols;
}
bool same_layer(const DecodeLayer& a, const DecodeLayer& b) {
  for (int r = 0; r < kDecodeLinears; ++r)
    if (!same_linear(a.linears[r], b.linears[r])) return false;
  return a.rope.inv_freq == b.rope.inv_freq && a.rope.rotary_dim == b.rope.rotary_dim &&
         a.rope.attention_factor == b.rope.attention_factor &&
         a.attention.heads == b.attention.heads && a.attention.scale == b.attention.scale &&
         a.attention.soft_cap == b.attention.soft_cap;
}

}  // namespace

DeviceMemory make_decode_rows() {
  DeviceMemory memory = allocate_device(kEndedBytes + kExchangeBytes, "rows between the layers");
  cuda_check(cudaMemset(memory.get(), 0, kEndedBytes), "clearing rows between the layers");
  cuda_check(cudaMemset(memory.get() + kEndedBytes, 0xff, kExchangeBytes),
             "clearing rows between the layers");
  cuda_check(cudaStreamSynchronize(nullptr), "clearing rows between the layers");
  return memory;
}

KernelInfo decode_kernel(const CudaQueue& queue) {
  return {
      "decode_layers__sm90", "decode_layers",
      "sm_90a; one token; bf16; bf16, e4m3 (per row, or in tiles of 128 x 128), int8, int4 (groups "
      "of multiples of 128, symmetric), MXFP4 or NVFP4 weights; head sizes 64, 128; KV cache of "
      "bf16, pages of 16",
      queue.capability / 10 != 9 ? "needs a GPU of sm_90"
      : queue.portable_only      ? "not with --isa portable"
                                 : "runs"};
}

std::string decode_why_not(const DecodePass& pass, Queue* queue) {
  const CudaQueue& q = cuda_queue(queue);
  if (const KernelInfo kernel = decode_kernel(q); kernel.status != "runs") return kernel.status;
  if (pass.layers.empty()) return "no layers";
  const DecodeLayer& first = pass.layers[0];
  const WeightRequest& request = first.linears[0].weight->request;
  const Scheme& scheme = request.scheme;
  if (!(*request.run_dtype == kBF16)) return "the run dtype is not bfloat16";
  const std::optional<GemvFormats> formats = gemv_formats(request);
  if (!formats) return text("scheme ", scheme.name);
  if (scheme.activation.asymmetric || scheme.weight.asymmetric) return "zero points";
  for (const DecodeLinear& linear : first.linears) {
    const Scheme& other = linear.weight->request.scheme;
    if (other.weight != scheme.weight || other.activation != scheme.activation)
      return "linears of several schemes";
  }
  for (const DecodeLayer& layer : pass.layers)
    if (!same_layer(layer, first)) return "layers that differ in scheme, shape or RoPE";
  for (const KvLayer& kv : pass.kv)
    if (!(*kv.shape.elem == kBF16)) return "a KV cache of another format than bfloat16";
  return decode_layers_sm90_why_not(model_args(pass, *formats, q));
}

void decode_layers(const DecodePass& pass, const Batch& batch, Queue* queue) {
  check(batch.tokens == 1 && batch.sequences == 1, "a pass of one token");
  const CudaQueue& q = cuda_queue(queue);
  DecodeArgs d = model_args(pass, *gemv_formats(pass.layers[0].linears[0].weight->request), q);
  d.attention.query_start = batch.query_start;
  d.attention.context_len = batch.context_len;
  d.attention.block_table = batch.block_table;
  d.attention.block_table_stride = batch.block_table_stride;
  d.positions = batch.positions;
  d.slots = batch.slots;
  const size_t most = std::min<size_t>(kDecodeLayersMax, kExchangeBytes / 4 / d.rows.layer_words);
  for (size_t begin = 0; begin < pass.layers.size(); begin += most) {
    const size_t count = std::min(most, pass.layers.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      const DecodeLayer& layer = pass.layers[begin + i];
      LayerArgs& to = d.layers[i];
      for (int r = 0; r < kDecodeLinears; ++r) to.linears[r] = layer_linear(layer.linears[r]);
      to.attention_gain = layer.attention_gain;
      to.mlp_gain = layer.mlp_gain;
      to.pages = reinterpret_cast<unsigned char*>(pass.kv[begin + i].pages);
      to.window = layer.attention.window;
    }
    d.layer_count = static_cast<int>(count);
    decode_layers__sm90(d, q.stream.get());
  }
}

}  // namespace mantissa::cuda
