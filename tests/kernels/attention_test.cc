// rope_write and attention of the CPU on every instruction set, run dtype and cache format, against
// the reference: exactness, RMS, worst case; and equality with itself whatever the batch, the
// threads and the cut into steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compare.h"
#include "isa_fixture.h"

namespace mantissa {
namespace {

using compare::unit_roundoff;

struct CacheFormat {
  const char* name;
  const Elem* elem;  // nullptr: the run dtype
  float static_scale;
  double step;  // the largest relative error of its codes
};
const CacheFormat kFormats[] = {
    {"run dtype", nullptr, 0, 0},
    {"e4m3", &kE4M3, 0, 0x1p-4},
    {"e5m2", &kE5M2, 0, 0x1p-3},
    {"int8", &int_elem(8), 0, 0x1p-7},
    {"e4m3 static", &kE4M3, 0.02f, 0x1p-4},
    {"int8 static", &int_elem(8), 0.05f, 0},
};

struct Shape {
  std::vector<SequenceShape> sequences;
  int32_t heads, kv_heads, dim, page_tokens, window;
  float soft_cap;
  const char* why;
};
const Shape kShapes[] = {
    {{{1, 1}}, 1, 1, 64, 16, 0, 0, "the first token"},
    {{{1, 17}}, 2, 1, 32, 16, 0, 0, "one token past a page"},
    {{{33, 33}}, 4, 4, 8, 16, 0, 0, "one query head per KV head, head size 8"},
    {{{1, 40}, {20, 20}, {3, 50}}, 8, 4, 64, 16, 0, 0, "decode, prefill and extend in a batch"},
    {{{1, 300}, {1, 257}}, 8, 1, 64, 16, 0, 0, "several chunks, eight query heads per KV head"},
    {{{1, 300}, {1, 257}}, 8, 2, 64, 16, 0, 0, "several chunks, four query heads per KV head"},
    {{{1, 301}}, 6, 2, 128, 16, 70, 0, "three heads, head size 128, a window from within a pair"},
    {{{70, 290}}, 4, 2, 80, 16, 0, 0, "queries of two chunks, head size 80"},
    {{{5, 530}}, 2, 2, 128, 32, 0, 0, "three chunks, head size 128"},
    {{{40, 300}, {1, 299}}, 4, 2, 32, 16, 50, 0, "a window that starts within a chunk"},
    {{{9, 9}, {1, 30}}, 4, 2, 64, 16, 4, 0, "a window less than a tile of rows"},
    {{{24, 60}}, 4, 2, 64, 16, 0, 5, "soft cap"},
    {{{12, 23}}, 6, 2, 20, 5, 0, 0, "pages of five tokens, three heads a group, head size 20"},
    {{{2, 37}}, 2, 1, 7, 16, 0, 0, "an odd head size"},
    {{{1, 45}, {0, 5}, {2, 2}}, 4, 2, 64, 20, 0, 0, "pages of more than a vector; no query"},
};

KvShape kv_shape(const Shape& shape, const CacheFormat& format, const Elem& run) {
  KvShape kv;
  kv.layers = 1;
  kv.kv_heads = shape.kv_heads;
  kv.head_dim = shape.dim;
  kv.page_tokens = shape.page_tokens;
  kv.elem = format.elem == nullptr ? &run : format.elem;
  kv.k_scale = format.static_scale;
  kv.v_scale = 1.5f * format.static_scale;
  kv.scaled = format.elem != nullptr && format.static_scale == 0;
  return kv;
}

AttentionParams params_of(const Shape& shape) {
  return {.heads = shape.heads,
          .scale = static_cast<float>(1 / std::sqrt(shape.dim)),
          .window = shape.window,
          .soft_cap = shape.soft_cap};
}

// Every token of every sequence, in one matrix; and the pieces that steps read.
struct Context {
  Context(const Shape& shape, const Elem& run, uint32_t seed, double spread = 1) {
    for (const SequenceShape& s : shape.sequences) {
      start.push_back(rows);
      rows += s.context;
      lengths.push_back(s.context);
    }
    qkv = Tensor(run, rows, (shape.heads + 2 * shape.kv_heads) * int64_t{shape.dim});
    qkv.fill(seed, spread);
  }
  // Rows of the tokens of one step, sequence after sequence.
  Tensor step(const std::vector<SequenceShape>& shapes) const {
    int64_t tokens = 0;
    for (const SequenceShape& s : shapes) tokens += s.query;
    Tensor out(qkv.elem(), tokens, qkv.cols());
    int64_t at = 0;
    const int64_t row_bytes = qkv.cols() * qkv.elem().bits() / 8;
    for (size_t s = 0; s < shapes.size(); ++s) {
      const int64_t from = start[s] + shapes[s].context - shapes[s].query;
      std::memcpy(out.data() + at * row_bytes, qkv.data() + from * row_bytes,
                  static_cast<size_t>(shapes[s].query * row_bytes));
      at += shapes[s].query;
    }
    return out;
  }

