// `linear` of the CPU backend against float64 on dequantized inputs: exactness, RMS, worst case;
// every scheme that runs x every instruction set x shapes x epilogues; batch invariance.
#include "linear_problem.h"

namespace mantissa::linear_test {
namespace {

struct SchemeCase {
  const char* scheme;
  const Elem* run;
};
// Every scheme with a CPU kernel, in the run dtypes that change the kernel.
const SchemeCase kCases[] = {
    {"bf16", &kBF16},
    {"bf16", &kF16},
    {"bf16", &kF32},
    {"fp8", &kBF16},
    {"fp8:act=token", &kBF16},
    {"fp8:act=token", &kF16},
    {"ptpc_fp8", &kBF16},
    {"ptpc_fp8", &kF32},
    {"fp8_weight_only", &kBF16},
    {"fp8_weight_only", &kF32},
    {"int8", &kBF16},
    {"int8", &kF16},
    {"int8:asym", &kBF16},
    {"int8:static", &kBF16},
    {"int8:asym:static", &kBF16},
    {"int8 +w_asym", &kBF16},
    {"int8:asym +w_asym", &kBF16},
    {"int4_int8:g32", &kBF16},
    {"int4_int8:g64", &kF16},
    {"int4_int8:g128", &kF32},
    {"int4_int8:g256", &kBF16},
    {"int4_int8:g32:asym", &kBF16},
    {"int4_int8:g128:asym", &kBF16},
    {"int4_int8:g128 +x_static", &kBF16},
    {"int4_int8:g32:asym +x_asym +x_static", &kBF16},
    {"int4_int8 +w_row +x_asym", &kBF16},
    {"int8_int1:g32", &kBF16},
    {"int8_int1:g128 +x_asym", &kBF16},
    {"int8_int2:g32", &kBF16},
    {"int8_int2:g64:asym", &kBF16},
    {"int8_int3:g32", &kBF16},
    {"int8_int3:g128:asym", &kBF16},
    {"int8_int5:g32", &kBF16},
    {"int8_int5:g64:asym", &kBF16},
    {"int8_int6:g32", &kBF16},
    {"int8_int6:g256:asym", &kBF16},
    {"int8_int7:g32", &kBF16},
    {"int8_int7:g128:asym", &kBF16},
    {"int8_int7 +w_row +w_asym", &kBF16},
    {"int8_int8:g32", &kBF16},
    {"int8_int8:g128:asym", &kBF16},
    {"int8_int8:g64:asym +x_asym", &kBF16},
    {"int8_weight_only", &kBF16},
    {"int8_weight_only", &kF16},
    {"int8_weight_only:g64", &kBF16},
    {"int4_weight_only:g32", &kBF16},
    {"int4_weight_only:g64", &kBF16},
    {"int4_weight_only:g128", &kBF16},
    {"int4_weight_only:g256", &kBF16},
    {"int4_weight_only:g32:asym", &kBF16},
    {"int4_weight_only:g128:asym", &kBF16},
    {"int4_weight_only:g128:asym", &kF32},
    {"int4_weight_only:g64", &kF16},
    {"int4_weight_only:channel", &kBF16},
    {"int4_weight_only:channel:asym", &kBF16},
    {"int4_fp8:g64", &kBF16},
    {"int8_weight_only:g64:asym", &kBF16},
    {"int1_weight_only:g32", &kBF16},
    {"int2_weight_only:g32", &kBF16},
    {"int2_weight_only:g32:asym", &kBF16},
    {"int3_weight_only:g64", &kBF16},
    {"int3_weight_only:g64:asym", &kBF16},
    {"int5_weight_only:g128", &kBF16},
    {"int5_weight_only:g64:asym", &kBF16},
    {"int6_weight_only:g32", &kBF16},
    {"int6_weight_only:channel:asym", &kBF16},
    {"int7_weight_only:g32", &kBF16},
    {"int7_weight_only:g32:asym", &kBF16},
    {"int7_weight_only:g32", &kF16},
    {"fp8_block", &kBF16},
    {"mxfp8", &kBF16},
    {"mxfp8_weight_only", &kBF16},
    {"mxfp6", &kBF16},
    {"mxfp6:e2m3", &kBF16},
    {"mxfp6_weight_only", &kBF16},
    {"mxfp6_weight_only:e2m3", &kBF16},
    {"mxfp4", &kBF16},
    {"mxfp4", &kF32},
    {"mxfp4_weight_only", &kBF16},
    {"nvfp4", &kBF16},
    {"nvfp4:static", &kBF16},
    {"nvfp4_weight_only", &kBF16},
    {"codebook2:g32", &kBF16},
    {"codebook3:g64", &kBF16},
    {"codebook4", &kBF16},
    {"codebook4:g32", &kF16},
};

const Shape kShapes[] = {
    {0, 48, 64, "no token"},
    {1, 64, 64, "one token, one tile"},
    {1, 1, 1, "one of everything"},
    {3, 17, 5, "N and K smaller than, and no multiple of, anything"},
    {2, 16, 8, "one strip, one dword of nibbles"},
    {5, 1, 300, "one output; a short last group"},
    {7, 130, 96, "no dimension a multiple of a tile; one row past the register tile"},
    {13, 80, 259, "K no multiple of 2, 4, 8 or of a group"},
    {33, 100, 288, "row blocks of unequal size; three strips and a half"},
    {50, 72, 130, "more rows than a tile"},
    {531, 20, 136, "more rows than wait at once, parts of unequal size"},
    {2, 33, 5000, "K longer than a panel of any kernel"},
};

// A scheme's name, then what checkpoints may change about it: "+x_asym", "+x_static", "+w_asym",
// "+w_row".
Scheme scheme_of(const std::string& name) {
  Scheme scheme = parse_scheme(name.substr(0, name.find(' ')));
  const auto has = [&](const char* what) { return name.find(what) != std::string::npos; };
  if (has("+x_asym")) scheme.activation.asymmetric = true;
  if (has("+x_static")) {
    scheme.activation.when = When::kStatic;
    scheme.activation.block = per_tensor();
  }
  if (has("+w_asym")) scheme.weight.asymmetric = true;
  if (has("+w_row")) scheme.weight.block = per_row();
  scheme.name = name;
  return scheme;
}

std::string name_of(const SchemeCase& c) {
  return std::string(c.scheme) + " " + std::string(c.run->name);
}

class Linear : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    for (const cpu::IsaRow& row : cpu::isa_rows()) {
      const std::string lack = row.name == GetParam() ? cpu::missing(row.isa) : "";
      if (!lack.empty()) GTEST_SKIP() << "this processor lacks " << lack;
    }
  }
};

