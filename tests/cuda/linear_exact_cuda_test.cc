// Linear on the GPU with operands whose products and sums are exact (small integers, scales that
// are powers of two): every bit must be the reference's, so that a dropped, doubled or misplaced
// product shows, whatever the kernel and however ragged the shape. NaN and infinity stay where they
// belong.
#include <algorithm>

#include "gpu.h"

namespace mantissa {
namespace {

struct Shape {
  int64_t m, n, k;
};
// The rows that one kernel or another ends at, and ragged edges of N and K.
constexpr Shape kShapes[] = {{0, 32, 128},
                             {1, 17, 16},
                             {1, 40, 100},
                             {2, 16, 128},
                             {3, 200, 384},
                             {4, 72, 1152},
                             {5, 33, 256},
                             {8, 24, 4096},
                             {9, 130, 128},
                             {16, 64, 640},
                             {17, 40, 256},
                             {24, 272, 128},
                             {33, 17, 512},
                             {64, 96, 384},
                             {65, 200, 256},
                             {129, 144, 512},
                             // several tiles of 16 rows a block; rows in pieces, whole and ragged
                             {1, 2300, 512},
                             {2, 2120, 256},
                             {1, 24, 8320},
                             {2, 24, 14336}};
constexpr const char* kSchemes[] = {"bf16",
                                    "fp8",
                                    "ptpc_fp8",
                                    "fp8_block",
                                    "fp8_weight_only",
                                    "int8",
                                    "int8:asym",
                                    "int8_weight_only",
                                    "int4_weight_only",
                                    "int4_weight_only:g32",
                                    "int4_weight_only:g64:asym",
                                    "int4_weight_only:g256",
                                    "int4_weight_only:asym",
                                    "int4_fp8",
                                    "int4_int8",
                                    "int4_int8:g32:asym",
                                    "int8_weight_only:g32:asym",
                                    "int8_int8:g256",
                                    "int1_weight_only",
                                    "int2_weight_only:g32",
                                    "int3_weight_only",
                                    "int8_int3:g64",
                                    "int8_int6:asym",
                                    "int5_weight_only:channel",
                                    "mxfp8",
                                    "mxfp6",
                                    "mxfp6_weight_only:e2m3",
                                    "mxfp4",
                                    "mxfp4_weight_only",
                                    "nvfp4",
                                    "nvfp4_weight_only"};

uint8_t code_of(const Elem& elem, int value) {
  if (!elem.is_float()) return static_cast<uint8_t>(value & ((1 << elem.bits()) - 1));
  return static_cast<uint8_t>(encode(elem, value, true));
}

// Codes of -3..4 (FP4: all), scales 1/4..1, zero points -2..1.
struct Operands {
  Operands(const Scheme& scheme, const Elem& run, const Shape& s)
      : random(static_cast<uint32_t>(s.m * 31 + s.n * 7 + s.k)),
        x(run, s.m, s.k),
        residual(run, s.m, s.n),
        codes(scheme.activation.quantized() ? scheme.activation : parse_scheme("int8").activation,
              s.m, s.k) {
    const Spec& w = scheme.weight;
    q.elem = w.quantized() ? w.elem : &run;
    q.block = w.quantized() ? w.block : Block{};
    q.rows = s.n;
    q.cols = s.k;
    for (int64_t i = 0; i < s.n * s.k; ++i) put_weight(small(), w.quantized());
    if (w.quantized()) {
      q.scales.resize(1);  // from here on there are scales to count
      q.scales.resize(static_cast<size_t>(q.scale_rows() * q.scale_cols()));
      for (float& scale : q.scales) scale = std::ldexp(1.0f, -static_cast<int>(random() % 3));
      if (w.asymmetric) q.zero_points.resize(q.scales.size());
      for (int32_t& zero : q.zero_points) zero = static_cast<int32_t>(random() % 4) - 2;
    }
    for (int64_t m = 0; m < s.m; ++m) {
      for (int64_t k = 0; k < s.k; ++k) x.set(m, k, small());
      for (int64_t n = 0; n < s.n; ++n) residual.set(m, n, small());
    }
    for (uint8_t& code : codes.codes) code = code_of(*codes.spec.elem, small());
    for (float& scale : codes.scales) scale = std::ldexp(1.0f, -static_cast<int>(random() % 3));
    for (int32_t& zero : codes.zeros) zero = static_cast<int32_t>(random() % 4) - 2;
    for (int64_t n = 0; n < s.n; ++n) bias.push_back(static_cast<float>(small()));
  }
  int small() { return static_cast<int>(random() % 8) - 3; }
  void put_weight(double value, bool quantized) {
    if (quantized) {
      q.codes.push_back(*q.elem == kE2M1 ? static_cast<uint8_t>(random() % 16)
                                         : code_of(*q.elem, static_cast<int>(value)));
      return;
    }
    const uint32_t code = encode(*q.elem, value, false);
    q.codes.push_back(static_cast<uint8_t>(code));
    q.codes.push_back(static_cast<uint8_t>(code >> 8));
  }

