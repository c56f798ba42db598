// decode_layers (all layers of one token in one kernel) against the same layers operation by
// operation on the GPU: linears, norms and codes sum and round alike, so results are equal bit for
// bit as long as attention adds up one page; longer contexts are cut among warps and blocks
// differently, which moves last bits of float32 sums before they are rounded.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <random>

#include "gpu.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight.h"
#include "quant/scheme.h"

namespace mantissa {
namespace {

class DecodeLayersCuda : public GpuTest {};

struct Shape {
  int hidden, inner, heads, kv_heads, head_dim, rotary;
  bool bias;
  int middle_window;  // of every second of three layers; the others see everything
  const char* why;
};
constexpr Shape kShapes[] = {
    {512, 1024, 4, 2, 128, 128, false, 0, "a model of head size 128"},
    {512, 1536, 16, 2, 64, 64, true, 0, "eight query heads a KV head, biases"},
    {256, 768, 4, 1, 64, 32, false, 24, "fewer tiles than blocks, part of a head rotated, window"},
    {4608, 512, 4, 1, 128, 128, false, 24, "rows of more than one unit a thread, ragged shares"},
};

constexpr int kLayers = 3, kPageTokens = 16;

// Weights of random codes with scales that keep results near 1.
class RandomWeight {
 public:
  RandomWeight(const Device& gpu, const Scheme& scheme, int rows, int cols, std::mt19937& random)
      : weight_(gpu.ops.plan_weight(
            {.name = "test", .scheme = scheme, .run_dtype = &kBF16, .rows = rows, .cols = cols},
            gpu.queue())) {
    const cuda::WeightLayout l(weight_.request);
    std::vector<std::byte> bytes(static_cast<size_t>(l.bytes));
    const double spread = 1 / std::sqrt(static_cast<double>(cols));
    std::normal_distribution<float> normal(0, static_cast<float>(spread));
    if (l.groups == 0) {
      auto* values = reinterpret_cast<uint16_t*>(bytes.data());
      for (int64_t i = 0; i < l.rows * l.cols; ++i)
        values[i] = static_cast<uint16_t>(encode(kBF16, normal(random), false));
    } else {
      const bool e4m3 = *scheme.weight.elem == kE4M3;
      for (int64_t i = 0; i < l.rows * l.row_bytes; ++i) {
        auto code = static_cast<unsigned char>(random());
        if (e4m3 && code % 128 == 127) code = 0;  // NaN
        bytes[static_cast<size_t>(i)] = std::byte{code};
      }
      const bool e2m1 = *scheme.weight.elem == kE2M1;
      const double code_rms = e4m3 ? 120 : l.code_bits == 8 ? 74 : e2m1 ? 2.9 : 4.6;
      std::uniform_real_distribution<double> scale(0.5 * spread / code_rms, spread / code_rms);
      for (int64_t i = 0; i < l.rows * l.groups; ++i) {
        double value = scale(random);
        if (*scheme.weight.scale == kE8M0) value = std::exp2(std::floor(std::log2(value)));
        if (*scheme.weight.scale == kE4M3) value = static_cast<double>(8 + random() % 8) / 16;
        if (cuda::is_byte(l.scale_form)) {
          const int64_t at = cuda::byte_scale_at(i / l.groups, static_cast<int>(i % l.groups),
                                                 l.scale_blocks, l.group_cols);
          bytes[static_cast<size_t>(l.scales + at)] =
              static_cast<std::byte>(encode(*scheme.weight.scale, value, false));
        } else if (l.scale_form == cuda::ScaleForm::kF32) {
          const int64_t at = cuda::scale_at(i / l.groups, static_cast<int>(i % l.groups),
                                            l.scale_rows, l.scale_pitch);
          reinterpret_cast<float*>(bytes.data() + l.scales)[at] = static_cast<float>(value);
        } else {
          reinterpret_cast<uint16_t*>(bytes.data() + l.scales)[i] =
              static_cast<uint16_t>(encode(kBF16, value, false));
        }
      }
    }
    if (scheme.weight.global_scale) {
      for (int64_t i = 0; i < l.rows; ++i)
        reinterpret_cast<float*>(bytes.data() + l.globals)[i] = static_cast<float>(spread / 2.9);
    }
    memory_.emplace(gpu, bytes.data(), l.bytes);
    weight_.data = memory_->as<std::byte>();
  }
  const Weight& get() const { return weight_; }