// Small integers and one-hot rows: every partial sum is exact, so is the result but for one
// rounding.
TEST_P(Linear, ExactWhereSumsAreExact) {
  CpuDevice device(GetParam());
  for (const SchemeCase& c : kCases) {
    for (const Shape& shape : kShapes) {
      for (const Fill fill : {Fill::kIntegers, Fill::kOneHot}) {
        SCOPED_TRACE(name_of(c) + ": " + shape.why);
        Problem p(scheme_of(c.scheme), *c.run, shape,
                  {.fill = fill, .bias = true, .residual = true});
        const Weight w = p.pack(device.queue());
        Buffer out = p.run(w, device.queue());
        Values want, bound;
        p.reference(want, bound);
        for (double& v : want) v = compare::rounded(p.out_elem(), v);
        EXPECT_TRUE(compare::within(out.view(), want, Values(want.size(), 0)));
      }
    }
  }
}

TEST_P(Linear, WithinTheWorstCaseBound) {
  CpuDevice device(GetParam());
  uint32_t seed = 7;
  for (const SchemeCase& c : kCases) {
    for (const Shape& shape : kShapes) {
      for (const int epilogue : {0, 1, 2, 3}) {
        SCOPED_TRACE(name_of(c) + ": " + shape.why);
        Problem p(scheme_of(c.scheme), *c.run, shape,
                  {.bias = epilogue % 2 == 1, .residual = epilogue / 2 == 1, .seed = ++seed});
        const Weight w = p.pack(device.queue(), 16);
        Buffer out = p.run(w, device.queue());
        Values want, bound;
        p.reference(want, bound);
        EXPECT_TRUE(compare::within(out.view(), want, bound));
      }
    }
  }
}

