// rms_norm, gate, quantize_rows and gather_rows of the CPU on every instruction set and run dtype,
// against the reference: exactness, RMS, worst case; codes bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compare.h"
#include "isa_fixture.h"

namespace mantissa {
namespace {

using compare::unit_roundoff;

struct RowShape {
  int64_t m, k;
  const char* why;
};
const RowShape kShapes[] = {
    {0, 64, "no token"},
    {1, 1, "one value"},
    {1, 15, "less than a vector"},
    {3, 80, "one vector past four"},
    {17, 130, "a ragged tail"},
    {2, 8191, "long and odd"},
    {70, 2048, "several chunks for the pool"},
};

class RowsTest : public OnIsa {};

double least_of(const Elem& elem) {
  return min_subnormal(elem);
}

void expect_rms(const Tensor& got, const std::vector<double>& want, double u) {
  if (got.rows() == 0) return;
  const compare::Rms rms = compare::rms_of(got.view(), want);
  EXPECT_LE(rms.error, 4 * u * rms.value + least_of(got.elem()));
}

TEST_P(RowsTest, NormIsWithinItsBound) {
  for (const Elem* elem : kRunDtypes) {
    for (const RowShape& shape : kShapes) {
      SCOPED_TRACE(text(elem->name, ": ", shape.why));
      Tensor x(*elem, shape.m, shape.k), out(*elem, shape.m, shape.k);
      x.fill(1, 2);
      std::vector<float> gain(static_cast<size_t>(shape.k));
      for (size_t i = 0; i < gain.size(); ++i) gain[i] = 0.5f + static_cast<float>(i % 7) * 0.25f;
      cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 1e-5f, cpu.queue());
      Tensor wide = widened(x), want(kF32, shape.m, shape.k);
      ref.ops.rms_norm(high_only(want.view()), wide.view(), gain.data(), 1e-5f, ref.queue());
      // The sum of squares is off by K u at most, its root by half of that; then four roundings.
      const double k = static_cast<double>(shape.k), u = unit_roundoff(kF32);
      const std::vector<double> values = values_of(want);
      std::vector<double> bound;
      bound.reserve(values.size());
      for (const double v : values)
        bound.push_back(((k / 2 + 6) * u + unit_roundoff(*elem)) * std::abs(v) + least_of(*elem));
      EXPECT_TRUE(compare::within(out.view(), values, bound));
      expect_rms(out, values, unit_roundoff(*elem) + std::sqrt(k) * u);
      EXPECT_TRUE(out.guard_intact());
    }
  }
}

TEST_P(RowsTest, NormOfOneValueInARowIsExact) {
  for (const Elem* elem : kRunDtypes) {
    for (const int64_t k : {16, 64, 256, 1024}) {
      // 2 in one column: mean 4 / K, root 2 / sqrt(K), both powers of two
      Tensor x(*elem, k, k), out(*elem, k, k);
      for (int64_t r = 0; r < k; ++r)
        for (int64_t c = 0; c < k; ++c) x.set(r, c, r == c ? 2 : 0);
      const std::vector<float> gain(static_cast<size_t>(k), 0.5f);
      cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 0, cpu.queue());
      const double root = std::sqrt(static_cast<double>(k));
      for (int64_t r = 0; r < k; ++r)
        for (int64_t c = 0; c < k; ++c)
          ASSERT_EQ(out.at(r, c), r == c ? root / 2 : 0) << elem->name << " " << r << "," << c;
    }
  }
}

TEST_P(RowsTest, NormKeepsHugeAndTinyRows) {
  for (const Elem* elem : {&kBF16, &kF32}) {
    for (const double size : {3e38, 1e30, 1e20, 1e-15, 1e-25, 1e-37}) {
      SCOPED_TRACE(text(elem->name, " ", size));
      Tensor x(*elem, 1, 100), out(*elem, 1, 100), want(kF32, 1, 100);
      for (int64_t c = 0; c < 100; ++c) x.set(0, c, size * (c % 3 == 0 ? -1 : 0.3));
      const std::vector<float> gain(100, 1.0f);
      cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 0, cpu.queue());
      Tensor wide = widened(x);
      ref.ops.rms_norm(high_only(want.view()), wide.view(), gain.data(), 0, ref.queue());
      for (int64_t c = 0; c < 100; ++c)
        EXPECT_NEAR(out.at(0, c), want.at(0, c), std::abs(want.at(0, c)) * 0x1p-8);
    }
  }
}