 private:
  Weight weight_;
  std::optional<OnGpu> memory_;
};

std::vector<float> random_floats(int64_t count, float mean, float spread, std::mt19937& random) {
  std::normal_distribution<float> normal(mean, spread);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = normal(random);
  return out;
}

// A model's layers, a token's batch and the memory of both. Of more than kLayers layers each has
// the weights of the one kLayers before.
class Problem {
 public:
  Problem(const Device& gpu, const Scheme& scheme, const Shape& s, int layers = kLayers)
      : gpu_(gpu), s_(s), scheme_(scheme) {
    const int qkv_cols = (s.heads + 2 * s.kv_heads) * s.head_dim;
    const int sizes[kDecodeLinears][2] = {{qkv_cols, s.hidden},
                                          {s.hidden, s.heads * s.head_dim},
                                          {2 * s.inner, s.hidden},
                                          {s.hidden, s.inner}};
    std::vector<float> inv_freq;
    for (int i = 0; i < s.rotary / 2; ++i)
      inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(s.rotary)));
    const float* frequencies = floats(inv_freq);
    const float* static_scale = floats({0.02f});
    for (int i = 0; i < kLayers; ++i) {
      DecodeLayer& layer = layers_.emplace_back();
      for (int r = 0; r < kDecodeLinears; ++r) {
        weights_.emplace_back(gpu, scheme, sizes[r][0], sizes[r][1], random_);
        layer.linears[r].weight = &weights_.back().get();
        layer.linears[r].static_scale = static_scale;
        if (s.bias) layer.linears[r].bias = floats(random_floats(sizes[r][0], 0, 0.1f, random_));
      }
      layer.attention_gain = floats(random_floats(s.hidden, 1, 0.2f, random_));
      layer.mlp_gain = floats(random_floats(s.hidden, 1, 0.2f, random_));
      layer.attention = {.heads = s.heads,
                         .scale = 1 / std::sqrt(static_cast<float>(s.head_dim)),
                         .window = i % 2 == 1 ? s.middle_window : 0};
      layer.rope = {.inv_freq = frequencies, .rotary_dim = s.rotary};
    }
    for (int i = kLayers; i < layers; ++i)
      layers_.push_back(layers_[static_cast<size_t>(i % kLayers)]);
    shape_ = {.layers = layers,
              .kv_heads = s.kv_heads,
              .head_dim = s.head_dim,
              .page_tokens = kPageTokens,
              .elem = &kBF16};
    x_ = Tensor(kBF16, 1, s.hidden);
    x_.fill(7);
  }

  // A token at position context - 1.
  void set_context(int context) {
    pages_ = (context + kPageTokens - 1) / kPageTokens;
    // Pages in no order; slots behind the context hold NaN.
    std::vector<int32_t> table;
    for (int p = 0; p < pages_; ++p) table.push_back(pages_ - p);
    const int last = context - 1, slot = table.back() * kPageTokens + last % kPageTokens;
    const std::vector<int32_t> ints = {last, slot, 0, 1, context};
    ints_.emplace(gpu_, ints.data(), std::ssize(ints) * 4);
    table_.emplace(gpu_, table.data(), std::ssize(table) * 4);
    batch_ = {.tokens = 1,
              .sequences = 1,
              .query_max = 1,
              .positions = ints_->as<int32_t>(),
              .slots = ints_->as<int32_t>() + 1,
              .query_start = ints_->as<int32_t>() + 2,
              .context_len = ints_->as<int32_t>() + 4,
              .block_table = table_->as<int32_t>(),
              .block_table_stride = pages_};
    cache_ = Tensor(kBF16, shape_.layers * (pages_ + 1), gpu_.ops.kv_page_bytes(shape_) / 2);
    cache_.fill(8);
    hide_unwritten(table.back(), last % kPageTokens);
  }

  // NaN of every kind, also the one that stands for a word that is not there.
  void set_stream_to_nan() { std::memset(x_.data(), 0xff, static_cast<size_t>(x_.size())); }

  // The stream after the layers, the caches.
  struct Result {
    Tensor x, cache;
  };
  Result at_once() {
    Run run(*this);
    const DecodePass pass = run.pass();
    EXPECT_EQ(gpu_.ops.decode_why_not(pass, gpu_.queue()), "");
    gpu_.ops.decode_layers(pass, batch_, gpu_.queue());
    Result result = run.result();
    expect_cleared_rows();
    return result;
  }
  Result by_operation() {
    Run run(*this);
    const DecodePass pass = run.pass();
    for (size_t i = 0; i < layers_.size(); ++i) run_layer(run, layers_[i], pass.kv[i]);
    return run.result();
  }