TEST_P(Linear, RealLayerAndLongK) {
  CpuDevice device(GetParam());
  const Shape shapes[] = {{17, 192, 2048, "a layer's K, three tiles"},
                          {2, 20, 70000, "K beyond the int32-safe chunk"}};
  for (const SchemeCase& c : kCases) {
    for (const Shape& shape : shapes) {
      SCOPED_TRACE(name_of(c) + ": " + shape.why);
      Problem p(scheme_of(c.scheme), *c.run, shape, {.bias = true, .f32_out = true, .seed = 3});
      const Weight w = p.pack(device.queue());
      Buffer out = p.run(w, device.queue());
      Values want, bound;
      p.reference(want, bound);
      EXPECT_TRUE(compare::within(out.view(), want, bound));
      const compare::Rms rms = compare::rms_of(out.view(), want);
      const double u = compare::unit_roundoff(kF32);
      EXPECT_LE(rms.error, 4 * std::sqrt(static_cast<double>(shape.k)) * u * rms.value);
    }
  }
}

// Extreme codes of int8: 255 * 128 * 2^16 must not overflow a chunk's int32.
TEST_P(Linear, Int8ExtremesOverLongK) {
  CpuDevice device(GetParam());
  for (const char* scheme :
       {"int8", "int8:asym", "int8 +w_asym", "int8:asym +w_asym", "int8_int8:g256:asym +x_asym"}) {
    Problem p(scheme_of(scheme), kBF16, {1, 16, 70000, "longer than a chunk"},
              {.fill = Fill::kOneHot, .f32_out = true});
    p.saturate();
    const Weight w = p.pack(device.queue());
    Buffer out = p.run(w, device.queue());
    Values want, bound;
    p.reference(want, bound);
    EXPECT_TRUE(compare::within(out.view(), want, bound)) << scheme;
  }
}

// Every code of every element, NaN and infinities too, in a channel of its own beside zeros: by
// rows alone, by blocks and by panels.
TEST_P(Linear, EveryCodeOfEveryElement) {
  CpuDevice device(GetParam());
  for (const Elem* elem : all_elems()) {
    if (elem->bits() > 8 || *elem == kE8M0) continue;
    WeightRequest request{.name = "w", .scheme = {}, .run_dtype = &kBF16, .rows = 256, .cols = 48};
    request.scheme.weight = {.elem = elem, .block = per_row(), .when = When::kAtLoad};
    Weight w = cpu::plan_weight(request, device.queue());
    std::vector<std::byte> memory(static_cast<size_t>(w.bytes) + 64);
    w.data = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    QuantRows q;
    q.elem = elem;
    q.block = per_row();
    q.rows = request.rows;
    q.cols = request.cols;
    q.codes.assign(static_cast<size_t>(q.rows * q.cols), 0);
    for (int64_t n = 0; n < q.rows; ++n)
      q.codes[static_cast<size_t>(n * q.cols + n % q.cols)] =
          static_cast<uint8_t>(n & code_mask(*elem));
    q.scales.assign(static_cast<size_t>(q.rows), 1.0f);
    cpu::pack_rows(w, 0, q, device.queue());
    cpu::finish_weight(w, device.queue());
    for (const int64_t m : {1, 3, 16, 40}) {
      Buffer x(kBF16, m, q.cols), out(kBF16, m, q.rows);
      for (int64_t i = 0; i < m * q.cols; ++i) x.set(i, 1);
      Activation in;
      in.high = x.view();
      cpu::linear(out.view(), in, w, {}, device.queue());
      for (int64_t i = 0; i < m * q.rows; ++i) {
        uint16_t bits;
        std::memcpy(&bits, out.bytes.data() + 2 * i, 2);
        const double got = f32_from_bf16(bits);
        const double want = decode(*elem, static_cast<uint32_t>(i % q.rows) & code_mask(*elem));
        ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
            << elem->name << ", code " << i % q.rows << " of " << m << " rows: " << got
            << " instead of " << want;
      }
    }
  }
}

