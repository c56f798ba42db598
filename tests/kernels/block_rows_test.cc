// add_rows, norm_heads and cap_logits: the reference by hand-computed values, the CPU on every
// instruction set and run dtype against the reference.
#include <gtest/gtest.h>

#include <cmath>

#include "compare.h"
#include "isa_fixture.h"

namespace mantissa {
namespace {

using compare::unit_roundoff;

class BlockRowsTest : public OnIsa {};

std::vector<float> some_gain(int64_t size) {
  std::vector<float> gain(static_cast<size_t>(size));
  for (size_t i = 0; i < gain.size(); ++i) gain[i] = 0.5f + static_cast<float>(i % 7) * 0.25f;
  return gain;
}

// Within float32's error of the reference on the same values, rounded once. `size`: what a value
// was summed from, at most.
void expect_close(const Tensor& got, const Tensor& want, int64_t k, double size) {
  std::vector<double> values, bound;
  const double u = unit_roundoff(kF32);
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      values.push_back(want.at(r, c));
      bound.push_back((static_cast<double>(k) / 2 + 8) * u * size +
                      unit_roundoff(got.elem()) * std::abs(want.at(r, c)) +
                      min_subnormal(got.elem()));
    }
  }
  EXPECT_TRUE(compare::within(got.view(), values, bound));
  EXPECT_TRUE(got.guard_intact());
}

TEST(RefBlockRows, AddRowsByHand) {
  const Device ref(kRefOps);
  Tensor x(kF32, 1, 2), delta(kF32, 1, 2);
  x.set(0, 0, 10);
  x.set(0, 1, 20);
  delta.set(0, 0, 3);
  delta.set(0, 1, -4);
  ref.ops.add_rows(x.view(), delta.view(), {.multiplier = 0.5f}, ref.queue());
  EXPECT_EQ(values_of(x), (std::vector<double>{11.5, 18}));
  // mean of squares 12.5, with eps 0: 3 / sqrt(12.5) * 2, -4 / sqrt(12.5) * 1
  const float gain[] = {2, 1};
  Tensor y(kF32, 1, 2);
  y.set(0, 0, 0);
  y.set(0, 1, 0);
  ref.ops.add_rows(y.view(), delta.view(), {.gain = gain, .eps = 0, .multiplier = 1}, ref.queue());
  EXPECT_FLOAT_EQ(static_cast<float>(y.at(0, 0)), static_cast<float>(6 / std::sqrt(12.5)));
  EXPECT_FLOAT_EQ(static_cast<float>(y.at(0, 1)), static_cast<float>(-4 / std::sqrt(12.5)));
}

TEST(RefBlockRows, NormHeadsByHand) {
  const Device ref(kRefOps);
  // Two query heads, one KV head, D = 2: q (3, 4), (5, 12), k (8, 6), v (1, 2).
  const double given[] = {3, 4, 5, 12, 8, 6, 1, 2};
  Tensor each(kF32, 1, 8), all(kF32, 1, 8);
  for (int64_t c = 0; c < 8; ++c) {
    each.set(0, c, given[c]);
    all.set(0, c, given[c]);
  }
  const float q_gain[] = {1, 2, 3, 4}, k_gain[] = {1, 10};
  HeadNormParams p{.q_gain = q_gain, .k_gain = k_gain, .heads = 2, .kv_heads = 1, .head_dim = 2};
  ref.ops.norm_heads(each.view(), p, ref.queue());
  const double first = std::sqrt(25 / 2.0), second = std::sqrt(169 / 2.0), keys = std::sqrt(50.0);
  const double want_each[] = {3 / first, 8 / first, 5 / second, 24 / second,
                              8 / keys,  60 / keys, 1,          2};
  p.each_head = false;
  ref.ops.norm_heads(all.view(), p, ref.queue());
  const double both = std::sqrt(194 / 4.0);
  const double want_all[] = {3 / both, 8 / both, 15 / both, 48 / both, 8 / keys, 60 / keys, 1, 2};
  for (int64_t c = 0; c < 8; ++c) {
    EXPECT_FLOAT_EQ(static_cast<float>(each.at(0, c)), static_cast<float>(want_each[c])) << c;
    EXPECT_FLOAT_EQ(static_cast<float>(all.at(0, c)), static_cast<float>(want_all[c])) << c;
  }
}

