// The reference against what it must be: hand-computed values, and straightforward computations
// that share no code with it.
#include "kernels/ref/ref.h"

#include <gtest/gtest.h>

#include <array>

#include "op_fixture.h"

namespace mantissa {
namespace {

TEST(RefRounding, OddRoundsToNarrowFormatsAsTheValueItself) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const uint64_t bits = random();
    // exponents from below bf16's subnormals to above its largest value
    const double value = std::ldexp(static_cast<double>(bits >> 12) / 4503599627370496.0 + 1,
                                    static_cast<int>(bits % 290) - 150) *
                         (bits & 0x800 ? -1 : 1);
    const float odd = ref::round_to_odd(value);
    ASSERT_EQ(bf16_from_f32(odd), encode(kBF16, value, false)) << value;
    ASSERT_EQ(f16_from_f32(odd), encode(kF16, value, false)) << value;
  }
  // half way between two bf16 values, and just beside it: float32 alone would round twice
  EXPECT_EQ(bf16_from_f32(ref::round_to_odd(1 + 0x1p-8)), 0x3f80);
  EXPECT_EQ(bf16_from_f32(ref::round_to_odd(1 + 0x1p-8 + 0x1p-40)), 0x3f81);
  EXPECT_TRUE(std::isnan(ref::round_to_odd(NAN)));
  EXPECT_EQ(ref::round_to_odd(HUGE_VAL), HUGE_VALF);
}

TEST(RefRows, RmsNormOfThreeFour) {
  const Device ref(kRefOps);
  Tensor x(kF32, 1, 2), out(kF32, 1, 2);
  x.set(0, 0, 3);
  x.set(0, 1, 4);
  const float gain[] = {1, 2};
  ref.ops.rms_norm(high_only(out.view()), x.view(), gain, 0, ref.queue());
  EXPECT_FLOAT_EQ(static_cast<float>(out.at(0, 0)), 0.84852813742385702f);  // 3 / sqrt(12.5)
  EXPECT_FLOAT_EQ(static_cast<float>(out.at(0, 1)), 2.2627416997969521f);
  ref.ops.rms_norm(high_only(out.view()), x.view(), gain, 3.5f, ref.queue());
  EXPECT_EQ(out.at(0, 0), 0.75);  // 3 / sqrt(12.5 + 3.5)
}

TEST(RefRows, GateValues) {
  const Device ref(kRefOps);
  Tensor x(kF32, 1, 4), out(kF32, 1, 2);
  for (int i = 0; i < 4; ++i) x.set(0, i, std::array{1.0, -2.0, 3.0, 5.0}[static_cast<size_t>(i)]);
  ref.ops.gate(high_only(out.view()), x.view(), GateFn::kSilu, ref.queue());
  EXPECT_FLOAT_EQ(static_cast<float>(out.at(0, 0)), 2.1931757358900364f);   // 3 / (1 + 1/e)
  EXPECT_FLOAT_EQ(static_cast<float>(out.at(0, 1)), -1.1920292202211755f);  // -10 / (1 + e^2)
  ref.ops.gate(high_only(out.view()), x.view(), GateFn::kGeluTanh, ref.queue());
  EXPECT_NEAR(out.at(0, 0), 3 * 0.8411919906082768, 1e-6);  // torch gelu(1, approximate="tanh")
  EXPECT_NEAR(out.at(0, 1), 5 * -0.04540230591222494, 1e-6);
}

TEST(RefRows, GatherTakesRowsInOrder) {
  const Device ref(kRefOps);
  Tensor x(kBF16, 5, 3), out(kBF16, 3, 3);
  x.fill(1);
  const std::vector<int32_t> rows = {4, 0, 4};
  ref.ops.gather_rows(out.view(), x.view(), rows, ref.queue());
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) EXPECT_EQ(out.at(r, c), x.at(rows[static_cast<size_t>(r)], c));
}

// ---- linear, embed, canonical weights, for every row of the scheme table