  std::mt19937 random;
  QuantRows q;
  Tensor x, residual;
  Codes codes;
  std::vector<float> bias;
};

// One backend with the operands on it.
class Side {
 public:
  Side(const Ops& ops, const DeviceConfig& config, const Scheme& scheme, const Elem& run,
       const Shape& s, Operands& o)
      : device_(ops, config),
        scheme_(scheme),
        weight_(ops.plan_weight(
            {.name = "test", .scheme = scheme, .run_dtype = &run, .rows = s.n, .cols = s.k},
            device_.queue())),
        packed_(device_, std::vector<std::byte>(static_cast<size_t>(weight_.bytes)).data(),
                weight_.bytes),
        x_(device_, o.x),
        residual_(device_, o.residual),
        codes_(device_, o.codes),
        bias_(device_, o.bias.data(), s.n * 4) {
    weight_.data = packed_.as<std::byte>();
    ops.pack_rows(weight_, 0, o.q, device_.queue());
    ops.finish_weight(weight_, device_.queue());
  }
  // With bias and residual.
  Tensor run(const Elem& out_elem) { return run(out_elem, x_.view(), codes_.view()); }
  // The same from rows that begin at multiples of 16 bytes; NaN (all ones) between them.
  Tensor run_padded(const Elem& out_elem) {
    View x = x_.view();
    QuantizedActivation codes = codes_.view();
    const int64_t bytes = x.elem_bytes(), cols = x.cols;
    const OnGpu wide_x(device_, widened(x_.fetch().data(), x.rows, cols * bytes).data(),
                       x.rows * padded(cols * bytes));
    const OnGpu wide_codes(device_, widened(codes_.fetch().codes.data(), x.rows, cols).data(),
                           x.rows * padded(cols));
    x.data = wide_x.as<std::byte>();
    x.stride = padded(cols * bytes) / bytes;
    codes.codes.data = wide_codes.as<uint8_t>();
    codes.codes.stride = padded(cols);
    return run(out_elem, x, codes);
  }

 private:
  static int64_t padded(int64_t bytes) { return (bytes + 15) / 16 * 16; }
  static std::vector<std::byte> widened(const void* rows, int64_t count, int64_t bytes) {
    std::vector<std::byte> out(static_cast<size_t>(count * padded(bytes)), std::byte{0xff});
    for (int64_t r = 0; r < count; ++r)
      std::memcpy(out.data() + r * padded(bytes), static_cast<const std::byte*>(rows) + r * bytes,
                  static_cast<size_t>(bytes));
    return out;
  }
  Tensor run(const Elem& out_elem, View high, const QuantizedActivation& codes) {
    const GpuTensor out(device_, poisoned(out_elem, x_.view().rows, weight_.request.rows));
    Activation x = high_only(high);
    if (scheme_.activation.quantized()) {
      x.quantized[0] = codes;
      x.quantized_count = 1;
    }
    device_.ops.linear(out.view(), x, weight_,
                       {.bias = bias_.as<float>(), .residual = residual_.view()}, device_.queue());
    return out.fetch();
  }