  Tensor qkv;
  std::vector<int64_t> start;
  std::vector<int32_t> lengths;
  int64_t rows = 0;
};

// Runs one step: cache writes without rotation, then attention.
Tensor run_step(const Device& device, Paged& cache, const Shape& shape, const Context& context,
                const std::vector<SequenceShape>& shapes) {
  Tensor rows = context.step(shapes);
  Batch batch = cache.batch(shapes);
  const AttentionParams params = params_of(shape);
  device.ops.rope_write(rows.view(), {}, params, batch, cache.layer, device.queue());
  Tensor out(context.qkv.elem(), batch.tokens, int64_t{shape.heads} * shape.dim);
  device.ops.attention(high_only(out.view()), rows.view(), params, batch, cache.layer,
                       device.queue());
  EXPECT_TRUE(out.guard_intact());
  return out;
}

// Everything before the shape's queries in one step, then the queries in another.
Tensor run_shape(const Device& device, const Shape& shape, const KvShape& kv,
                 const Context& context) {
  Paged cache(device.ops, kv, context.lengths);
  std::vector<SequenceShape> before;
  for (const SequenceShape& s : shape.sequences)
    before.push_back({s.context - s.query, s.context - s.query});
  run_step(device, cache, shape, context, before);
  return run_step(device, cache, shape, context, shape.sequences);
}

class AttentionTest : public OnIsa {};

// What bounds one (token, head): the largest sum_d |q_d k_d| over its keys, and for each d the
// largest |v_d|.
struct Reach {
  double score = 0;
  std::vector<double> v;
};
std::vector<Reach> reaches_of(const Shape& shape, const Context& context) {
  const int64_t dim = shape.dim, group = shape.heads / shape.kv_heads, cols = context.qkv.cols();
  std::vector<double> sizes = values_of(context.qkv);
  for (double& v : sizes) v = std::abs(v);
  std::vector<Reach> reaches;
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    const int64_t length = shape.sequences[s].context;
    for (int64_t position = length - shape.sequences[s].query; position < length; ++position) {
      for (int64_t h = 0; h < shape.heads; ++h) {
        const double* q = sizes.data() + (context.start[s] + position) * cols + h * dim;
        Reach reach{0, std::vector<double>(static_cast<size_t>(dim))};
        for (int64_t j = 0; j <= position; ++j) {
          const double* k =
              sizes.data() + (context.start[s] + j) * cols + (shape.heads + h / group) * dim;
          const double* v = k + shape.kv_heads * dim;
          double sum = 0;
          for (int64_t d = 0; d < dim; ++d) {
            sum += q[d] * k[d];
            reach.v[static_cast<size_t>(d)] = std::max(reach.v[static_cast<size_t>(d)], v[d]);
          }
          reach.score = std::max(reach.score, sum);
        }
        reaches.push_back(reach);
      }
    }
  }
  return reaches;
}

// |error| <= max_j |v_j| (2 (e^(2 ds) - 1) + (L + 16) u + 2 u_w) + u_out |out|, ds the largest
// error of a score: (D + 8) u scale sum_d |q_d k_d|, u of float32. u_w: of bf16 for bf16 queries,
// whose weights some kernels round (and u' = 2^-18 of their exponential). Cached codes may exceed
// the value by `step`.
std::vector<double> bounds_of(const Shape& shape, const std::vector<Reach>& reaches,
                              const Elem& run, double step, const std::vector<double>& want) {
  const double u = unit_roundoff(kF32), scale = 1 / std::sqrt(shape.dim);
  double length = 0;
  for (const SequenceShape& s : shape.sequences)
    length = std::max(length, static_cast<double>(s.context));
  std::vector<double> bounds;
  for (const Reach& reach : reaches) {
    const double ds = (static_cast<double>(shape.dim) + 8) * u * scale * reach.score * (1 + step) +
                      (shape.soft_cap > 0 ? 8 * u * shape.soft_cap : 0);
    const double rounded = run == kBF16 ? 2 * (unit_roundoff(kBF16) + 0x1p-17) : 0;
    const double relative = 2 * std::expm1(2 * ds) + (length + 16) * u + rounded;
    for (const double v : reach.v)
      bounds.push_back(v * (1 + step) * relative +
                       unit_roundoff(run) * std::abs(want[bounds.size()]) + min_subnormal(run));
  }
  return bounds;
}

TEST_P(AttentionTest, IsWithinItsBound) {
  for (const Elem* run : kRunDtypes) {
    for (const Shape& shape : kShapes) {
      const Context context(shape, *run, 21);
      Context wide = context;
      wide.qkv = widened(context.qkv);
      const std::vector<Reach> reaches = reaches_of(shape, context);
      for (const CacheFormat& format : kFormats) {
        // what a static scale changes does not depend on the run dtype
        if (format.static_scale > 0 && run != &kBF16) continue;
        SCOPED_TRACE(text(format.name, " ", run->name, ": ", shape.why));
        const Tensor got = run_shape(cpu, shape, kv_shape(shape, format, *run), context);
        const Tensor want = run_shape(ref, shape, kv_shape(shape, format, kF32), wide);
        const std::vector<double> values = values_of(want);
        EXPECT_TRUE(compare::within(got.view(), values,
                                    bounds_of(shape, reaches, *run, format.step, values)));
        const compare::Rms rms = compare::rms_of(got.view(), values);
        const double length = shape.sequences[0].context;
        EXPECT_LE(rms.error, 4 * rms.value *
                                 (unit_roundoff(*run) +
                                  std::sqrt(length + shape.dim) * unit_roundoff(kF32) * 4));
      }
    }
  }
}

// Zero queries weigh all keys alike: with 2^n keys and small whole values the mean is exact, so a
// key dropped or read twice shows.
TEST_P(AttentionTest, MeanOfAllKeysIsExact) {
  const Shape shape{{{512, 512}}, 2, 1, 32, 16, 0, 0, ""};
  for (const Elem* run : kRunDtypes) {
    Context context(shape, *run, 1);
    for (int64_t r = 0; r < 512; ++r)
      for (int64_t c = 0; c < context.qkv.cols(); ++c)
        context.qkv.set(r, c, c < 96 ? 0 : static_cast<double>((r * 37 + c * 11) % 64));
    Paged cache(cpu.ops, kv_shape(shape, kFormats[0], *run), context.lengths);
    const Tensor out = run_step(cpu, cache, shape, context, shape.sequences);
    std::vector<double> sum(32, 0);
    for (int64_t r = 0; r < 512; ++r) {
      for (int64_t d = 0; d < 32; ++d) sum[static_cast<size_t>(d)] += context.qkv.at(r, 96 + d);
      if (((r + 1) & r) != 0) continue;  // 1, 2, 4, ... keys
      for (int64_t c = 0; c < 64; ++c)
        ASSERT_EQ(out.at(r, c), compare::rounded(*run, sum[static_cast<size_t>(c % 32)] /
                                                           static_cast<double>(r + 1)))
            << run->name << " after " << r + 1 << " keys";
    }
  }
}

// Keys are the binary digits of their number as +-1, queries those of the key wanted, times a
// factor that drives every other weight to zero: the value comes back exactly.
TEST_P(AttentionTest, EveryKeyCanBePicked) {
  const Shape shape{{{1, 300}}, 1, 1, 16, 16, 0, 0, ""};
  for (const CacheFormat& format : kFormats) {
    if (format.static_scale > 0) continue;
    for (const Elem* run : kRunDtypes) {
      SCOPED_TRACE(text(format.name, " ", run->name));
      // a weight of 1 times the scale of its value may be rounded to bf16
      const bool scaled = format.elem != nullptr && run == &kBF16;
      const double tolerance = scaled ? 2 * unit_roundoff(kBF16) : 0x1p-22;
      Context context(shape, *run, 1);
      const auto digit = [](int64_t j, int64_t d) { return (j >> d & 1) != 0 ? 1.0 : -1.0; };
      for (int64_t r = 0; r < 300; ++r)
        for (int64_t d = 0; d < 16; ++d) {
          context.qkv.set(r, 16 + d, digit(r, d));
          context.qkv.set(r, 32 + d, digit(r * 7, d) * 8);  // amax 8: exact in every format
        }
      Paged cache(cpu.ops, kv_shape(shape, format, *run), context.lengths);
      run_step(cpu, cache, shape, context, {{299, 299}});
      for (int64_t wanted = 0; wanted < 300; ++wanted) {
        for (int64_t d = 0; d < 16; ++d) context.qkv.set(299, d, digit(wanted, d) * 1024);
        const Tensor out = run_step(cpu, cache, shape, context, {{1, 300}});
        for (int64_t d = 0; d < 16; ++d)
          ASSERT_NEAR(out.at(0, d), context.qkv.at(wanted, 32 + d), 8 * tolerance) << wanted;
      }
    }
  }
}

TEST_P(AttentionTest, HugeScoresStayFinite) {
  const Shape shape{{{20, 20}}, 2, 1, 64, 16, 0, 0, ""};
  for (const Elem* run : {&kBF16, &kF32}) {
    const Context context(shape, *run, 3, 1e8);  // scores near 1e16: one key takes all
    Paged cache(cpu.ops, kv_shape(shape, kFormats[0], *run), context.lengths);
    const Tensor out = run_step(cpu, cache, shape, context, shape.sequences);
    for (const double v : values_of(out)) ASSERT_TRUE(std::isfinite(v));
    for (int64_t d = 0; d < 64; ++d) EXPECT_EQ(out.at(0, d), context.qkv.at(0, 192 + d));
  }
}

TEST_P(AttentionTest, DoesNotReadBeyondTheContext) {
  // The cache starts as NaN in every byte; what is not written must not matter.
  const Shape shape{{{3, 21}, {1, 19}}, 4, 2, 64, 16, 0, 0, ""};
  for (const CacheFormat& format : kFormats) {
    const Context context(shape, kBF16, 3);
    const Tensor out = run_shape(cpu, shape, kv_shape(shape, format, kBF16), context);
    for (const double v : values_of(out)) ASSERT_TRUE(std::isfinite(v)) << format.name;
  }
}

TEST_P(AttentionTest, EverySequenceAloneEqualsTheBatch) {
  for (const CacheFormat& format : kFormats) {
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(text(format.name, ": ", shape.why));
      const Context context(shape, kBF16, 8);
      const KvShape kv = kv_shape(shape, format, kBF16);
      const Tensor batch = run_shape(cpu, shape, kv, context);
      const Device serial(kCpuOps, isa_config(GetParam(), 1));
      EXPECT_TRUE(run_shape(serial, shape, kv, context) == batch) << "threads";
      int64_t at = 0;
      for (size_t s = 0; s < shape.sequences.size(); ++s) {
        Shape one = shape;
        one.sequences = {shape.sequences[s]};
        Context alone(one, kBF16, 0);
        alone.qkv = context.qkv.rows_from(context.start[s], shape.sequences[s].context);
        const Tensor out = run_shape(cpu, one, kv, alone);
        EXPECT_TRUE(out == batch.rows_from(at, shape.sequences[s].query)) << "sequence " << s;
        at += shape.sequences[s].query;
      }
    }
  }
}