struct BuiltWeight {
  Weight weight;
  std::vector<std::byte> memory;
  QuantRows rows;  // all of them
  Matrix<float> dequantized() {
    values.resize(static_cast<size_t>(rows.rows * rows.cols));
    const Matrix<float> out(values.data(), rows.rows, rows.cols);
    dequantize(rows, out);
    return out;
  }
  std::vector<float> values;
};

QuantRows quantize_band(const WeightQuantizer& q, int64_t row0, Matrix<const float> band) {
  QuantRows rows;
  q.quantize(row0, band, rows);
  return rows;
}

// A random weight, packed in two bands where the scheme has bands.
void build_weight(const Device& device, const Scheme& scheme, int64_t n, int64_t k,
                  BuiltWeight& out) {
  std::vector<float> values(static_cast<size_t>(n * k));
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.1f);
  for (float& v : values) v = f32_from_bf16(bf16_from_f32(normal(random)));
  const Matrix<const float> w(values.data(), n, k);
  WeightQuantizer quantizer(scheme.weight, n, k, kBF16);
  if (quantizer.needs_observe()) quantizer.observe(w);
  out.rows = quantize_band(quantizer, 0, w);
  out.weight = device.ops.plan_weight(
      {.name = "w", .scheme = scheme, .run_dtype = &kBF16, .rows = n, .cols = k, .gathered = true},
      device.queue());
  out.memory.resize(static_cast<size_t>(out.weight.bytes + 64));
  out.weight.data =
      out.memory.data() + (64 - reinterpret_cast<uintptr_t>(out.memory.data()) % 64) % 64;
  const int64_t multiple = quantizer.band_multiple();
  const int64_t first = multiple < n ? multiple : n;
  device.ops.pack_rows(out.weight, 0, quantize_band(quantizer, 0, w.row_range(0, first)),
                       device.queue());
  if (first < n)
    device.ops.pack_rows(out.weight, first,
                         quantize_band(quantizer, first, w.row_range(first, n - first)),
                         device.queue());
  device.ops.finish_weight(out.weight, device.queue());
}

class RefSchemes : public testing::TestWithParam<std::string> {};

TEST_P(RefSchemes, UnpackGivesBackWhatWasPacked) {
  const Device ref(kRefOps);
  BuiltWeight w;
  build_weight(ref, parse_scheme(GetParam()), 130, 96, w);
  QuantRows back;
  ref.ops.unpack_rows(w.weight, 0, 130, back, ref.queue());
  EXPECT_EQ(back.codes, w.rows.codes);
  EXPECT_EQ(back.scales, w.rows.scales);
  EXPECT_EQ(back.zero_points, w.rows.zero_points);
  EXPECT_EQ(back.codebook, w.rows.codebook);
  EXPECT_EQ(back.global_scale, w.rows.global_scale);
}

TEST_P(RefSchemes, EmbedGathersDequantizedRows) {
  const Device ref(kRefOps);
  BuiltWeight w;
  build_weight(ref, parse_scheme(GetParam()), 130, 96, w);
  const Matrix<float> values = w.dequantized();
  const int32_t ids[] = {129, 0, 64};
  Batch batch;
  batch.tokens = 3;
  batch.token_ids = ids;
  Tensor out(kF32, 3, 96);
  ref.ops.embed(out.view(), w.weight, 1, batch, ref.queue());
  for (int t = 0; t < 3; ++t)
    for (int c = 0; c < 96; ++c)
      ASSERT_EQ(static_cast<float>(out.at(t, c)), values.row(ids[t])[static_cast<size_t>(c)]);
}