// A row alone, in a batch, and with any number of threads: the same bits.
TEST_P(Linear, RowsDoNotDependOnTheBatchOrTheThreads) {
  CpuDevice device(GetParam()), single(GetParam(), 1), many(GetParam(), 5);
  const Shape shape{61, 200, 700, "rows of every remainder of the register tile"};
  for (const SchemeCase& c : kCases) {
    SCOPED_TRACE(name_of(c));
    Problem p(scheme_of(c.scheme), *c.run, shape, {.bias = true, .residual = true});
    const Weight w = p.pack(device.queue());
    Buffer batch = p.run(w, device.queue());
    EXPECT_TRUE(compare::bit_equal(batch.view(), p.run(w, single.queue()).view()));
    EXPECT_TRUE(compare::bit_equal(batch.view(), p.run(w, many.queue()).view()));
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 16, 33}) {
      Buffer some = p.run(w, device.queue(), 60 - rows, rows);
      ASSERT_TRUE(compare::bit_equal(batch.view().row_range(60 - rows, rows), some.view())) << rows;
    }
  }
}

// MX: the kernel is given x with its scales multiplied where no float leaves the normal range, else
// the sums of groups are scaled. A row has the same bits either way.
TEST_P(Linear, MxRowsDoNotDependOnOtherRowsScales) {
  CpuDevice device(GetParam());
  for (const char* scheme : {"mxfp8", "mxfp6", "mxfp4"}) {
    for (const int exponent : {-127, -100, 100}) {
      SCOPED_TRACE(text(scheme, " 2^", exponent));
      Problem p(parse_scheme(scheme), kBF16, {9, 75, 300, "a short last group"}, {.bias = true});
      const Weight w = p.pack(device.queue());
      Buffer before = p.run(w, device.queue());
      p.set_x_scale(4, 2, std::ldexp(1.0f, exponent));
      Buffer after = p.run(w, device.queue());
      for (const int64_t row : {0, 1, 2, 3, 5, 6, 7, 8})
        EXPECT_TRUE(
            compare::bit_equal(before.view().row_range(row, 1), after.view().row_range(row, 1)));
      Values want, bound;
      p.reference(want, bound);
      EXPECT_TRUE(compare::within(after.view(), want, bound));
    }
  }
}

// More rows than any kernel takes without a panel; K has a short last group.
constexpr Shape kPanelRows{47, 75, 300, "panels"};

// The result of all rows is within the bound, and some rows alone have the same bits.
void expect_rows_alone_as_together(Problem& p, Queue* queue) {
  const Weight w = p.pack(queue);
  Buffer batch = p.run(w, queue);
  for (const int64_t row : {0, 23, 46}) {
    EXPECT_TRUE(compare::bit_equal(batch.view().row_range(row, 1), p.run(w, queue, row, 1).view()));
  }
  Values want, bound;
  p.reference(want, bound);
  EXPECT_TRUE(compare::within(batch.view(), want, bound));
}

// The same of the weight's scales, beside codes that are all zero or not, and of both operands':
// panels are given to the kernel with their scales multiplied where that is exact; one row never
// is.
TEST_P(Linear, MxRowsAloneAndTogetherWhateverTheScales) {
  CpuDevice device(GetParam());
  struct Exponents {
    int weight, x;
  };
  constexpr Exponents kOfWeight[] = {{-127, 0}, {-90, 0}, {-41, 0}, {41, 0}, {90, 0}},
                      kOfBoth[] = {{-127, 0}, {41, 0},    {40, 40},  {-40, -40},
                                   {41, 41},  {-41, -41}, {90, -90}, {-127, 100}};
  const auto expect = [&](const char* scheme, const Exponents& far, bool zero) {
    SCOPED_TRACE(text(scheme, " 2^", far.weight, " 2^", far.x, zero ? ", codes of 0" : ""));
    Problem p(parse_scheme(scheme), kBF16, kPanelRows, {.bias = true});
    constexpr int64_t kGroup = 32, kGroups = (kPanelRows.k + kGroup - 1) / kGroup;
    for (const int64_t row : {3, 70}) {
      p.weight.scales[static_cast<size_t>(row * kGroups + 2)] = std::ldexp(1.0f, far.weight);
      if (!zero) continue;
      std::fill_n(p.weight.codes.begin() + row * kPanelRows.k + 2 * kGroup, kGroup, uint8_t{0});
    }
    if (far.x != 0) p.set_x_scale(23, 2, std::ldexp(1.0f, far.x));
    expect_rows_alone_as_together(p, device.queue());
  };
  for (const bool zero : {false, true}) {
    for (const char* scheme : {"mxfp8_weight_only", "mxfp4_weight_only"})
      for (const Exponents& far : kOfWeight) expect(scheme, far, zero);
    for (const char* scheme : {"mxfp6", "mxfp4"})
      for (const Exponents& far : kOfBoth) expect(scheme, far, zero);
  }
}