TEST_P(AttentionTest, PrefillInPiecesEqualsPrefillInOne) {
  for (const CacheFormat& format : kFormats) {
    for (const int32_t window : {0, 60}) {
      const Shape shape{{{300, 300}}, 4, 2, 64, 16, window, 0, ""};
      SCOPED_TRACE(text(format.name, " window ", window));
      const Context context(shape, kBF16, 5);
      const KvShape kv = kv_shape(shape, format, kBF16);
      Paged whole(cpu.ops, kv, context.lengths), pieces(cpu.ops, kv, context.lengths);
      const Tensor want = run_step(cpu, whole, shape, context, shape.sequences);
      int32_t done = 0;
      for (const int32_t count : {1, 7, 100, 33, 16, 1, 140, 1, 1}) {
        const Tensor got = run_step(cpu, pieces, shape, context, {{count, done + count}});
        EXPECT_TRUE(got == want.rows_from(done, count)) << "tokens from " << done;
        done += count;
      }
      EXPECT_EQ(done, 300);
    }
  }
}

TEST_P(AttentionTest, QuantizedResultEqualsQuantizingAfterwards) {
  const Shape& shape = kShapes[3];
  const Context context(shape, kBF16, 4);
  Paged cache(cpu.ops, kv_shape(shape, kFormats[0], kBF16), context.lengths);
  const std::vector<SequenceShape>& steps = shape.sequences;
  const Tensor high = run_shape(cpu, shape, kv_shape(shape, kFormats[0], kBF16), context);
  std::vector<SequenceShape> before;
  before.reserve(steps.size());
  for (const SequenceShape& s : steps) before.push_back({s.context - s.query, s.context - s.query});
  run_step(cpu, cache, shape, context, before);
  Tensor rows = context.step(steps);
  Batch batch = cache.batch(steps);
  cpu.ops.rope_write(rows.view(), {}, params_of(shape), batch, cache.layer, cpu.queue());
  for (const char* name : {"ptpc_fp8", "fp8", "int8", "fp8_block"}) {
    const Spec spec = parse_scheme(name).activation;
    Codes fused(spec, high.rows(), high.cols()), unfused(spec, high.rows(), high.cols());
    Activation out;
    out.quantized_count = 1;
    out.quantized[0] = fused.view();
    cpu.ops.attention(out, rows.view(), params_of(shape), batch, cache.layer, cpu.queue());
    Tensor copy = high;
    out = high_only(copy.view());
    out.quantized_count = 1;
    out.quantized[0] = unfused.view();
    cpu.ops.quantize_rows(out, cpu.queue());
    EXPECT_TRUE(fused == unfused) << name;
  }
}