 private:
  // Between launches every word of the exchanged rows is one that is not there.
  void expect_cleared_rows() const {
    std::vector<std::byte> rows(cuda::kEndedBytes + cuda::kExchangeBytes);
    gpu_.ops.download(rows.data(), cuda::cuda_queue(gpu_.queue()).decode_rows.get(),
                      std::ssize(rows), gpu_.queue());
    unsigned ended;
    std::memcpy(&ended, rows.data(), sizeof ended);
    EXPECT_EQ(ended, 0u);
    const auto words = rows.begin() + cuda::kEndedBytes;
    EXPECT_EQ(std::count(words, rows.end(), std::byte{0xff}), cuda::kExchangeBytes);
  }

  struct Run {
    explicit Run(Problem& p)
        : p(p),
          x(p.gpu_, p.x_),
          cache(p.gpu_, p.cache_),
          qkv(p.gpu_, poisoned(kBF16, 1, (p.s_.heads + 2 * p.s_.kv_heads) * p.s_.head_dim)),
          hidden(p.gpu_, poisoned(kBF16, 1, p.s_.hidden)),
          attended(p.gpu_, poisoned(kBF16, 1, p.s_.heads * p.s_.head_dim)),
          gate_up(p.gpu_, poisoned(kBF16, 1, 2 * p.s_.inner)),
          gated(p.gpu_, poisoned(kBF16, 1, p.s_.inner)) {
      const int64_t bytes = p.gpu_.ops.kv_page_bytes(p.shape_);
      for (int i = 0; i < p.shape_.layers; ++i)
        kv.push_back({p.shape_, cache.view().data + i * (p.pages_ + 1) * bytes, bytes});
    }
    DecodePass pass() const {
      return {.layers = p.layers_, .kv = kv, .gate = GateFn::kSilu, .eps = 1e-5f, .x = x.view()};
    }
    Result result() const { return {x.fetch(), cache.fetch()}; }
    Problem& p;
    GpuTensor x, cache, qkv, hidden, attended, gate_up, gated;
    std::vector<KvLayer> kv;
  };

  // `high` in the form that the scheme reads.
  struct Forms {
    Forms(const Device& gpu, const Scheme& scheme, View high, const float* static_scale)
        : codes(gpu, Codes(scheme.activation.quantized() ? scheme.activation : Spec{}, 1,
                           scheme.activation.quantized() ? high.cols : 0)) {
      all.high = high;
      if (!scheme.activation.quantized()) return;
      all.quantized[all.quantized_count++] = codes.view();
      if (scheme.activation.when == When::kStatic)
        all.quantized[0].scales.data = const_cast<float*>(static_scale);
    }
    GpuCodes codes;
    Activation all;
  };

  void linear(View out, const Forms& in, const DecodeLinear& l, bool joins) const {
    Epilogue e{.bias = l.bias};
    if (joins) e.residual = out;
    gpu_.ops.linear(out, in.all, *l.weight, e, gpu_.queue());
  }
  void run_layer(const Run& run, const DecodeLayer& layer, const KvLayer& kv) const {
    const Ops& ops = gpu_.ops;
    Queue* q = gpu_.queue();
    const float* given = layer.linears[0].static_scale;
    const Forms hidden(gpu_, scheme_, run.hidden.view(), given);
    const Forms attended(gpu_, scheme_, run.attended.view(), given);
    const Forms gated(gpu_, scheme_, run.gated.view(), given);
    const View x = run.x.view();
    ops.rms_norm(hidden.all, x, layer.attention_gain, 1e-5f, q);
    linear(run.qkv.view(), hidden, layer.linears[kDecodeQkv], false);
    ops.rope_write(run.qkv.view(), layer.rope, layer.attention, batch_, kv, q);
    ops.attention(attended.all, run.qkv.view(), layer.attention, batch_, kv, q);
    linear(x, attended, layer.linears[kDecodeOut], true);
    ops.rms_norm(hidden.all, x, layer.mlp_gain, 1e-5f, q);
    linear(run.gate_up.view(), hidden, layer.linears[kDecodeGateUp], false);
    ops.gate(gated.all, run.gate_up.view(), GateFn::kSilu, q);
    linear(x, gated, layer.linears[kDecodeDown], true);
    Tensor wait(kBF16, 1, s_.hidden);  // the forms' memory goes
    ops.download(wait.data(), x.data, wait.size(), q);
  }