// Panels have e4m3 scales multiplied in; a row alone their mantissas only, or, beside x of NVFP4,
// nothing: the least (subnormal) and the greatest scale, every mantissa, and 0; x's alone and
// beside them.
TEST_P(Linear, NvRowsAloneAndTogetherWithExtremeScales) {
  CpuDevice device(GetParam());
  constexpr float kLeast = 0x1p-9f, kGreatest = 448;
  constexpr int64_t kGroups = (kPanelRows.k + 15) / 16;
  const auto expect = [&](const char* scheme, float of_weight, float of_x) {
    SCOPED_TRACE(text(scheme, " ", of_weight, ", ", of_x));
    Problem p(parse_scheme(scheme), kBF16, kPanelRows, {.bias = true});
    for (const int64_t row : {3, 70}) {
      for (const int64_t group : {int64_t{2}, kGroups - 1})
        p.weight.scales[static_cast<size_t>(row * kGroups + group)] = of_weight;
    }
    if (of_x != 0) {
      p.set_x_scale(23, 2, of_x);
      p.set_x_scale(46, kGroups - 1, of_x);
    }
    expect_rows_alone_as_together(p, device.queue());
  };
  for (const float of_weight : {0.0f, kLeast, 3 * kLeast, 7 * kLeast, 0.25f, 1.125f, 1.25f, 1.375f,
                                1.5f, 1.625f, 1.75f, 1.875f, kGreatest})
    expect("nvfp4_weight_only", of_weight, 0);
  for (const float of_weight : {0.0f, kLeast, 7 * kLeast, 1.375f, 1.875f, kGreatest})
    for (const float of_x : {kLeast, 1.625f, kGreatest}) expect("nvfp4", of_weight, of_x);
}

// One group of one channel has a scale that is NaN, its codes are all zero or not: so are that
// channel's outputs, and no others.
TEST_P(Linear, NvScaleOfNan) {
  CpuDevice device(GetParam());
  const auto expect = [&](const char* scheme, bool zero) {
    SCOPED_TRACE(text(scheme, zero ? ", codes of 0" : ""));
    Problem p(parse_scheme(scheme), kBF16, kPanelRows, {.f32_out = true});
    constexpr int64_t kGroups = (kPanelRows.k + 15) / 16, kChannel = 3;
    p.weight.scales[static_cast<size_t>(kChannel * kGroups + 2)] =
        std::numeric_limits<float>::quiet_NaN();
    if (zero) std::fill_n(p.weight.codes.begin() + kChannel * kPanelRows.k + 32, 16, uint8_t{0});
    const Weight w = p.pack(device.queue());
    for (const int64_t rows : {int64_t{1}, int64_t{16}, kPanelRows.m}) {
      Buffer out = p.run(w, device.queue(), 0, rows);
      for (int64_t i = 0; i < rows * kPanelRows.n; ++i) {
        float value;
        std::memcpy(&value, out.bytes.data() + 4 * i, 4);
        ASSERT_EQ(std::isnan(value), i % kPanelRows.n == kChannel) << rows << " rows";
      }
    }
  };
  for (const char* scheme : {"nvfp4_weight_only", "nvfp4"})
    for (const bool zero : {false, true}) expect(scheme, zero);
}

TEST_P(Linear, ResidualMayBeTheOutput) {
  CpuDevice device(GetParam());
  for (const char* scheme : {"bf16", "int8", "ptpc_fp8", "int4_weight_only:g32", "int4_int8:g32"}) {
    Problem p(parse_scheme(scheme), kBF16, {9, 75, 64, "a ragged last strip"}, {.residual = true});
    const Weight w = p.pack(device.queue());
    Buffer apart = p.run(w, device.queue());
    Buffer in_place = p.run(w, device.queue(), 0, 9, /*in_place=*/true);
    EXPECT_TRUE(compare::bit_equal(apart.view(), in_place.view())) << scheme;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Linear, ::testing::Values("portable", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace mantissa::linear_test
