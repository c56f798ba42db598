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
                             {4, 4096, 512}, {130, 192, 640}, {1, 17, 4096}};
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
                                    "int8_int8",
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

class LinearCuda : public GpuTest {
 protected:
  void run(const std::string& name, const Elem& run, const Shape& s, bool f32_out);
};

void LinearCuda::run(const std::string& name, const Elem& run, const Shape& s, bool f32_out) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
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

  // An f32 sum, in whatever order; e4m3 products on Hopper's tensor cores keep 14 bits between
  // promotions.
  const bool e4m3 = scheme.activation.quantized() && *scheme.activation.elem == kE4M3;
  const double unit = e4m3 ? 0x1p-14 : 0x1p-20;
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
  EXPECT_TRUE(compare::within(out.fetch().view(), want, bound))
      << name << " " << run.name << " " << s.m << " x " << s.n << " x " << s.k;
}

TEST_F(LinearCuda, EveryFormatInBf16) {
  for (const char* name : kSchemes)
    for (const Shape& s : kShapes) run(name, kBF16, s, s.m % 2 == 0);
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
