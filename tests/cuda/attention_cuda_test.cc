// Rotary embedding, cache writes and attention on the GPU against the reference: prefill, decode
// and both in one batch, over caches in every format.
#include "gpu.h"

namespace mantissa {
namespace {

struct Case {
  const char* why;
  const Elem* run;
  const Elem* cell;  // nullptr: the run dtype
  bool scaled;
  int heads, kv_heads, head_dim, page_tokens;
  int window;
  float soft_cap;
};
const Case kCases[] = {
    {"grouped, D 64", &kBF16, nullptr, false, 8, 2, 64, 16, 0, 0},
    {"grouped, D 128", &kBF16, nullptr, false, 8, 2, 128, 16, 0, 0},
    {"one group of 16", &kBF16, nullptr, false, 16, 1, 128, 32, 0, 0},
    {"groups of 3", &kBF16, nullptr, false, 6, 2, 64, 16, 0, 0},
    {"not grouped", &kF16, nullptr, false, 2, 2, 64, 64, 0, 0},
    {"f16", &kF16, nullptr, false, 8, 4, 128, 16, 0, 0},
    {"window and cap", &kBF16, nullptr, false, 4, 2, 128, 16, 40, 20},
    {"e4m3", &kBF16, &kE4M3, true, 8, 2, 128, 16, 0, 0},
    {"e4m3, one scale", &kBF16, &kE4M3, false, 8, 2, 64, 16, 0, 0},
    {"e4m3, window", &kBF16, &kE4M3, true, 4, 1, 64, 16, 17, 0},
    {"e5m2", &kBF16, &kE5M2, true, 4, 2, 64, 16, 0, 0},
    {"int8", &kBF16, &int_elem(8), true, 4, 2, 64, 16, 0, 0},
    {"portable: D 32", &kBF16, nullptr, false, 8, 4, 32, 16, 0, 0},
    {"portable: pages of 8", &kBF16, nullptr, false, 4, 2, 64, 8, 0, 0},
    {"portable: f32", &kF32, nullptr, false, 4, 2, 64, 16, 33, 0},
};

class AttentionCuda : public GpuTest {};

// The batch with its arrays on the device.
struct GpuBatch {
  GpuBatch(const Device& gpu, const Batch& host)
      : positions(gpu, host.positions, int64_t{host.tokens} * 4),
        slots(gpu, host.slots, int64_t{host.tokens} * 4),
        starts(gpu, host.query_start, int64_t{host.sequences + 1} * 4),
        contexts(gpu, host.context_len, int64_t{host.sequences} * 4),
        table(gpu, host.block_table, host.sequences * host.block_table_stride * 4),
        batch(host) {
    batch.positions = positions.as<int32_t>();
    batch.slots = slots.as<int32_t>();
    batch.query_start = starts.as<int32_t>();
    batch.context_len = contexts.as<int32_t>();
    batch.block_table = table.as<int32_t>();
  }
  OnGpu positions, slots, starts, contexts, table;
  Batch batch;
};

void run(const Case& c) {
  SCOPED_TRACE(c.why);
  const Device ref(kRefOps), gpu(kCudaOps, {});
  const std::vector<int32_t> lengths = {75, 33, 700, 5};
  KvShape shape;
  shape.layers = 1;
  shape.kv_heads = c.kv_heads;
  shape.head_dim = c.head_dim;
  shape.page_tokens = c.page_tokens;
  shape.elem = c.cell != nullptr ? c.cell : c.run;
  shape.scaled = c.scaled;
  shape.k_scale = c.cell != nullptr && !c.scaled ? 0.02f : 0;
  shape.v_scale = 1.5f * shape.k_scale;
  Paged paged(ref.ops, shape, lengths);
  int64_t pages = 0;
  for (const int32_t length : lengths) pages += (length + c.page_tokens - 1) / c.page_tokens;
  KvLayer layer = paged.layer;
  layer.page_bytes = gpu.ops.kv_page_bytes(shape);
  const std::vector<std::byte> poison(static_cast<size_t>(pages * layer.page_bytes),
                                      std::byte{0xff});
  const OnGpu cache(gpu, poison.data(), static_cast<int64_t>(poison.size()));
  layer.pages = cache.as<std::byte>();

  std::vector<float> inv_freq;
  for (int i = 0; i < c.head_dim / 2; ++i)
    inv_freq.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  const OnGpu gpu_freq(gpu, inv_freq.data(), static_cast<int64_t>(inv_freq.size() * 4));
  RopeParams rope{.inv_freq = inv_freq.data(), .rotary_dim = c.head_dim, .attention_factor = 1};
  RopeParams gpu_rope = rope;
  gpu_rope.inv_freq = gpu_freq.as<float>();
  const AttentionParams params{.heads = c.heads,
                               .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                               .window = c.window,
                               .soft_cap = c.soft_cap};
  const std::vector<std::vector<SequenceShape>> steps = {{{60, 60}, {1, 1}, {650, 650}, {0, 0}},
                                                         {{1, 61}, {30, 31}, {2, 652}, {4, 4}},
                                                         {{1, 62}, {1, 32}, {1, 653}, {1, 5}},
                                                         {{13, 75}, {1, 33}, {47, 700}, {0, 5}}};
  uint32_t seed = 1;
  for (const std::vector<SequenceShape>& step : steps) {
    const Batch batch = paged.batch(step);
    const GpuBatch on_gpu(gpu, batch);
    Tensor qkv(*c.run, batch.tokens, int64_t{c.heads + 2 * c.kv_heads} * c.head_dim);
    qkv.fill(seed++);
    const GpuTensor gpu_qkv(gpu, qkv);
    ref.ops.rope_write(qkv.view(), rope, params, batch, paged.layer, ref.queue());
    gpu.ops.rope_write(gpu_qkv.view(), gpu_rope, params, on_gpu.batch, layer, gpu.queue());
    const int64_t width = int64_t{c.heads} * c.head_dim;
    Tensor want(*c.run, batch.tokens, width);
    ref.ops.attention(high_only(want.view()), qkv.view(), params, batch, paged.layer, ref.queue());
    const GpuTensor out(gpu, poisoned(*c.run, batch.tokens, width));
    gpu.ops.attention(high_only(out.view()), gpu_qkv.view(), params, on_gpu.batch, layer,
                      gpu.queue());
    // Weights are rounded to the run dtype; values are about 1. A rotation that rounds the other
    // way moves a code of the cache by one.
    const double slack = c.cell != nullptr ? 0.1
                         : *c.run == kF32  ? 1e-4
                                           : 4 * compare::unit_roundoff(*c.run);
    std::vector<double> values, bound;
    for (int64_t r = 0; r < batch.tokens; ++r) {
      for (int64_t d = 0; d < width; ++d) {
        values.push_back(want.at(r, d));
        bound.push_back(std::abs(values.back()) * compare::unit_roundoff(*c.run) * 2.01 + slack);
      }
    }
    EXPECT_TRUE(compare::within(out.fetch().view(), values, bound)) << "step " << seed - 1;
  }
}

TEST_F(AttentionCuda, PrefillDecodeAndBoth) {
  for (const Case& c : kCases) run(c);
}

}  // namespace
}  // namespace mantissa