TEST_P(RowsTest, NormOfZerosIsZero) {
  Tensor x(kBF16, 1, 40), out(kBF16, 1, 40);
  const std::vector<float> gain(40, 3.0f);
  cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 1e-6f, cpu.queue());
  EXPECT_EQ(values_of(out), std::vector<double>(40, 0.0));
}

TEST_P(RowsTest, GateIsWithinItsBound) {
  for (const GateFn fn : {GateFn::kSilu, GateFn::kGeluTanh}) {
    for (const Elem* elem : kRunDtypes) {
      for (const RowShape& shape : kShapes) {
        SCOPED_TRACE(text(elem->name, ": ", shape.why));
        Tensor x(*elem, shape.m, 2 * shape.k), out(*elem, shape.m, shape.k);
        x.fill(2, 6);
        cpu.ops.gate(high_only(out.view()), x.view(), fn, cpu.queue());
        Tensor wide = widened(x), want(kF32, shape.m, shape.k);
        ref.ops.gate(high_only(want.view()), wide.view(), fn, ref.queue());
        const std::vector<double> values = values_of(want);
        std::vector<double> bound;
        const double u = unit_roundoff(kF32);
        for (int64_t r = 0; r < shape.m; ++r) {
          for (int64_t c = 0; c < shape.k; ++c) {
            // the sigmoid's argument is off by 5 u, which its exponential multiplies by |z|
            const double g = x.at(r, c);
            const double z = fn == GateFn::kSilu ? g : 1.6 * (g + 0.044715 * g * g * g);
            const double v = std::abs(values[static_cast<size_t>(r * shape.k + c)]);
            bound.push_back((5 * std::abs(z) + 12) * u * v + unit_roundoff(*elem) * v +
                            least_of(*elem) + 0x1p-126);
          }
        }
        EXPECT_TRUE(compare::within(out.view(), values, bound));
        expect_rms(out, values, unit_roundoff(*elem) + 16 * u);
        EXPECT_TRUE(out.guard_intact());
      }
    }
  }
}

TEST_P(RowsTest, GateOfEveryBf16) {
  for (const GateFn fn : {GateFn::kSilu, GateFn::kGeluTanh}) {
    Tensor x(kF32, 64, 2048), out(kF32, 64, 1024), want(kF32, 64, 1024);
    for (int64_t i = 0; i < 65536; ++i) {
      x.set(i / 1024, i % 1024, decode(kBF16, static_cast<uint32_t>(i)));
      x.set(i / 1024, 1024 + i % 1024, 1);
    }
    cpu.ops.gate(high_only(out.view()), x.view(), fn, cpu.queue());
    ref.ops.gate(high_only(want.view()), x.view(), fn, ref.queue());
    for (int64_t i = 0; i < 65536; ++i) {
      const double g = x.at(i / 1024, i % 1024);
      const double got = out.at(i / 1024, i % 1024), w = want.at(i / 1024, i % 1024);
      if (std::isnan(g) || std::isinf(g)) continue;  // -inf * 0 is not a number in either
      const double z = fn == GateFn::kSilu ? g : 1.6 * (g + 0.044715 * g * g * g);
      const double relative = (5 * std::min(std::abs(z), 110.0) + 12) * 0x1p-24;
      ASSERT_LE(std::abs(got - w), std::abs(w) * relative + 0x1p-126) << g;
    }
  }
}