TEST_P(RefSchemes, LinearIsTheSumOfDequantizedProducts) {
  const Device ref(kRefOps);
  const Scheme scheme = parse_scheme(GetParam());
  constexpr int64_t kM = 9, kN = 130, kK = 96;
  BuiltWeight w;
  build_weight(ref, scheme, kN, kK, w);
  const Matrix<float> weight = w.dequantized();
  Tensor x(kBF16, kM, kK), residual(kBF16, kM, kN), out(kF32, kM, kN), rounded(kBF16, kM, kN);
  x.fill(3);
  residual.fill(4);
  std::vector<float> bias(kN, 0.25f);
  Activation activation = high_only(x.view());
  Codes codes(scheme.activation, kM, kK);
  if (scheme.activation.quantized()) {
    if (scheme.activation.when == When::kStatic) std::fill_n(codes.scales.begin(), 1, 0.01f);
    activation.quantized[activation.quantized_count++] = codes.view();
    ref.ops.quantize_rows(activation, ref.queue());
    activation.high = {};  // the codes are what is read
  }
  const Epilogue epilogue{.bias = bias.data(), .residual = residual.view()};
  ref.ops.linear(out.view(), activation, w.weight, epilogue, ref.queue());
  ref.ops.linear(rounded.view(), activation, w.weight, epilogue, ref.queue());
  const int64_t block = scheme.activation.block.cols == kAll ? kK : scheme.activation.block.cols;
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kN; ++n) {
      double sum = 0.25 + residual.at(m, n), size = std::abs(sum);
      for (int64_t k = 0; k < kK; ++k) {
        double value = x.at(m, k);
        if (scheme.activation.quantized()) {
          const size_t s =
              static_cast<size_t>((codes.scale_rows == 1 ? 0 : m) * codes.scale_cols + k / block);
          value = decode(*scheme.activation.elem, codes.codes[static_cast<size_t>(m * kK + k)]);
          if (scheme.activation.asymmetric) value -= codes.zeros[s];
          value *= static_cast<double>(codes.scales[s]) * codes.global;
        }
        sum += value * static_cast<double>(weight.row(n)[static_cast<size_t>(k)]);
        size += std::abs(value * static_cast<double>(weight.row(n)[static_cast<size_t>(k)]));
      }
      // dequantized() rounded each weight to float32 once, and out is rounded once
      ASSERT_NEAR(out.at(m, n), sum, size * 0x1p-23) << m << "," << n;
      ASSERT_NEAR(rounded.at(m, n), out.at(m, n), std::abs(out.at(m, n)) * 0x1p-8);
    }
  }
}

