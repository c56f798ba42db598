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

// What `produce` leaves in high and codes: the codes are those of high.
template <class Produce>
void check_codes(const Device& gpu, const Elem& run, int64_t m, int64_t k, const char* name,
                 const Produce& produce, Tensor& high) {
  const Device ref(kRefOps);
  const Spec spec = parse_scheme(name).activation;
  const GpuTensor out(gpu, poisoned(run, m, k));
  Codes empty(spec, m, k);
  if (spec.when == When::kStatic) {  // small enough that some values saturate
    empty.scales[0] = spec.elem->is_float() ? 0.004f : 0.017f;
    empty.global = 0.002f;
    empty.zeros[0] = 5;
  }
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

void expect_near(const Tensor& got, const Tensor& want) {
  std::vector<double> values, bound;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      values.push_back(want.at(r, c));
      bound.push_back(std::abs(values.back()) * (compare::unit_roundoff(got.elem()) * 1.01 + 1e-5) +
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

}  // namespace
}  // namespace mantissa
