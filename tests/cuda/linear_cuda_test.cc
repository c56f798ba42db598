// Linear on the GPU against the reference: every format that plan_weight takes, on shapes that are
// small, ragged, and on either side of the small-batch kernels.
#include "gpu.h"

namespace mantissa {
namespace {

struct Shape {
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {{1, 16, 128},   {3, 40, 128},    {8, 200, 256}, {9, 72, 384},
                             {17, 136, 256}, {1, 24, 100},    {5, 64, 96},   {2, 300, 1152},
                             {4, 4096, 512}, {130, 192, 640}, {1, 17, 4096}, {40, 72, 128},
                             {32, 48, 1056}};
constexpr const char* kSchemes[] = {"bf16",
                                    "fp8",
                                    "fp8:act=token",
                                    "ptpc_fp8",
                                    "fp8_block",
                                    "fp8_weight_only",
                                    "int8",
                                    "int8:asym",
                                    "fp8_static",
                                    "int8:static",
                                    "int8:asym:static",
                                    "int8_weight_only",
                                    "int8_weight_only:g128",
                                    "int8_weight_only:asym",
                                    "int4_weight_only",
                                    "int4_weight_only:g32",
                                    "int4_weight_only:g64",
                                    "int4_weight_only:g256",
                                    "int4_weight_only:g32:asym",
                                    "int4_weight_only:g64:asym",
                                    "int4_weight_only:asym",
                                    "int4_weight_only:channel",
                                    "int4_fp8",
                                    "int4_int8",
                                    "int3_weight_only",
                                    "int4_int8:g32:asym",
                                    "int8_int1",
                                    "int8_int3:g64",
                                    "int8_int5:asym",
                                    "int8_int8",
                                    "int8_int8:g32",
                                    "int2_weight_only:g32:asym",
                                    "int5_weight_only:channel",
                                    "int7_weight_only:g256",
                                    "mxfp8",
                                    "mxfp6",
                                    "mxfp6:e2m3",
                                    "mxfp4",
                                    "nvfp4",
                                    "nvfp4:static",
                                    "mxfp6_weight_only",
                                    "codebook2:g32",
                                    "mxfp8_weight_only",
                                    "mxfp4_weight_only",
                                    "nvfp4_weight_only",
                                    "codebook4"};

QuantRows quantized(const Spec& spec, const Elem& run, const Shape& s) {
  std::mt19937 random(static_cast<uint32_t>(7 * s.n + s.k));
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> values(static_cast<size_t>(s.n * s.k));
  for (float& v : values) v = static_cast<float>(compare::rounded(run, normal(random)));
  const Matrix<const float> w(values.data(), s.n, s.k);
  WeightQuantizer quantizer(spec, s.n, s.k, run);
  if (quantizer.needs_observe()) quantizer.observe(w);
  QuantRows q;
  quantizer.quantize(0, w, q);
  return q;
}

// The weight packed on a device.
class Packed {
 public:
  Packed(const Device& device, const WeightRequest& request, const QuantRows& q)
      : device_(device), weight(device.ops.plan_weight(request, device.queue())) {
    weight.data = device.ops.allocate(weight.bytes, "a test", device.queue());
    device.ops.pack_rows(weight, 0, q, device.queue());
    device.ops.finish_weight(weight, device.queue());
  }
  ~Packed() { device_.ops.release(weight.data, weight.bytes, device_.queue()); }
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

 private:
  const Device& device_;

