// Norm, gate and quantizing on the GPU: the run dtype's values within a rounding of the reference,
// codes and scales bit for bit those of the reference's quantizer on the same values.
#include "gpu.h"

namespace mantissa {
namespace {

constexpr const Elem* kRun[] = {&kBF16, &kF16, &kF32};
constexpr const char* kQuantizing[] = {"fp8",
                                       "ptpc_fp8",
                                       "fp8_block",
                                       "int8",
                                       "int8:asym",
                                       "fp8_static",
                                       "int8:static",
                                       "int8:asym:static",
                                       "mxfp8",
                                       "mxfp8:recipe=even",
                                       "mxfp6",
                                       "mxfp6:e2m3",
                                       "mxfp4",
                                       "mxfp4:recipe=rceil",
                                       "mxfp4:recipe=modelopt",
                                       "nvfp4",
                                       "nvfp4:static",
                                       "nvfp4:recipe=ct",
                                       "nvfp4:recipe=modelopt"};

class RowsCuda : public GpuTest {};

// Static scales are small enough that some values saturate.
Codes empty_codes(const Spec& spec, int64_t m, int64_t k) {
  Codes empty(spec, m, k);
  if (spec.when == When::kStatic) {
    empty.scales[0] = spec.elem->is_float() ? 0.004f : 0.017f;
    empty.global = 0.002f;
    empty.zeros[0] = 5;
  }
  return empty;
}

// What `produce` leaves in high and codes: the codes are those of high.
template <class Produce>
void check_codes(const Device& gpu, const Elem& run, int64_t m, int64_t k, const char* name,
                 const Produce& produce, Tensor& high) {
  const Device ref(kRefOps);
  const Spec spec = parse_scheme(name).activation;
  const GpuTensor out(gpu, poisoned(run, m, k));
  const Codes empty = empty_codes(spec, m, k);
  GpuCodes codes(gpu, empty), alone(gpu, empty);
  Activation both = high_only(out.view());
  both.quantized[0] = codes.view();
  both.quantized_count = 1;
  produce(both);
  high = out.fetch();
  Codes want(empty);
  Activation expected = high_only(high.view());
  expected.quantized[0] = want.view();
  expected.quantized_count = 1;
  ref.ops.quantize_rows(expected, ref.queue());
  EXPECT_TRUE(codes.fetch() == want) << name << " " << run.name << " " << m << " x " << k;
  Activation only = both;  // nobody reads the run dtype
  only.high = {};
  only.quantized[0] = alone.view();
  produce(only);
  EXPECT_TRUE(alone.fetch() == want) << name << " alone " << run.name << " " << m << " x " << k;
}

// roundings: how many of them lie between the two.
void expect_near(const Tensor& got, const Tensor& want, double roundings = 1) {
  std::vector<double> values, bound;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      values.push_back(want.at(r, c));
      bound.push_back(std::abs(values.back()) *
                          (compare::unit_roundoff(got.elem()) * 1.01 * roundings + 1e-5) +
                      1e-7);
    }
  }
  EXPECT_TRUE(compare::within(got.view(), values, bound)) << got.elem().name;
}

TEST_F(RowsCuda, NormAndItsCodes) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const Elem* run : kRun) {
    for (const auto& [m, k] : {std::pair{1, 64}, {3, 100}, {5, 4096}, {2, 1000}, {33, 384}}) {
      Tensor x(*run, m, k);
      x.fill(static_cast<uint32_t>(k), 3);
      std::vector<float> gain(static_cast<size_t>(k));
      for (size_t i = 0; i < gain.size(); ++i) gain[i] = 0.5f + static_cast<float>(i % 13) / 8;
      Tensor want(kF32, m, k), high;
      Tensor wide(kF32, m, k);
      for (int r = 0; r < m; ++r)
        for (int c = 0; c < k; ++c) wide.set(r, c, x.at(r, c));
      ref.ops.rms_norm(high_only(want.view()), wide.view(), gain.data(), 1e-5f, ref.queue());
      const GpuTensor on_gpu(gpu, x);
      const OnGpu gpu_gain(gpu, gain.data(), k * 4);
      for (const char* name : kQuantizing) {
        check_codes(
            gpu, *run, m, k, name,
            [&](const Activation& out) {
              gpu.ops.rms_norm(out, on_gpu.view(), gpu_gain.as<float>(), 1e-5f, gpu.queue());
            },
            high);
        expect_near(high, want);
      }
    }
  }
}

TEST_F(RowsCuda, GateAndItsCodes) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const Elem* run : kRun) {
    for (const auto& [m, k] : {std::pair{1, 64}, {3, 100}, {2, 14336}, {33, 384}}) {
      for (const GateFn fn : {GateFn::kSilu, GateFn::kGeluTanh}) {
        Tensor x(*run, m, 2 * k), wide(kF32, m, 2 * k), want(kF32, m, k), high;
        x.fill(static_cast<uint32_t>(k), 3);
        for (int r = 0; r < m; ++r)
          for (int c = 0; c < 2 * k; ++c) wide.set(r, c, x.at(r, c));
        ref.ops.gate(high_only(want.view()), wide.view(), fn, ref.queue());
        const GpuTensor on_gpu(gpu, x);
        for (const char* name : kQuantizing) {
          check_codes(
              gpu, *run, m, k, name,
              [&](const Activation& out) { gpu.ops.gate(out, on_gpu.view(), fn, gpu.queue()); },
              high);
        }
        if (fn == GateFn::kSilu) expect_near(high, want);
      }
    }
  }
}