TEST_P(RowsTest, GatherTakesRows) {
  for (const Elem* elem : kRunDtypes) {
    Tensor x(*elem, 9, 33), out(*elem, 4, 33);
    x.fill(1);
    const std::vector<int32_t> rows = {8, 0, 3, 3};
    cpu.ops.gather_rows(out.view(), x.view(), rows, cpu.queue());
    for (size_t r = 0; r < rows.size(); ++r)
      EXPECT_TRUE(out.rows_from(static_cast<int64_t>(r), 1) == x.rows_from(rows[r], 1));
    EXPECT_TRUE(out.guard_intact());
  }
}

// ---- quantized forms: every activation of the scheme table, bit for bit

std::vector<Spec> activation_specs() {
  std::vector<Spec> specs;
  const auto add = [&](const Spec& spec) {
    if (!spec.quantized()) return;
    for (const Spec& known : specs)
      if (known == spec) return;
    specs.push_back(spec);
  };
  for (const SchemeRow& row : scheme_rows()) add(row.activation);
  for (const char* name : {"fp8:act=token", "int8:asym", "int8:static"}) {
    try {
      add(parse_scheme(name).activation);
    } catch (const Error&) {  // an option that the table does not have
    }
  }
  Spec asymmetric{.elem = &int_elem(8), .block = per_row(), .when = When::kPerCall};
  asymmetric.asymmetric = true;
  add(asymmetric);
  add({.elem = &kE5M2, .block = per_row(), .when = When::kPerCall});
  return specs;
}

void set_static_scale(Codes& codes) {
  if (codes.spec.when != When::kStatic) return;
  for (float& scale : codes.scales) scale = 0.0173f;
  for (int32_t& zero : codes.zeros) zero = 3;
  codes.global = 0.01f;
}

std::string name_of(const Spec& spec) {
  return describe(spec, kBF16);
}

TEST_P(RowsTest, QuantizedFormsEqualTheReferenceBitForBit) {
  const std::vector<Spec> specs = activation_specs();
  ASSERT_GE(specs.size(), 5u);
  for (const Spec& spec : specs) {
    for (const Elem* elem : kRunDtypes) {
      for (const RowShape& shape : kShapes) {
        SCOPED_TRACE(text(name_of(spec), " ", elem->name, ": ", shape.why));
        Tensor x(*elem, shape.m, shape.k);
        x.fill(3, 2);
        if (shape.m > 2)
          for (int64_t c = 0; c < shape.k; ++c) x.set(1, c, 0);  // a row of zeros
        if (shape.m > 10) {
          x.set(3, 5, std::numeric_limits<double>::quiet_NaN());
          x.set(4, 6, std::numeric_limits<double>::infinity());
          x.set(5, 7, -60000);
        }
        Codes got(spec, shape.m, shape.k), want(spec, shape.m, shape.k);
        set_static_scale(got);
        set_static_scale(want);
        Activation out = high_only(x.view());
        out.quantized_count = 1;
        out.quantized[0] = got.view();
        cpu.ops.quantize_rows(out, cpu.queue());
        out.quantized[0] = want.view();
        ref.ops.quantize_rows(out, ref.queue());
        ASSERT_TRUE(got == want);
      }
    }
  }
}

TEST_P(RowsTest, ObservedRangesGrowAndLeaveOutWhatIsNotFinite) {
  for (const Elem* elem : kRunDtypes) {
    Tensor first(*elem, 40, 130), second(*elem, 3, 7);
    first.fill(7, 1);
    second.fill(8, 0.01);
    first.set(39, 129, 11.5);
    first.set(0, 0, std::numeric_limits<double>::infinity());
    first.set(1, 1, std::numeric_limits<double>::quiet_NaN());
    second.set(2, 6, -21);
    for (const Device* device : {&cpu, &ref}) {
      float range[2] = {0, 0};
      device->ops.observe(first.view(), range, device->queue());
      EXPECT_EQ(range[1], 11.5f);
      EXPECT_GT(range[0], 2.0f);
      device->ops.observe(second.view(), range, device->queue());
      EXPECT_EQ(range[0], 21.0f) << elem->name << " " << device->ops.name;
      EXPECT_EQ(range[1], 11.5f);
    }
  }
}