TEST(RefBlockRows, CapLogitsByHand) {
  const Device ref(kRefOps);
  float z[] = {4, -8, 0};
  ref.ops.cap_logits({z, 1, 3}, 0.25f, 0, ref.queue());
  EXPECT_EQ(std::vector<float>(z, z + 3), (std::vector<float>{1, -2, 0}));
  ref.ops.cap_logits({z, 1, 3}, 1, 2, ref.queue());
  EXPECT_FLOAT_EQ(z[0], static_cast<float>(2 * std::tanh(0.5)));
  EXPECT_FLOAT_EQ(z[1], static_cast<float>(-2 * std::tanh(1.0)));
  EXPECT_EQ(z[2], 0);
}

TEST_P(BlockRowsTest, AddRowsEqualsTheReference) {
  for (const Elem* elem : kRunDtypes) {
    for (const auto& [m, k] : {std::pair{0, 8}, {1, 1}, {3, 15}, {2, 80}, {17, 2050}}) {
      const std::vector<float> gain = some_gain(k);
      for (const bool normed : {false, true}) {
        SCOPED_TRACE(text(elem->name, " ", m, " x ", k, normed ? " normed" : ""));
        Tensor x(*elem, m, k), delta(*elem, m, k);
        x.fill(3, 2);
        delta.fill(4, 5);
        Tensor want = widened(x), wide = widened(delta);
        const AddParams params{
            .gain = normed ? gain.data() : nullptr, .eps = 1e-5f, .multiplier = 0.22f};
        cpu.ops.add_rows(x.view(), delta.view(), params, cpu.queue());
        ref.ops.add_rows(want.view(), wide.view(), params, ref.queue());
        expect_close(x, want, normed ? k : 0, 40);
      }
    }
  }
}

TEST_P(BlockRowsTest, NormHeadsEqualsTheReference) {
  struct Heads {
    int32_t heads, kv_heads, dim;
  };
  for (const Elem* elem : kRunDtypes) {
    for (const Heads h : {Heads{1, 1, 2}, Heads{4, 2, 20}, Heads{8, 1, 64}, Heads{2, 2, 130}}) {
      for (const bool each : {true, false}) {
        SCOPED_TRACE(text(elem->name, " ", h.heads, "/", h.kv_heads, " x ", h.dim));
        const int64_t cols = int64_t{h.heads + 2 * h.kv_heads} * h.dim;
        const std::vector<float> gain = some_gain(cols);
        Tensor qkv(*elem, 5, cols);
        qkv.fill(5, 3);
        const Tensor before = qkv;
        Tensor want = widened(qkv);
        const HeadNormParams params{.q_gain = gain.data(),
                                    .k_gain = gain.data() + 3,
                                    .heads = h.heads,
                                    .kv_heads = h.kv_heads,
                                    .head_dim = h.dim,
                                    .each_head = each,
                                    .eps = 1e-6f};
        cpu.ops.norm_heads(qkv.view(), params, cpu.queue());
        ref.ops.norm_heads(want.view(), params, ref.queue());
        expect_close(qkv, want, cols, 20);
        for (int64_t c = cols - int64_t{h.kv_heads} * h.dim; c < cols; ++c) {
          EXPECT_EQ(qkv.at(4, c), before.at(4, c)) << "values are left alone";
        }
      }
    }
  }
}

TEST_P(BlockRowsTest, CapLogitsEqualsTheReference) {
  for (const float cap : {0.0f, 1.5f, 30.0f}) {
    Tensor got(kF32, 3, 131), want(kF32, 3, 131);
    got.fill(6, 50);
    want = got;
    const auto matrix = [](Tensor& t) { return t.view().as<float>(); };
    cpu.ops.cap_logits(matrix(got), 0.5f, cap, cpu.queue());
    ref.ops.cap_logits(matrix(want), 0.5f, cap, ref.queue());
    expect_close(got, want, 0, cap > 0 ? cap : 100);
  }
}

MANTISSA_ON_EACH_ISA(BlockRowsTest);

}  // namespace
}  // namespace mantissa