TEST_F(RowsCuda, ObservedRangesGrowAndLeaveOutWhatIsNotFinite) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const Elem* run : kRun) {
    float want[2] = {0, 0}, got[2] = {0, 0};
    const OnGpu range(gpu, got, sizeof got);
    for (const auto& [m, k] : {std::pair{33, 384}, {1, 7}, {5, 4096}}) {
      Tensor x(*run, m, k);
      x.fill(static_cast<uint32_t>(k), 3);
      x.set(0, 1, std::numeric_limits<double>::infinity());
      x.set(0, 2, std::numeric_limits<double>::quiet_NaN());
      ref.ops.observe(x.view(), want, ref.queue());
      const GpuTensor on_gpu(gpu, x);
      gpu.ops.observe(on_gpu.view(), range.as<float>(), gpu.queue());
      range.download(got);
      EXPECT_EQ(got[0], want[0]) << run->name;
      EXPECT_EQ(got[1], want[1]) << run->name;
    }
  }
}

// Alone: rows in registers, in a cluster of blocks, through memory; one row and many.
TEST_F(RowsCuda, QuantizedAlone) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const Elem* run : {&kBF16, &kF32}) {
    for (const auto& [m, k] : {std::pair{1, 64},
                               {1, 8192},
                               {1, 14336},
                               {3, 100},
                               {70, 4096},
                               {300, 1024},
                               {2, 16384},
                               {1, 33000}}) {
      Tensor x(*run, m, k);
      x.fill(static_cast<uint32_t>(m + k), 2);
      if (k > 64) x.set(0, 63, HUGE_VAL);  // a range is of finite values
      if (k > 64) x.set(0, 17, std::nan(""));
      const GpuTensor on_gpu(gpu, x);
      for (const char* name : kQuantizing) {
        const Spec spec = parse_scheme(name).activation;
        Codes want = empty_codes(spec, m, k);
        GpuCodes got(gpu, want);
        Activation expected = high_only(x.view()), out = high_only(on_gpu.view());
        expected.quantized[0] = want.view();
        out.quantized[0] = got.view();
        expected.quantized_count = out.quantized_count = 1;
        ref.ops.quantize_rows(expected, ref.queue());
        gpu.ops.quantize_rows(out, gpu.queue());
        EXPECT_TRUE(got.fetch() == want) << name << " " << run->name << " " << m << " x " << k;
      }
    }
  }
}

TEST_F(RowsCuda, GatheredRows) {
  const Device gpu(kCudaOps, {});
  for (const Elem* run : kRun) {
    for (const int64_t cols : {1, 33, 512}) {
      Tensor x(*run, 40, cols);
      x.fill(5);
      std::vector<int32_t> rows;  // more than one launch takes
      for (int i = 0; i < 300; ++i) rows.push_back(i * 7 % 40);
      Tensor want(*run, static_cast<int64_t>(rows.size()), cols);
      for (int64_t r = 0; r < want.rows(); ++r)
        for (int64_t c = 0; c < cols; ++c) want.set(r, c, x.at(rows[static_cast<size_t>(r)], c));
      const GpuTensor on_gpu(gpu, x), out(gpu, poisoned(*run, want.rows(), cols));
      gpu.ops.gather_rows(out.view(), on_gpu.view(), rows, gpu.queue());
      EXPECT_TRUE(compare::bit_equal(out.fetch().view(), want.view())) << run->name << " " << cols;
    }
  }
}

TEST_F(RowsCuda, EmbeddedTokens) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const char* name : {"bf16", "ptpc_fp8", "int8_weight_only", "int4_weight_only:g32"}) {
    for (const float multiplier : {1.0f, 2.5f}) {
      const Scheme scheme = parse_scheme(name);
      constexpr int64_t kRows = 50, kCols = 384;
      std::vector<float> values(kRows * kCols);
      std::mt19937 random(9);
      std::normal_distribution<float> normal(0, 1);
      for (float& v : values) v = static_cast<float>(compare::rounded(kBF16, normal(random)));
      WeightQuantizer quantizer(scheme.weight, kRows, kCols, kBF16);
      QuantRows q;
      quantizer.quantize(0, {values.data(), kRows, kCols}, q);
      const std::vector<int32_t> ids = {3, 49, 0, 3, 17};
      const auto run = [&](const Device& device) {
        Weight table = device.ops.plan_weight({.name = "test",
                                               .scheme = scheme,
                                               .run_dtype = &kBF16,
                                               .rows = kRows,
                                               .cols = kCols,
                                               .gathered = true},
                                              device.queue());
        const std::vector<std::byte> zeros(static_cast<size_t>(table.bytes));
        const OnGpu memory(device, zeros.data(), table.bytes);
        table.data = memory.as<std::byte>();
        device.ops.pack_rows(table, 0, q, device.queue());
        device.ops.finish_weight(table, device.queue());
        const OnGpu on_device(device, ids.data(), static_cast<int64_t>(ids.size() * 4));
        Batch batch;
        batch.tokens = static_cast<int32_t>(ids.size());
        batch.token_ids = on_device.as<int32_t>();
        const GpuTensor out(device, poisoned(kBF16, batch.tokens, kCols));
        device.ops.embed(out.view(), table, multiplier, batch, device.queue());
        return out.fetch();
      };
      expect_near(run(gpu), run(ref), 2);
    }
  }
}

}  // namespace
}  // namespace mantissa
