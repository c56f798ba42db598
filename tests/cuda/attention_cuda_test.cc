// Rotary embedding, cache writes and attention on the GPU against the reference: prefill, decode
// and both in one batch, over caches in every format; unused slots of pages hold NaN throughout.
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
  double spread = 1;
};
const Case kCases[] = {
    {"grouped, D 64", &kBF16, nullptr, false, 8, 2, 64, 16, 0, 0},
    {"grouped, D 128", &kBF16, nullptr, false, 8, 2, 128, 16, 0, 0},
    {"one group of 16", &kBF16, nullptr, false, 16, 1, 128, 16, 0, 0},
    {"one group of 17: no decode kernel", &kBF16, nullptr, false, 17, 1, 64, 16, 0, 0},
    {"groups of 3", &kBF16, nullptr, false, 6, 2, 64, 16, 0, 0},
    {"groups of 7", &kBF16, nullptr, false, 7, 1, 128, 16, 0, 0},
    {"groups of 8", &kBF16, nullptr, false, 16, 2, 64, 16, 0, 0},
    {"not grouped", &kBF16, nullptr, false, 3, 3, 128, 16, 0, 0},
    {"f16, D 64", &kF16, nullptr, false, 4, 2, 64, 16, 0, 0},
    {"f16", &kF16, nullptr, false, 8, 4, 128, 16, 0, 0},
    {"window", &kBF16, nullptr, false, 4, 2, 64, 16, 150, 0},
    {"window and cap", &kBF16, nullptr, false, 4, 2, 128, 16, 40, 20},
    {"huge scores", &kBF16, nullptr, false, 4, 2, 128, 16, 0, 0, 30},
    {"e4m3", &kBF16, &kE4M3, true, 8, 2, 128, 16, 0, 0},
    {"e4m3, one scale", &kBF16, &kE4M3, false, 8, 2, 64, 16, 0, 0},
    {"e4m3, window", &kBF16, &kE4M3, true, 4, 1, 64, 16, 17, 0},
    {"e5m2", &kBF16, &kE5M2, true, 4, 2, 64, 16, 0, 0},
    {"e5m2, cap", &kBF16, &kE5M2, true, 4, 2, 128, 16, 0, 30},
    {"int8", &kBF16, &int_elem(8), true, 4, 2, 64, 16, 0, 0},
    {"int8, D 128, groups of 16", &kBF16, &int_elem(8), true, 16, 1, 128, 16, 0, 0},
    {"f16 over e4m3", &kF16, &kE4M3, true, 4, 2, 64, 16, 0, 0},
    {"D 32", &kBF16, nullptr, false, 8, 4, 32, 16, 0, 0},
    {"D 96", &kBF16, nullptr, false, 4, 2, 96, 16, 0, 0},
    {"D 256", &kBF16, nullptr, false, 4, 2, 256, 16, 0, 0},
    {"pages of 8", &kBF16, nullptr, false, 4, 2, 64, 8, 0, 0},
    {"pages of 32", &kBF16, nullptr, false, 4, 2, 64, 32, 0, 0},
    {"pages of 5", &kBF16, &kE4M3, true, 4, 2, 64, 5, 0, 0},
    {"f32", &kF32, nullptr, false, 4, 2, 64, 16, 33, 0},
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

using Steps = std::vector<std::vector<SequenceShape>>;

// Both caches of one case, and the operations on both.
class Pair {
 public:
  Pair(const Case& c, const std::vector<int32_t>& lengths, const DeviceConfig& config)
      : c_(c),
        gpu_(kCudaOps, config),
        shape_(shape_of(c)),
        paged_(ref_.ops, shape_, lengths),
        layer_(paged_.layer),
        cache_(poisoned_cache(lengths)) {
    layer_.pages = cache_->as<std::byte>();
    params_ = {.heads = c.heads,
               .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
               .window = c.window,
               .soft_cap = c.soft_cap};
    rope_.rotary_dim = c.spread > 1 ? 0 : c.head_dim;
    for (int i = 0; i < c.head_dim / 2; ++i)
      inv_freq_.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  }

  Batch batch(const std::vector<SequenceShape>& step) { return paged_.batch(step); }
  int64_t width() const { return int64_t{c_.heads} * c_.head_dim; }
  int64_t qkv_width() const { return int64_t{c_.heads + 2 * c_.kv_heads} * c_.head_dim; }

  // qkv is rotated in place; -> {the reference's result, the GPU's}.
  std::pair<Tensor, Tensor> run(Tensor& qkv, const Batch& batch) {
    const GpuBatch on_gpu(gpu_, batch);
    const GpuTensor gpu_qkv(gpu_, qkv);
    const OnGpu gpu_freq(gpu_, inv_freq_.data(), static_cast<int64_t>(inv_freq_.size() * 4));
    RopeParams rope = rope_;
    rope.inv_freq = inv_freq_.data();
    ref_.ops.rope_write(qkv.view(), rope, params_, batch, paged_.layer, ref_.queue());
    rope.inv_freq = gpu_freq.as<float>();
    gpu_.ops.rope_write(gpu_qkv.view(), rope, params_, on_gpu.batch, layer_, gpu_.queue());
    Tensor want(*c_.run, batch.tokens, width());
    ref_.ops.attention(high_only(want.view()), qkv.view(), params_, batch, paged_.layer,
                       ref_.queue());
    const GpuTensor out(gpu_, poisoned(*c_.run, batch.tokens, width()));
    gpu_.ops.attention(high_only(out.view()), gpu_qkv.view(), params_, on_gpu.batch, layer_,
                       gpu_.queue());
    return {std::move(want), out.fetch()};
  }

 private:
  static KvShape shape_of(const Case& c) {
    KvShape shape;
    shape.layers = 1;
    shape.kv_heads = c.kv_heads;
    shape.head_dim = c.head_dim;
    shape.page_tokens = c.page_tokens;
    shape.elem = c.cell != nullptr ? c.cell : c.run;
    shape.scaled = c.scaled;
    shape.k_scale = c.cell != nullptr && !c.scaled ? 0.02f : 0;
    shape.v_scale = 1.5f * shape.k_scale;
    return shape;
  }
  std::unique_ptr<OnGpu> poisoned_cache(const std::vector<int32_t>& lengths) {
    int64_t pages = 0;
    for (const int32_t length : lengths) pages += (length + c_.page_tokens - 1) / c_.page_tokens;
    layer_.page_bytes = gpu_.ops.kv_page_bytes(shape_);
    const std::vector<std::byte> poison(static_cast<size_t>(pages * layer_.page_bytes),
                                        std::byte{0xff});
    return std::make_unique<OnGpu>(gpu_, poison.data(), static_cast<int64_t>(poison.size()));
  }

  const Case& c_;
  Device ref_{kRefOps, {.threads = 0}};
  Device gpu_;
  KvShape shape_;
  Paged paged_;
  KvLayer layer_;
  std::unique_ptr<OnGpu> cache_;
  AttentionParams params_;
  RopeParams rope_;
  std::vector<float> inv_freq_;
};

// Weights are rounded to the run dtype; values are about `spread`. A rotation that rounds the other
// way moves a code of the cache by one.
void check_close(const Case& c, const Tensor& want, const Tensor& got) {
  const double u = compare::unit_roundoff(*c.run);
  const double slack = c.cell != nullptr ? 0.1 : *c.run == kF32 ? 1e-4 : 4 * u * c.spread;
  std::vector<double> values, bound;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t d = 0; d < want.cols(); ++d) {
      values.push_back(want.at(r, d));
      bound.push_back(std::abs(values.back()) * u * 2.01 + slack);
    }
  }
  EXPECT_TRUE(compare::within(got.view(), values, bound));
  if (c.cell != nullptr || *c.run == kF32) return;
  const compare::Rms rms = compare::rms_of(got.view(), values);
  EXPECT_LE(rms.error, 4 * u * rms.value);
}