// ---- rope_write

TEST_P(AttentionTest, RotationIsWithinItsBound) {
  const Shape shapes[] = {{{{37, 37}}, 4, 2, 64, 16, 0, 0, "whole heads"},
                          {{{5, 5}}, 2, 1, 80, 16, 0, 0, "half of 40: ragged"},
                          {{{3, 3}}, 1, 1, 6, 16, 0, 0, "less than a vector"}};
  for (const Shape& shape : shapes) {
    for (const int32_t rotary : {shape.dim, shape.dim / 4 * 2}) {
      for (const Elem* run : kRunDtypes) {
        SCOPED_TRACE(text(run->name, " rotary ", rotary, ": ", shape.why));
        std::vector<float> inv_freq;
        inv_freq.reserve(static_cast<size_t>(rotary / 2));
        for (int32_t i = 0; i < rotary / 2; ++i)
          inv_freq.push_back(
              static_cast<float>(std::pow(10000.0, -2.0 * i / static_cast<double>(rotary))));
        const RopeParams rope{
            .inv_freq = inv_freq.data(), .rotary_dim = rotary, .attention_factor = 1.25f};
        const Context context(shape, *run, 6);
        Tensor got = context.qkv, want = widened(context.qkv);
        const Tensor before = want;
        const KvShape kv = kv_shape(shape, kFormats[0], *run);
        const KvShape kv_wide = kv_shape(shape, kFormats[0], kF32);
        Paged cache(cpu.ops, kv, context.lengths), wide(ref.ops, kv_wide, context.lengths);
        const AttentionParams params = params_of(shape);
        Batch batch = cache.batch(shape.sequences), wide_batch = wide.batch(shape.sequences);
        cpu.ops.rope_write(got.view(), rope, params, batch, cache.layer, cpu.queue());
        ref.ops.rope_write(want.view(), rope, params, wide_batch, wide.layer, ref.queue());
        const std::vector<double> values = values_of(want);
        std::vector<double> bound;
        for (int64_t r = 0; r < got.rows(); ++r) {
          for (int64_t c = 0; c < got.cols(); ++c) {
            const int64_t d = c % shape.dim, half = rotary / 2;
            const bool rotated = c < (shape.heads + shape.kv_heads) * shape.dim && d < rotary;
            // two products and a sum in float32, of cosines equal to the reference's
            const double size =
                rotated ? 1.25 * (std::abs(before.at(r, c)) +
                                  std::abs(before.at(r, d < half ? c + half : c - half)))
                        : 0;
            bound.push_back(3 * unit_roundoff(kF32) * size +
                            (rotated ? unit_roundoff(*run) * std::abs(values[bound.size()]) : 0));
          }
        }
        EXPECT_TRUE(compare::within(got.view(), values, bound));
        EXPECT_TRUE(got.guard_intact());
        // the cache holds v as it is: the first token's attention is its own value
        Tensor out(*run, got.rows(), int64_t{shape.heads} * shape.dim);
        cpu.ops.attention(high_only(out.view()), got.view(), params, batch, cache.layer,
                          cpu.queue());
        for (int64_t d = 0; d < shape.dim; ++d)
          EXPECT_EQ(out.at(0, d), got.at(0, (shape.heads + shape.kv_heads) * shape.dim + d));
      }
    }
  }
}