  Device device_;
  Scheme scheme_;
  Weight weight_;
  OnGpu packed_;
  GpuTensor x_, residual_;
  GpuCodes codes_;
  OnGpu bias_;
};

class LinearExactCuda : public GpuTest {
 protected:
  void run(const DeviceConfig& config, const Elem& run_dtype) {
    for (const char* name : kSchemes) {
      for (const Shape& s : kShapes) {
        const Scheme scheme = parse_scheme(name);
        Operands o(scheme, run_dtype, s);
        const Tensor want = Side(kRefOps, {.threads = 8}, scheme, run_dtype, s, o).run(run_dtype);
        const Tensor got = Side(kCudaOps, config, scheme, run_dtype, s, o).run(run_dtype);
        EXPECT_TRUE(compare::bit_equal(got.view(), want.view()))
            << name << " " << run_dtype.name << " " << s.m << " x " << s.n << " x " << s.k;
      }
    }
  }
};

TEST_F(LinearExactCuda, Tuned) {
  run({}, kBF16);
}
TEST_F(LinearExactCuda, TunedF16) {
  run({}, kF16);
}
TEST_F(LinearExactCuda, Portable) {
  run({.isa = "portable"}, kBF16);
}

// What stands between rows of x counts for nothing, NaN neither.
TEST_F(LinearExactCuda, NanBetweenRows) {
  for (const char* name :
       {"bf16", "fp8_weight_only", "int8_weight_only", "ptpc_fp8", "fp8", "int8"}) {
    for (const int64_t m : {1, 2, 3, 8, 20}) {
      const Shape s{m, 40, 100};
      const Scheme scheme = parse_scheme(name);
      Operands o(scheme, kBF16, s);
      const Tensor clean = Side(kCudaOps, {}, scheme, kBF16, s, o).run(kBF16);
      const Tensor padded = Side(kCudaOps, {}, scheme, kBF16, s, o).run_padded(kBF16);
      EXPECT_TRUE(compare::bit_equal(padded.view(), clean.view())) << name << " m " << m;
    }
  }
}

// A value that is not finite in one token spoils that token's results and no others.
TEST_F(LinearExactCuda, NanAndInfinityStayInTheirRow) {
  for (const char* name : {"bf16", "fp8_weight_only", "int8_weight_only", "int4_weight_only",
                           "mxfp4_weight_only", "nvfp4_weight_only"}) {
    for (const int64_t m : {1, 2, 3, 8, 20, 70}) {
      const Shape s{m, 72, 256};
      const Scheme scheme = parse_scheme(name);
      Operands o(scheme, kBF16, s);
      const Tensor clean = Side(kCudaOps, {}, scheme, kBF16, s, o).run(kBF16);
      const int64_t bad = m / 2;
      for (const double value : {std::nan(""), HUGE_VAL}) {
        o.x.set(bad, 77, value);
        const Tensor got = Side(kCudaOps, {}, scheme, kBF16, s, o).run(kBF16);
        for (int64_t r = 0; r < m; ++r) {
          for (int64_t c = 0; c < s.n; ++c) {
            // Infinity times a code of 0 is NaN, times others infinite.
            if (r == bad ? std::isfinite(got.at(r, c)) : got.at(r, c) != clean.at(r, c)) {
              FAIL() << name << " m " << m << " row " << r << " col " << c << ": " << got.at(r, c)
                     << ", clean " << clean.at(r, c);
            }
          }
        }
      }
    }
  }
}

// A scale that is NaN spoils its row of weights and no others.
TEST_F(LinearExactCuda, NanScalesStayInTheirRow) {
  for (const char* name : {"mxfp4_weight_only", "nvfp4_weight_only", "mxfp4", "nvfp4"}) {
    for (const int64_t m : {1, 2, 5, 20}) {
      const Shape s{m, 72, 256};
      const Scheme scheme = parse_scheme(name);
      Operands o(scheme, kBF16, s);
      const Tensor clean = Side(kCudaOps, {}, scheme, kBF16, s, o).run(kBF16);
      constexpr int64_t kBad = 37;
      o.q.scales[static_cast<size_t>(kBad * o.q.scale_cols() + 3)] = std::nanf("");
      const Tensor got = Side(kCudaOps, {}, scheme, kBF16, s, o).run(kBF16);
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < s.n; ++c) {
          if (c == kBad ? !std::isnan(got.at(r, c)) : got.at(r, c) != clean.at(r, c)) {
            FAIL() << name << " m " << m << " row " << r << " col " << c << ": " << got.at(r, c)
                   << ", clean " << clean.at(r, c);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mantissa