void run(const Case& c, const std::vector<int32_t>& lengths, const Steps& steps,
         const DeviceConfig& config) {
  SCOPED_TRACE(c.why);
  Pair pair(c, lengths, config);
  uint32_t seed = 1;
  for (const std::vector<SequenceShape>& step : steps) {
    SCOPED_TRACE(testing::Message() << "step " << seed);
    Batch batch = pair.batch(step);
    if (seed % 2 == 0)
      for (const SequenceShape& s : step) batch.query_max = std::max(batch.query_max, s.query);
    Tensor qkv(*c.run, batch.tokens, pair.qkv_width());
    qkv.fill(seed++, c.spread);
    const auto [want, got] = pair.run(qkv, batch);
    check_close(c, want, got);
  }
}

const std::vector<int32_t> kLengths = {75, 33, 420, 5};
const Steps kSteps = {{{60, 60}, {1, 1}, {380, 380}, {0, 0}},
                      {{1, 61}, {30, 31}, {2, 382}, {4, 4}},
                      {{1, 62}, {1, 32}, {1, 383}, {1, 5}},
                      {{0, 62}, {1, 33}, {2, 385}, {0, 5}},
                      {{13, 75}, {0, 33}, {35, 420}, {0, 5}}};

TEST_F(AttentionCuda, PrefillDecodeAndBoth) {
  for (const Case& c : kCases) run(c, kLengths, kSteps, {});
}

TEST_F(AttentionCuda, PortableKernels) {
  for (const Case& c : kCases)
    if (c.page_tokens == 16 && c.head_dim != 96) run(c, kLengths, kSteps, {.isa = "portable"});
}