// Each token its own sequence of one key: attention gives back what the cache holds.
TEST_P(AttentionTest, EveryBf16IsCachedAsDocumented) {
  for (const Elem* elem : {&kE4M3, &kE5M2, &int_elem(8)}) {
    constexpr int64_t kDim = 64, kTokens = 1024;
    Shape shape{{}, 1, 1, kDim, 16, 0, 0, ""};
    shape.sequences.assign(kTokens, {1, 1});
    Context context(shape, kBF16, 1);
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t d = 0; d < kDim; ++d)
        context.qkv.set(t, 2 * kDim + d, decode(kBF16, static_cast<uint32_t>(t * kDim + d)));
    const CacheFormat format{"", elem, 1.0f, 0};
    KvShape kv = kv_shape(shape, format, kBF16);
    kv.v_scale = 1;
    Paged cache(cpu.ops, kv, context.lengths);
    const Tensor out = run_step(cpu, cache, shape, context, shape.sequences);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t d = 0; d < kDim; ++d) {
        const double v = decode(kBF16, static_cast<uint32_t>(t * kDim + d));
        const bool lost = std::isnan(v) && elem->nan == NanCodes::kNone;
        const double want = lost ? 0 : decode(*elem, encode(*elem, v));
        if (std::isnan(want))
          ASSERT_TRUE(std::isnan(out.at(t, d)));
        else
          ASSERT_EQ(out.at(t, d), want) << elem->name << " of " << v;
      }
    }
  }
}