  const float* floats(const std::vector<float>& host) {
    floats_.push_back(std::make_unique<OnGpu>(gpu_, host.data(), std::ssize(host) * 4));
    return floats_.back()->as<float>();
  }
  // NaN into every cell of the last page from `first` on, of all layers.
  void hide_unwritten(int page, int first) {
    const int row_bytes = s_.head_dim * 2, chunk = 128, half = kPageTokens * row_bytes;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      std::byte* at = cache_.data() + (layer * (pages_ + 1) + page) * cache_.cols() * 2;
      for (int h = 0; h < 2 * s_.kv_heads; ++h) {
        for (int row = first; row < kPageTokens; ++row) {
          for (int b = 0; b < row_bytes; ++b) {
            int cell =
                (row / 8 * row_bytes + b / chunk * chunk + row % 8 * (chunk / 8)) * 8 + b % chunk;
            cell ^= (cell >> 7 & (chunk / 16 - 1)) << 4;
            at[h * half + cell] = std::byte{0xff};
          }
        }
      }
    }
  }

  const Device& gpu_;
  Shape s_;
  Scheme scheme_;
  int pages_ = 0;
  std::mt19937 random_{11};
  std::deque<RandomWeight> weights_;
  std::vector<std::unique_ptr<OnGpu>> floats_;
  std::vector<DecodeLayer> layers_;
  KvShape shape_;
  std::optional<OnGpu> ints_, table_;
  Batch batch_;
  Tensor x_, cache_;
};

double relative_gap(const Tensor& a, const Tensor& b) {
  double gap = 0, size = 0;
  for (int64_t c = 0; c < a.cols(); ++c) {
    gap += std::pow(a.at(0, c) - b.at(0, c), 2);
    size += std::pow(b.at(0, c), 2);
  }
  return std::sqrt(gap / size);
}

TEST_F(DecodeLayersCuda, EqualsTheOperations) {
  const Device gpu(kCudaOps, {});
  for (const char* name : {"mxfp4_weight_only", "nvfp4_weight_only", "bf16", "fp8", "ptpc_fp8",
                           "fp8_static", "fp8_block", "fp8_weight_only", "int8", "int8_weight_only",
                           "int4_weight_only", "int4_fp8"}) {
    for (const Shape& shape : kShapes) {
      Problem problem(gpu, parse_scheme(name), shape);
      for (const int context : {1, 16, 17, 300, 1500}) {
        SCOPED_TRACE(testing::Message() << name << ", " << shape.why << ", context " << context);
        problem.set_context(context);
        const Problem::Result once = problem.at_once(), ops = problem.by_operation();
        if (context <= kPageTokens) {
          EXPECT_TRUE(compare::bit_equal(once.x.view(), ops.x.view()));
          EXPECT_TRUE(once.cache == ops.cache);
        } else {
          // A last bit of bf16 (2^-9) in some values; where they become codes, a neighbouring one,
          // which is up to 2^-3 away, in some of a few hundred columns.
          EXPECT_LE(relative_gap(once.x, ops.x),
                    parse_scheme(name).activation.quantized() ? 0.04 : 0.01);
        }
        // Again: results do not depend on timing.
        EXPECT_TRUE(compare::bit_equal(problem.at_once().x.view(), once.x.view()));
      }
    }
  }
}

// More than one launch takes, of which the second has few.
TEST_F(DecodeLayersCuda, SeveralLaunches) {
  const Device gpu(kCudaOps, {});
  for (const char* name : {"bf16", "int8"}) {
    Problem problem(gpu, parse_scheme(name), kShapes[2], 66);
    problem.set_context(kPageTokens);
    const Problem::Result once = problem.at_once(), ops = problem.by_operation();
    EXPECT_TRUE(compare::bit_equal(once.x.view(), ops.x.view())) << name;
    EXPECT_TRUE(once.cache == ops.cache) << name;
  }
}

// Small: what the sanitizers run.
TEST_F(DecodeLayersCuda, NanComesThrough) {
  const Device gpu(kCudaOps, {});
  for (const char* name : {"bf16", "int4_weight_only", "mxfp4_weight_only", "nvfp4_weight_only"}) {
    Problem problem(gpu, parse_scheme(name), kShapes[2]);
    problem.set_context(17);
    const Tensor before = problem.at_once().x;
    problem.set_stream_to_nan();
    const Tensor nan = problem.at_once().x;
    for (int64_t c = 0; c < nan.cols(); ++c) {
      EXPECT_TRUE(std::isnan(nan.at(0, c))) << name << ", column " << c;
      EXPECT_FALSE(std::isnan(before.at(0, c))) << name << ", column " << c;
    }
  }
}

// Likewise, of what becomes codes in the kernel.
TEST_F(DecodeLayersCuda, SmallCodesEqualTheOperations) {
  const Device gpu(kCudaOps, {});
  for (const char* name : {"fp8_block", "ptpc_fp8", "int8"}) {
    Problem problem(gpu, parse_scheme(name), kShapes[2]);
    problem.set_context(kPageTokens);
    EXPECT_TRUE(compare::bit_equal(problem.at_once().x.view(), problem.by_operation().x.view()))
        << name;
  }
}

}  // namespace
}  // namespace mantissa