// Contexts of many key tiles; decode's line of units cut in the midst of sequences, some of them
// without a token; then a chunk behind a long context.
TEST_F(AttentionCuda, LongAndMany) {
  const Case cases[] = {{"bf16", &kBF16, nullptr, false, 4, 2, 128, 16, 0, 0},
                        {"e4m3", &kBF16, &kE4M3, true, 4, 2, 128, 16, 0, 0},
                        {"window", &kBF16, nullptr, false, 4, 2, 64, 16, 700, 0}};
  for (const Case& c : cases) {
    std::vector<int32_t> lengths;
    Steps steps(4);
    for (int s = 0; s < 37; ++s) {
      const int prompt = s == 7 ? 1500 : s % 5 == 0 ? 0 : 1 + s * 13 % 260;
      steps[0].push_back({prompt, prompt});
      steps[1].push_back(prompt > 0 ? SequenceShape{1, prompt + 1} : SequenceShape{0, 0});
      steps[2].push_back(s == 7 ? SequenceShape{200, prompt + 201} : SequenceShape{0, prompt});
      if (s != 7 && prompt > 0) steps[2].back() = {1, prompt + 2};
      steps[3].push_back(s == 7 ? SequenceShape{1, prompt + 202} : SequenceShape{0, 0});
      lengths.push_back(prompt + 202);
    }
    run(c, lengths, steps, {});
  }
}

// Every Hopper kernel once, small enough for compute-sanitizer.
TEST_F(AttentionCuda, OneOfEach) {
  const Case cases[] = {{"bf16", &kBF16, nullptr, false, 8, 2, 128, 16, 0, 0},
                        {"bf16, D 64", &kBF16, nullptr, false, 4, 2, 64, 16, 20, 0},
                        {"e4m3", &kBF16, &kE4M3, true, 4, 2, 128, 16, 0, 0}};
  for (const Case& c : cases)
    run(c, {41, 3, 300}, {{{40, 40}, {1, 1}, {150, 150}}, {{1, 41}, {2, 3}, {1, 151}}}, {});
}

// Scores that single out one key: its weight is 1, every other one 0, so the result is the key's
// value, bit for bit. Finds a dropped, doubled or misplaced key or element.
TEST_F(AttentionCuda, SelectsOneKeyExactly) {
  for (Case c : kCases) {
    if (c.soft_cap > 0 || (c.cell != nullptr && !c.scaled)) continue;
    c.spread = 2;  // no rotation
    SCOPED_TRACE(c.why);
    Pair pair(c, kLengths, {});
    const double top = c.cell != nullptr ? max_value(*c.cell) : 448;  // scales are then 1
    std::mt19937 random(5);
    // [sequence][position]: signs of the key, shared by the heads.
    std::vector<std::vector<std::vector<double>>> keys(kLengths.size());
    for (const std::vector<SequenceShape>& step : kSteps) {
      const Batch batch = pair.batch(step);
      Tensor qkv(*c.run, batch.tokens, pair.qkv_width());
      int64_t t = 0;
      for (size_t s = 0; s < step.size(); ++s) {
        for (int i = 0; i < step[s].query; ++i, ++t) {
          const int position = step[s].context - step[s].query + i;
          keys[s].resize(static_cast<size_t>(position));
          std::vector<double> signs;
          for (int d = 0; d < c.head_dim; ++d) signs.push_back(random() % 2 == 0 ? 16 : -16);
          keys[s].push_back(signs);
          const int reach = c.window > 0 ? std::min(c.window, position + 1) : position + 1;
          for (int h = 0; h < c.heads; ++h) {
            const size_t target = static_cast<size_t>(
                position - static_cast<int>(random() % static_cast<uint32_t>(reach)));
            for (int d = 0; d < c.head_dim; ++d)
              qkv.set(t, h * c.head_dim + d, keys[s][target][static_cast<size_t>(d)]);
          }
          for (int h = 0; h < c.kv_heads; ++h) {
            for (int d = 0; d < c.head_dim; ++d) {
              const int k = (c.heads + h) * c.head_dim + d, v = k + c.kv_heads * c.head_dim;
              qkv.set(t, k, signs[static_cast<size_t>(d)]);
              qkv.set(t, v, d == 0 ? top : static_cast<double>(random() % 15) - 7);
            }
          }
        }
      }
      const auto [want, got] = pair.run(qkv, batch);
      std::vector<double> values;
      for (int64_t r = 0; r < want.rows(); ++r)
        for (int64_t d = 0; d < want.cols(); ++d) values.push_back(want.at(r, d));
      EXPECT_TRUE(compare::within(got.view(), values, std::vector<double>(values.size(), 0.0)));
    }
  }
}

}  // namespace
}  // namespace mantissa