TEST_P(AttentionTest, OnlineScalesAreTheReferences) {
  // Rows of every size, a zero row and one with infinity, each its own sequence of one key.
  const Shape all{std::vector<SequenceShape>(40, {1, 1}), 1, 1, 24, 16, 0, 0, ""};
  for (const CacheFormat& format : kFormats) {
    if (format.elem == nullptr || format.static_scale > 0) continue;
    for (const Elem* run : {&kBF16, &kF32}) {
      Context context(all, *run, 12);
      for (int64_t t = 0; t < 40; ++t)
        for (int64_t c = 48; c < 72; ++c)
          context.qkv.set(t, c,
                          context.qkv.at(t, c) * std::ldexp(1.0, static_cast<int>(t) * 6 - 120));
      for (int64_t c = 48; c < 72; ++c) context.qkv.set(5, c, 0);
      context.qkv.set(6, 50, std::numeric_limits<double>::infinity());
      Paged cache(cpu.ops, kv_shape(all, format, *run), context.lengths);
      Paged other(ref.ops, kv_shape(all, format, *run), context.lengths);
      const Tensor got = run_step(cpu, cache, all, context, all.sequences);
      const Tensor want = run_step(ref, other, all, context, all.sequences);
      // the product of code and scale, rounded to float32 before the run dtype
      const double u = unit_roundoff(*run) + 2 * unit_roundoff(kF32);
      for (int64_t t = 0; t < 40; ++t)
        for (int64_t d = 0; d < 24; ++d) {
          if (got.at(t, d) == want.at(t, d)) continue;  // infinity too
          ASSERT_NEAR(got.at(t, d), want.at(t, d), 2 * u * std::abs(want.at(t, d)) + 0x1p-126)
              << format.name << " " << run->name << " token " << t;
        }
    }
  }
}

TEST_P(AttentionTest, NoTokensDoNothing) {
  const Shape shape{{{0, 5}}, 2, 1, 64, 16, 0, 0, ""};
  const Context context(shape, kBF16, 1);
  Paged cache(cpu.ops, kv_shape(shape, kFormats[0], kBF16), context.lengths);
  run_step(cpu, cache, shape, context, shape.sequences);
}

TEST_P(AttentionTest, RefusesFormatsItDoesNotHave) {
  const Shape& shape = kShapes[0];
  KvShape kv = kv_shape(shape, {"", &kE2M1, 0, 0}, kBF16);
  EXPECT_THROW(cpu.ops.kv_page_bytes(kv), Error);
  kv.elem = &kE4M3;
  kv.scaled = false;
  EXPECT_THROW(cpu.ops.kv_page_bytes(kv), Error);
  kv = kv_shape(shape, kFormats[0], kBF16);
  EXPECT_EQ(cpu.ops.kv_page_bytes(kv), 16 * 64 * 2 * 2);  // no padding at the usual sizes
  kv.elem = &kE4M3;
  kv.scaled = true;
  EXPECT_EQ(cpu.ops.kv_page_bytes(kv), 16 * 64 * 2 + 16 * 4 * 2);
}

MANTISSA_ON_EACH_ISA(AttentionTest);

}  // namespace
}  // namespace mantissa