 public:
  Weight weight;
};

std::vector<double> row_norms(Matrix<const float> x) {
  std::vector<double> out;
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (const float v : x.row(r)) squares += double{v} * v;
    out.push_back(std::sqrt(squares));
  }
  return out;
}

std::vector<double> values_of(const Tensor& t) {
  std::vector<double> out;
  for (int64_t r = 0; r < t.rows(); ++r)
    for (int64_t c = 0; c < t.cols(); ++c) out.push_back(t.at(r, c));
  return out;
}

class LinearCuda : public GpuTest {
 protected:
  void run(const std::string& name, const Elem& run, const Shape& s, bool f32_out,
           const char* isa = "auto");
  void run_exact(const std::string& name, const Elem& run, const Shape& s, bool f32_out,
                 const char* isa);
};

void LinearCuda::run(const std::string& name, const Elem& run, const Shape& s, bool f32_out,
                     const char* isa) {
  const Device ref(kRefOps), gpu(kCudaOps, {.isa = isa});
  const Scheme scheme = parse_scheme(name);
  const WeightRequest request{
      .name = "test", .scheme = scheme, .run_dtype = &run, .rows = s.n, .cols = s.k};
  const QuantRows q = quantized(scheme.weight, run, s);
  const Packed on_ref(ref, request, q), on_gpu(gpu, request, q);
  QuantRows again;
  gpu.ops.unpack_rows(on_gpu.weight, 0, s.n, again, gpu.queue());
  EXPECT_EQ(again.codes, q.codes) << name;

  Tensor x(run, s.m, s.k), residual(run, s.m, s.n);
  x.fill(3);
  residual.fill(4);
  std::vector<float> bias(static_cast<size_t>(s.n));
  for (size_t n = 0; n < bias.size(); ++n) bias[n] = static_cast<float>(n % 7) - 3;
  Codes codes(scheme.activation.quantized() ? scheme.activation : parse_scheme("int8").activation,
              s.m, s.k);
  if (codes.spec.when == When::kStatic) {
    codes.scales[0] = 0.03f;
    codes.zeros[0] = -7;
    codes.global = 0.002f;
  }
  Activation x_ref = high_only(x.view());
  if (scheme.activation.quantized()) {
    x_ref.quantized[0] = codes.view();
    x_ref.quantized_count = 1;
    ref.ops.quantize_rows(x_ref, ref.queue());
  }
  Tensor exact(kF32, s.m, s.n);
  ref.ops.linear(exact.view(), x_ref, on_ref.weight,
                 {.bias = bias.data(), .residual = residual.view()}, ref.queue());

  const GpuTensor gpu_x(gpu, x), gpu_residual(gpu, residual);
  GpuCodes gpu_codes(gpu, codes);
  Activation x_gpu = high_only(gpu_x.view());
  if (scheme.activation.quantized()) {
    x_gpu.quantized[0] = gpu_codes.view();
    x_gpu.quantized_count = 1;
  }
  const OnGpu gpu_bias(gpu, bias.data(), s.n * 4);
  const Elem& out_elem = f32_out ? kF32 : run;
  const GpuTensor out(gpu, poisoned(out_elem, s.m, s.n));
  gpu.ops.linear(out.view(), x_gpu, on_gpu.weight,
                 {.bias = gpu_bias.as<float>(), .residual = gpu_residual.view()}, gpu.queue());

  // An f32 sum, in whatever order; for e4m3, Hopper's tensor cores align 32 products and the sum so
  // far to the largest of them and cut below 2^-13 of it, four times between promotions.
  const bool e4m3 = scheme.activation.quantized() && *scheme.activation.elem == kE4M3;
  const double unit = e4m3 ? 4 * 0x1p-13 : 0x1p-20;
  std::vector<float> w(static_cast<size_t>(s.n * s.k)), values;
  dequantize(q, {w.data(), s.n, s.k});
  for (const double v : [&] {
         std::vector<double> all;
         for (int64_t r = 0; r < s.m; ++r)
           for (int64_t c = 0; c < s.k; ++c) all.push_back(x.at(r, c));
         return all;
       }())
    values.push_back(static_cast<float>(v));
  const std::vector<double> x_norms = row_norms({values.data(), s.m, s.k});
  const std::vector<double> w_norms = row_norms({w.data(), s.n, s.k});
  std::vector<double> want, bound;
  for (int64_t m = 0; m < s.m; ++m) {
    for (int64_t n = 0; n < s.n; ++n) {
      want.push_back(exact.at(m, n));
      bound.push_back(std::abs(want.back()) * compare::unit_roundoff(out_elem) * 1.01 + 1e-6 +
                      unit * x_norms[static_cast<size_t>(m)] * w_norms[static_cast<size_t>(n)]);
    }
  }
  const Tensor got = out.fetch();
  const std::string label = text(name, " ", run.name, " ", s.m, " x ", s.n, " x ", s.k, " ", isa);
  EXPECT_TRUE(compare::within(got.view(), want, bound)) << label;
  const compare::Rms rms = compare::rms_of(got.view(), want);
  const double sums = 4 * std::sqrt(static_cast<double>(s.k)) * (e4m3 ? 0x1p-14 : 0x1p-24);
  EXPECT_LE(rms.error, (compare::unit_roundoff(out_elem) + sums) * rms.value) << label;
}

// The code of a small integer, or of the nearest that the format has.
uint8_t small_code(const Elem& elem, int value) {
  const double least = std::max(-2.0, min_value(elem)), most = std::min(2.0, max_value(elem));
  return static_cast<uint8_t>(encode(elem, std::clamp<double>(value, least, most)));
}

// Codes of small integers and scales of 1: every partial sum is exact, so results are too.
void LinearCuda::run_exact(const std::string& name, const Elem& run, const Shape& s, bool f32_out,
                           const char* isa) {
  const Device gpu(kCudaOps, {.isa = isa});
  const Scheme scheme = parse_scheme(name);
  const WeightRequest request{
      .name = "test", .scheme = scheme, .run_dtype = &run, .rows = s.n, .cols = s.k};
  std::mt19937 random(static_cast<uint32_t>(s.m + s.n + s.k));
  const auto draw = [&] { return static_cast<int>(random() % 5) - 2; };
  QuantRows q = quantized(scheme.weight, run, s);  // for its shape
  std::vector<double> w(static_cast<size_t>(s.n * s.k)), x(static_cast<size_t>(s.m * s.k));
  if (scheme.weight.quantized()) {
    std::ranges::fill(q.scales, 1.0f);
    std::ranges::fill(q.zero_points, 0);
    q.global_scale = 1;
    for (float& entry : q.codebook) entry = static_cast<float>(draw());
    for (uint8_t& code : q.codes)
      code =
          scheme.weight.codebook ? static_cast<uint8_t>(random() % 4) : small_code(*q.elem, draw());
  } else {
    for (size_t i = 0; i < w.size(); ++i) {
      const auto code = encode(run, draw());
      std::memcpy(q.codes.data() + i * static_cast<size_t>(run.bits() / 8), &code,
                  static_cast<size_t>(run.bits() / 8));
    }
  }
  std::vector<float> values(w.size());
  dequantize(q, {values.data(), s.n, s.k});
  std::ranges::copy(values, w.begin());
  const Packed packed(gpu, request, q);

  const bool codes_in = scheme.activation.quantized();
  Tensor high(run, s.m, s.k);
  Codes codes(codes_in ? scheme.activation : parse_scheme("int8").activation, s.m, s.k);
  std::ranges::fill(codes.scales, 1.0f);
  std::ranges::fill(codes.zeros, 0);
  for (int64_t i = 0; i < s.m * s.k; ++i) {
    const int value = draw();
    x[static_cast<size_t>(i)] = value;
    high.set(i / s.k, i % s.k, value);
    codes.codes[static_cast<size_t>(i)] = small_code(*codes.spec.elem, value);
  }
  const GpuTensor gpu_high(gpu, high);
  GpuCodes gpu_codes(gpu, codes);
  Activation in = high_only(gpu_high.view());
  if (codes_in) {
    in.quantized[0] = gpu_codes.view();
    in.quantized_count = 1;
  }
  const Elem& out_elem = f32_out ? kF32 : run;
  const GpuTensor out(gpu, poisoned(out_elem, s.m, s.n));
  gpu.ops.linear(out.view(), in, packed.weight, {}, gpu.queue());
  Tensor want(out_elem, s.m, s.n);
  for (int64_t m = 0; m < s.m; ++m) {
    for (int64_t n = 0; n < s.n; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < s.k; ++k)
        sum += x[static_cast<size_t>(m * s.k + k)] * w[static_cast<size_t>(n * s.k + k)];
      want.set(m, n, sum);
    }
  }
  EXPECT_TRUE(compare::within(out.fetch().view(), values_of(want),
                              std::vector<double>(static_cast<size_t>(s.m * s.n), 0)))
      << name << " " << run.name << " " << s.m << " x " << s.n << " x " << s.k << " " << isa;
}

TEST_F(LinearCuda, EveryFormatInBf16) {
  for (const char* name : kSchemes)
    for (const Shape& s : kShapes) run(name, kBF16, s, s.m % 2 == 0);
}
TEST_F(LinearCuda, ExactOnSmallIntegers) {
  for (const char* name : kSchemes) {
    for (const Shape& s : {kShapes[1], kShapes[3], kShapes[9], kShapes[11], kShapes[12]})
      run_exact(name, kBF16, s, s.m % 2 == 1, "auto");
    for (const Shape& s : {kShapes[2], kShapes[9]}) run_exact(name, kBF16, s, false, "portable");
  }
}
TEST_F(LinearCuda, PortableKernels) {
  for (const char* name : kSchemes)
    for (const Shape& s : {kShapes[2], kShapes[9], kShapes[12]})
      run(name, kBF16, s, s.m == 8, "portable");
}
TEST_F(LinearCuda, NothingOnNoRows) {
  for (const char* name : kSchemes) {
    const Device gpu(kCudaOps, {});
    const Scheme scheme = parse_scheme(name);
    const Shape s{2, 16, 128};
    const Packed packed(
        gpu, {.name = "test", .scheme = scheme, .run_dtype = &kBF16, .rows = s.n, .cols = s.k},
        quantized(scheme.weight, kBF16, s));
    const GpuTensor out(gpu, poisoned(kBF16, 1, s.n));
    View none = out.view();
    none.rows = 0;
    gpu.ops.linear(none, Activation{}, packed.weight, {}, gpu.queue());
    EXPECT_TRUE(compare::bit_equal(out.fetch().view(), poisoned(kBF16, 1, s.n).view())) << name;
  }
}
TEST_F(LinearCuda, EveryFormatInF16) {
  for (const char* name : kSchemes)
    for (const Shape& s : {kShapes[1], kShapes[2], kShapes[4]}) run(name, kF16, s, false);
}
TEST_F(LinearCuda, EveryFormatInF32) {
  for (const char* name : kSchemes) run(name, kF32, kShapes[1], true);
}

}  // namespace
}  // namespace mantissa