std::vector<std::string> scheme_names() {
  std::vector<std::string> names;
  for (const SchemeRow& row : scheme_rows()) names.emplace_back(row.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Table, RefSchemes, testing::ValuesIn(scheme_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

TEST(RefLinear, NoRowsDoNothing) {
  const Device ref(kRefOps);
  BuiltWeight w;
  build_weight(ref, parse_scheme("bf16"), 64, 32, w);
  Tensor x(kBF16, 0, 32), out(kBF16, 0, 64);
  ref.ops.linear(out.view(), high_only(x.view()), w.weight, {}, ref.queue());
  EXPECT_TRUE(out.guard_intact());
}

// ---- rotary embedding

TEST(RefRope, RotatesPairsOfHalvesByHandComputedAngles) {
  const Device ref(kRefOps);
  const KvShape shape{.layers = 1, .kv_heads = 1, .head_dim = 6, .page_tokens = 4, .elem = &kF32};
  Paged cache(ref.ops, shape, {8});
  // position 2; pairs (0, 2) by 2 * 0.5 = 1 rad and (1, 3) by 2 * 0.25 rad; 4, 5 pass through
  const float inv_freq[] = {0.5f, 0.25f};
  Tensor qkv(kF32, 1, 18);
  for (int c = 0; c < 18; ++c) qkv.set(0, c, c + 1);
  Batch batch = cache.batch({{1, 3}});
  ref.ops.rope_write(qkv.view(), {.inv_freq = inv_freq, .rotary_dim = 4}, {.heads = 1}, batch,
                     cache.layer, ref.queue());
  const double c1 = 0.5403023058681398, s1 = 0.8414709848078965;  // cos 1, sin 1
  const double c2 = 0.8775825618903728, s2 = 0.479425538604203;   // cos 0.5, sin 0.5
  const double expected[18] = {1 * c1 - 3 * s1,
                               2 * c2 - 4 * s2,
                               3 * c1 + 1 * s1,
                               4 * c2 + 2 * s2,
                               5,
                               6,
                               7 * c1 - 9 * s1,
                               8 * c2 - 10 * s2,
                               9 * c1 + 7 * s1,
                               10 * c2 + 8 * s2,
                               11,
                               12,
                               13,
                               14,
                               15,
                               16,
                               17,
                               18};
  for (int c = 0; c < 18; ++c) EXPECT_NEAR(qkv.at(0, c), expected[c], 2e-6) << c;
}

TEST(RefRope, AngleIsAFloat32Product) {
  const Device ref(kRefOps);
  const KvShape shape{.layers = 1, .kv_heads = 1, .head_dim = 2, .page_tokens = 16, .elem = &kF32};
  Paged cache(ref.ops, shape, {100001});
  const float inv_freq[] = {0.7f};
  Tensor qkv(kF32, 1, 6);
  qkv.set(0, 0, 1);
  Batch batch = cache.batch({{1, 100001}});
  ref.ops.rope_write(qkv.view(), {.inv_freq = inv_freq, .rotary_dim = 2, .attention_factor = 2},
                     {.heads = 1}, batch, cache.layer, ref.queue());
  const float angle = 100000.0f * 0.7f;
  EXPECT_EQ(static_cast<float>(qkv.at(0, 0)), 2 * static_cast<float>(std::cos(double{angle})));
  EXPECT_EQ(static_cast<float>(qkv.at(0, 1)), 2 * static_cast<float>(std::sin(double{angle})));
}

// ---- attention against a direct computation from the tensors that went in

struct AttentionRow {
  std::vector<SequenceShape> sequences;
  int32_t heads, kv_heads, dim, window;
  float soft_cap;
  const char* why;
};
const AttentionRow kAttentionRows[] = {
    {{{1, 1}}, 1, 1, 8, 0, 0, "one token: its own value"},
    {{{5, 5}}, 2, 1, 8, 0, 0, "causal"},
    {{{1, 17}, {3, 3}, {2, 9}}, 4, 2, 8, 0, 0, "prefill, extend and decode mixed"},
    {{{9, 9}}, 2, 2, 8, 3, 0, "window of three keys, itself included"},
    {{{6, 6}}, 2, 2, 8, 0, 1.5f, "soft cap"},
};

TEST(RefAttention, EqualsDirectComputation) {
  const Device ref(kRefOps);
  for (const AttentionRow& row : kAttentionRows) {
    SCOPED_TRACE(row.why);
    const KvShape shape{.layers = 1,
                        .kv_heads = row.kv_heads,
                        .head_dim = row.dim,
                        .page_tokens = 4,
                        .elem = &kF32};
    std::vector<int32_t> lengths;
    std::vector<SequenceShape> whole;
    for (const SequenceShape& s : row.sequences) {
      lengths.push_back(s.context);
      whole.push_back({s.context, s.context});
    }
    Paged cache(ref.ops, shape, lengths);
    const AttentionParams params{
        .heads = row.heads, .scale = 0.3f, .window = row.window, .soft_cap = row.soft_cap};
    Batch all = cache.batch(whole);
    Tensor qkv(kF32, all.tokens, (row.heads + 2 * row.kv_heads) * row.dim);
    qkv.fill(11);
    ref.ops.rope_write(qkv.view(), {}, params, all, cache.layer, ref.queue());
    const std::vector<int32_t> starts(all.query_start, all.query_start + all.sequences + 1);

    Tensor q(kF32, 0, qkv.cols());
    Batch step = cache.batch(row.sequences);
    q = Tensor(kF32, step.tokens, qkv.cols());
    for (size_t s = 0; s < row.sequences.size(); ++s)
      for (int32_t i = 0; i < row.sequences[s].query; ++i)
        for (int64_t c = 0; c < qkv.cols(); ++c)
          q.set(step.query_start[s] + i, c, qkv.at(starts[s + 1] - row.sequences[s].query + i, c));
    Tensor out(kF32, step.tokens, row.heads * row.dim);
    ref.ops.attention(high_only(out.view()), q.view(), params, step, cache.layer, ref.queue());

    for (size_t s = 0; s < row.sequences.size(); ++s) {
      for (int32_t i = 0; i < row.sequences[s].query; ++i) {
        const int32_t position = row.sequences[s].context - row.sequences[s].query + i;
        for (int32_t h = 0; h < row.heads; ++h) {
          const int32_t g = h / (row.heads / row.kv_heads);
          std::vector<double> p, expected(static_cast<size_t>(row.dim));
          double sum = 0;
          for (int32_t j = 0; j <= position; ++j) {
            double score = 0;
            for (int32_t d = 0; d < row.dim; ++d)
              score += qkv.at(starts[s] + position, h * row.dim + d) *
                       qkv.at(starts[s] + j, (row.heads + g) * row.dim + d);
            score *= static_cast<double>(0.3f);
            if (row.soft_cap > 0) score = row.soft_cap * std::tanh(score / row.soft_cap);
            const bool masked = row.window > 0 && j <= position - row.window;
            p.push_back(masked ? 0 : std::exp(score));
            sum += p.back();
          }
          for (int32_t d = 0; d < row.dim; ++d) {
            double value = 0;
            for (int32_t j = 0; j <= position; ++j)
              value += p[static_cast<size_t>(j)] / sum *
                       qkv.at(starts[s] + j, (row.heads + row.kv_heads + g) * row.dim + d);
            ASSERT_NEAR(out.at(step.query_start[s] + i, h * row.dim + d), value, 1e-6)
                << "sequence " << s << " token " << i << " head " << h;
          }
        }
      }
    }
  }
}

TEST(RefKv, EightBitCachesRoundAsDocumented) {
  const Device ref(kRefOps);
  struct Row {
    const Elem* elem;
    bool scaled;
    float static_scale;
  };
  for (const Row& row : {Row{&kE4M3, true, 0}, Row{&kE5M2, true, 0}, Row{&int_elem(8), true, 0},
                         Row{&kE4M3, false, 0.25f}, Row{&int_elem(8), false, 0.25f}}) {
    SCOPED_TRACE(row.elem->name);
    const KvShape shape{.layers = 1,
                        .kv_heads = 2,
                        .head_dim = 8,
                        .page_tokens = 4,
                        .elem = row.elem,
                        .scaled = row.scaled,
                        .k_scale = row.static_scale,
                        .v_scale = 2 * row.static_scale};
    Paged cache(ref.ops, shape, {1});
    Tensor qkv(kF32, 1, 6 * 8), out(kF32, 1, 2 * 8);
    qkv.fill(5, 3);
    for (int d = 0; d < 8; ++d) qkv.set(0, 5 * 8 + d, 0);  // a head of zeros keeps a finite scale
    const AttentionParams params{.heads = 2, .scale = 1};
    Batch batch = cache.batch({{1, 1}});
    ref.ops.rope_write(qkv.view(), {}, params, batch, cache.layer, ref.queue());
    ref.ops.attention(high_only(out.view()), qkv.view(), params, batch, cache.layer, ref.queue());
    for (int h = 0; h < 2; ++h) {
      float amax = 0;
      for (int d = 0; d < 8; ++d)
        amax = std::max(amax, std::abs(static_cast<float>(qkv.at(0, (4 + h) * 8 + d))));
      float scale = std::max(amax / static_cast<float>(max_value(*row.elem)), 0x1p-126f);
      for (int d = 0; d < 8; ++d) {
        const float v = static_cast<float>(qkv.at(0, (4 + h) * 8 + d));
        const float scaled = row.scaled ? v / scale : v * (1 / shape.v_scale);
        const double expected =
            decode(*row.elem, encode(*row.elem, scaled)) * (row.scaled ? scale : shape.v_scale);
        EXPECT_EQ(out.at(0, h * 8 + d), static_cast<float>(expected)) << h << "," << d;
      }
    }
  }
}

TEST(RefKv, PageBytesAreAMultipleOf64AndRefuseUnscaledCodes) {
  KvShape shape{.layers = 1, .kv_heads = 3, .head_dim = 5, .page_tokens = 7, .elem = &kE4M3};
  shape.scaled = true;
  EXPECT_EQ(kRefOps.kv_page_bytes(shape), 384);  // 2 * 3 * 7 * (5 + 4) = 378
  shape.scaled = false;
  EXPECT_THROW(kRefOps.kv_page_bytes(shape), Error);
}

}  // namespace
}  // namespace mantissa