TEST_P(RowsTest, EveryBf16HasTheReferencesCode) {
  for (const Elem* elem : {&kE4M3, &kE5M2, &int_elem(8)}) {
    const Spec spec{.elem = elem, .block = per_tensor(), .when = When::kStatic};
    Tensor x(kBF16, 64, 1024);
    for (int64_t i = 0; i < 65536; ++i)
      x.set(i / 1024, i % 1024, decode(kBF16, static_cast<uint32_t>(i)));
    Codes got(spec, 64, 1024);
    got.scales[0] = 1;
    Activation out = high_only(x.view());
    out.quantized_count = 1;
    out.quantized[0] = got.view();
    cpu.ops.quantize_rows(out, cpu.queue());
    for (int64_t i = 0; i < 65536; ++i) {
      const double v = x.at(i / 1024, i % 1024);
      ASSERT_EQ(got.codes[static_cast<size_t>(i)], encode(*elem, std::isnan(v) ? 0 : v)) << v;
    }
  }
}

TEST_P(RowsTest, FusedEqualsUnfused) {
  constexpr int64_t kM = 33, kK = 272;
  for (const Spec& spec : activation_specs()) {
    for (const Elem* elem : kRunDtypes) {
      SCOPED_TRACE(text(name_of(spec), " ", elem->name));
      Tensor x(*elem, kM, 2 * kK), high(*elem, kM, kK);
      x.fill(5, 3);
      const std::vector<float> gain(kK, 1.25f);
      for (const bool norm : {true, false}) {
        const auto run = [&](const Activation& out) {
          if (norm)
            cpu.ops.rms_norm(out, x.view().col_range(0, kK), gain.data(), 1e-5f, cpu.queue());
          else
            cpu.ops.gate(out, x.view(), GateFn::kSilu, cpu.queue());
        };
        run(high_only(high.view()));
        Codes unfused(spec, kM, kK), fused(spec, kM, kK), alone(spec, kM, kK);
        for (Codes* codes : {&unfused, &fused, &alone}) set_static_scale(*codes);
        Activation out = high_only(high.view());
        out.quantized_count = 1;
        out.quantized[0] = unfused.view();
        cpu.ops.quantize_rows(out, cpu.queue());
        Tensor again(*elem, kM, kK);
        out.high = again.view();
        out.quantized[0] = fused.view();
        run(out);
        EXPECT_TRUE(again == high);
        EXPECT_TRUE(fused == unfused);
        out.high = {};  // nobody wants the high-precision value
        out.quantized[0] = alone.view();
        run(out);
        EXPECT_TRUE(alone == unfused);
      }
    }
  }
}

TEST_P(RowsTest, RowsDoNotDependOnNeighboursOrThreads) {
  constexpr int64_t kM = 65, kK = 1030;
  const Device one(kCpuOps, isa_config(GetParam(), 1));
  Tensor x(kBF16, kM, kK), batch(kBF16, kM, kK), serial(kBF16, kM, kK), single(kBF16, 1, kK);
  x.fill(9);
  const std::vector<float> gain(kK, 0.75f);
  cpu.ops.rms_norm(high_only(batch.view()), x.view(), gain.data(), 1e-6f, cpu.queue());
  one.ops.rms_norm(high_only(serial.view()), x.view(), gain.data(), 1e-6f, one.queue());
  EXPECT_TRUE(batch == serial);
  for (int64_t r = 0; r < kM; ++r) {
    cpu.ops.rms_norm(high_only(single.view()), x.view().row_range(r, 1), gain.data(), 1e-6f,
                     cpu.queue());
    ASSERT_TRUE(single == batch.rows_from(r, 1));
  }
}

TEST_P(RowsTest, NormInPlace) {
  Tensor x(kBF16, 5, 100), out(kBF16, 5, 100);
  x.fill(4);
  const std::vector<float> gain(100, 1.5f);
  cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 1e-6f, cpu.queue());
  cpu.ops.rms_norm(high_only(x.view()), x.view(), gain.data(), 1e-6f, cpu.queue());
  EXPECT_TRUE(x == out);
}

MANTISSA_ON_EACH_ISA(RowsTest);

}  // namespace
}  // namespace mantissa
