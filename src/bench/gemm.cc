#include "bench/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/convert.h"
#include "base/error.h"
#include "bench/operation.h"

namespace mantissa {
namespace {

constexpr int64_t kBandRows = 256;  // of weights, repeated; a multiple of every block's rows
constexpr int64_t kTokenRows = 64;  // of x, repeated
constexpr int64_t kSetsMax = 192;

QuantRows quantized_band(const GemmCase& c, int64_t rows, const std::vector<float>& values) {
  WeightQuantizer quantizer(c.scheme.weight, rows, c.k, *c.run_dtype);
  const Matrix<const float> w(values.data(), rows, c.k);
  if (quantizer.needs_observe()) quantizer.observe(w);
  QuantRows q;
  quantizer.quantize(0, w, q);
  return q;
}

int64_t blocks_over(int64_t size, int block) {
  return block == kAll ? 1 : (size + block - 1) / block;
}

// The operands of one case on the device.
class Problem {
 public:
  Problem(const Ops& ops, Queue* queue, const GemmCase& c, uint64_t seed);

  int64_t sets() const { return std::ssize(weights_); }
  bool rotated() const { return sets() * weights_.front().bytes >= kRotatedBytes; }
  void linear(int set) {
    ops_.linear(out_view(), input_, weights_[static_cast<size_t>(set) % weights_.size()], {},
                queue_);
  }
  // rms_norm of x with a gain of 1, into the forms that the linear reads.
  void activation() {
    Activation out = input_;
    if (out.high.data != nullptr) out.high.data = normed_->data();
    ops_.rms_norm(out, x_view(), gain_->as<float>(), 1e-6f, queue_);
    used_ = out;
  }
  void linear_after_activation(int set) {
    ops_.linear(out_view(), used_, weights_[static_cast<size_t>(set) % weights_.size()], {},
                queue_);
  }
  std::string name_linear() {
    return find_bench_ops(ops_)->name_linear(out_view(), input_, weights_.front(), queue_);
  }
  // Against float64; adds to the result.
  void sample(GemmResult& result);

 private:
  View out_view() const { return {out_->data(), *c_.run_dtype, c_.m, c_.n}; }
  View x_view() const { return {x_->data(), *c_.run_dtype, c_.m, c_.k}; }
  void make_weights(uint64_t seed);
  void make_input(uint64_t seed);
  std::vector<float> input_values() const;

  const Ops& ops_;
  Queue* queue_;
  GemmCase c_;
  std::vector<float> tokens_;  // [min(M, kTokenRows), K], repeated
  QuantRows band_;
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::vector<Weight> weights_;
  DeviceMemory *x_ = nullptr, *normed_ = nullptr, *gain_ = nullptr, *out_ = nullptr;
  Activation input_, used_;

  DeviceMemory* allocate(int64_t bytes) {
    return memory_
        .emplace_back(std::make_unique<DeviceMemory>(ops_, queue_, std::max<int64_t>(bytes, 64)))
        .get();
  }
};

double bits_of(const Spec& spec, const Elem& run_dtype, int64_t rows, int64_t cols) {
  if (!spec.quantized()) return run_dtype.bits();
  return bits_per_weight(spec, rows, cols, run_dtype);
}

Problem::Problem(const Ops& ops, Queue* queue, const GemmCase& c, uint64_t seed)
    : ops_(ops), queue_(queue), c_(c) {
  const auto m = static_cast<double>(c.m), n = static_cast<double>(c.n),
             k = static_cast<double>(c.k);
  const double each = c.run_dtype->bits() / 8.0;
  const double weights = n * k * bits_of(c.scheme.weight, *c.run_dtype, c.n, c.k) / 8;
  require_memory(ops, queue, weights + (2 * m * k + m * n) * each + kBandRows * k * 8,
                 text("a linear layer of ", c.n, " x ", c.k, " with ", c.m, " tokens"));
  make_weights(seed);
  make_input(seed + 1);
  out_ = allocate(c.m * c.n * c.run_dtype->bits() / 8);
}

void Problem::make_weights(uint64_t seed) {
  const int64_t rows = std::min(c_.n, kBandRows), rest = c_.n % rows;
  const std::vector<float> values = random_rows(rows, c_.k, *c_.run_dtype, 0.05, seed);
  band_ = quantized_band(c_, rows, values);
  const QuantRows last = rest > 0 ? quantized_band(c_, rest, values) : QuantRows{};
  Weight planned = ops_.plan_weight({.name = "bench gemm",
                                     .scheme = c_.scheme,
                                     .run_dtype = c_.run_dtype,
                                     .rows = c_.n,
                                     .cols = c_.k},
                                    queue_);
  const int64_t sets = std::clamp<int64_t>(kRotatedBytes / planned.bytes + 1, 1, kSetsMax);
  for (int64_t s = 0; s < sets; ++s) {
    planned.data = allocate(planned.bytes)->data();
    for (int64_t row0 = 0; row0 + rows <= c_.n; row0 += rows)
      ops_.pack_rows(planned, row0, band_, queue_);
    if (rest > 0) ops_.pack_rows(planned, c_.n - rest, last, queue_);
    ops_.finish_weight(planned, queue_);
    weights_.push_back(planned);
  }
}

void Problem::make_input(uint64_t seed) {
  const int64_t rows = std::min(c_.m, kTokenRows), each = c_.run_dtype->bits() / 8;
  tokens_ = random_rows(rows, c_.k, *c_.run_dtype, 1, seed);
  std::vector<std::byte> stored(static_cast<size_t>(rows * c_.k * each));
  from_f32({tokens_.data(), rows, c_.k}, View(stored.data(), *c_.run_dtype, rows, c_.k));
  x_ = allocate(c_.m * c_.k * each);
  normed_ = allocate(c_.m * c_.k * each);
  for (int64_t m = 0; m < c_.m; m += rows)
    ops_.upload(x_->data() + m * c_.k * each, stored.data(), std::min(rows, c_.m - m) * c_.k * each,
                queue_);
  gain_ = allocate(c_.k * 4);
  const std::vector<float> ones(static_cast<size_t>(c_.k), 1.0f);
  ops_.upload(gain_->data(), ones.data(), c_.k * 4, queue_);
  const Spec& spec = c_.scheme.activation;
  if (!spec.quantized()) {
    input_.high = x_view();
    return;
  }
  QuantizedActivation& q = input_.quantized[input_.quantized_count++];
  const int64_t scale_rows = spec.block.rows == kAll ? 1 : c_.m,
                scale_cols = blocks_over(c_.k, spec.block.cols);
  q.spec = spec;
  q.codes = {allocate(c_.m * c_.k)->as<uint8_t>(), c_.m, c_.k};
  q.scales = {allocate(scale_rows * scale_cols * 4)->as<float>(), scale_rows, scale_cols};
  if (spec.asymmetric)
    q.zero_points = {allocate(scale_rows * scale_cols * 4)->as<int32_t>(), scale_rows, scale_cols};
  if (spec.global_scale) q.global_scale = allocate(4)->as<float>();
  if (spec.when == When::kStatic) {
    const float scale = 4 / static_cast<float>(max_value(*spec.elem)), global = 4 / (448.0f * 6);
    const int32_t zero = 0;
    ops_.upload(spec.global_scale ? q.global_scale : q.scales.data,
                spec.global_scale ? &global : &scale, 4, queue_);
    if (spec.asymmetric) ops_.upload(q.zero_points.data, &zero, 4, queue_);
  }
  Activation quantizing = input_;
  quantizing.high = x_view();
  ops_.quantize_rows(quantizing, queue_);
}

// What the codes on the device stand for, [min(M, kTokenRows), K].
std::vector<float> Problem::input_values() const {
  if (input_.quantized_count == 0) return tokens_;
  const QuantizedActivation& q = input_.quantized[0];
  const int64_t rows = std::min(c_.m, kTokenRows);
  const int64_t scale_rows = q.spec.block.rows == kAll ? 1 : rows;
  std::vector<uint8_t> codes(static_cast<size_t>(rows * c_.k));
  std::vector<float> scales(static_cast<size_t>(scale_rows * q.scales.cols));
  std::vector<int32_t> zeros(q.spec.asymmetric ? scales.size() : 0);
  float global = 1;
  ops_.download(codes.data(), q.codes.data, std::ssize(codes), queue_);
  ops_.download(scales.data(), q.scales.data, std::ssize(scales) * 4, queue_);
  ops_.download(zeros.data(), q.zero_points.data, std::ssize(zeros) * 4, queue_);
  if (q.global_scale != nullptr) ops_.download(&global, q.global_scale, 4, queue_);
  const std::array<float, 256> table = decode_table(*q.spec.elem);
  const int64_t block = q.spec.block.cols == kAll ? c_.k : q.spec.block.cols;
  std::vector<float> out(codes.size());
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t k = 0; k < c_.k; ++k) {
      const auto i = static_cast<size_t>(m * c_.k + k);
      const auto s = static_cast<size_t>((scale_rows == 1 ? 0 : m) * q.scales.cols + k / block);
      const double zero = zeros.empty() ? 0 : zeros[s];
      out[i] = static_cast<float>((table[codes[i]] - zero) * scales[s] * global);
    }
  }
  return out;
}

void Problem::sample(GemmResult& result) {
  constexpr int64_t kColumns = 48;
  const std::vector<float> x = input_values();
  std::vector<float> w(static_cast<size_t>(band_.rows * c_.k));
  dequantize(band_, {w.data(), band_.rows, c_.k});
  const int64_t each = c_.run_dtype->bits() / 8, whole = c_.n / band_.rows * band_.rows;
  std::vector<std::byte> row(static_cast<size_t>(c_.n * each));
  std::vector<float> got(static_cast<size_t>(c_.n));
  double errors = 0, squares = 0;
  for (const int64_t m : {int64_t{0}, c_.m / 3, c_.m / 2, c_.m - 1}) {
    ops_.download(row.data(), out_->data() + m * c_.n * each, c_.n * each, queue_);
    to_f32(ConstView(row.data(), *c_.run_dtype, 1, c_.n), {got.data(), 1, c_.n});
    for (int64_t i = 0; i < kColumns; ++i) {
      const int64_t n = i * (whole - 1) / (kColumns - 1);
      double sum = 0;
      for (int64_t k = 0; k < c_.k; ++k)
        sum += double{x[static_cast<size_t>(m % kTokenRows * c_.k + k)]} *
               w[static_cast<size_t>(n % band_.rows * c_.k + k)];
      const double gap = got[static_cast<size_t>(n)] - sum;
      errors += gap * gap;
      squares += sum * sum;
      ++result.sampled;
    }
  }
  result.rms_error = std::sqrt(errors / squares);
}

}  // namespace

GemmResult measure_gemm(const Ops& ops, Queue* queue, const GemmCase& c, bool with_peers,
                        uint64_t seed) {
  Problem problem(ops, queue, c, seed);
  GemmResult result;
  result.times = timed_runs(
      *find_bench_ops(ops), [&](int i) { problem.linear(i); }, queue, problem.sets());
  result.rotated = problem.rotated();
  result.operations = 2.0 * static_cast<double>(c.m) * static_cast<double>(c.n * c.k);
  const auto bytes = [](double bits, int64_t count) {
    return bits / 8 * static_cast<double>(count);
  };
  result.bytes = bytes(bits_of(c.scheme.weight, *c.run_dtype, c.n, c.k), c.n * c.k) +
                 bytes(bits_of(c.scheme.activation, *c.run_dtype, c.m, c.k), c.m * c.k) +
                 bytes(c.run_dtype->bits(), c.m * c.n);
  result.math_gops = find_bench_ops(ops)->math_gops(c.scheme, *c.run_dtype, queue);
  result.kernel = problem.name_linear();
  problem.sample(result);
  if (with_peers) result.peers = find_bench_ops(ops)->time_peers(c.scheme, c.m, c.n, c.k, queue);
  return result;
}

RunTimes measure_activation_and_linear(const Ops& ops, Queue* queue, const GemmCase& c,
                                       uint64_t seed) {
  Problem problem(ops, queue, c, seed);
  return timed_runs(
      *find_bench_ops(ops),
      [&](int i) {
        problem.activation();
        problem.linear_after_activation(i);
      },
      queue, problem.sets());
}

Roofline roofline_of(const GemmCase& c, double read_gb_s, double math_gops) {
  const Spec& spec = c.scheme.activation;
  const double run_bytes = c.run_dtype->bits() / 8.0;
  const double x_bytes = bits_of(spec, *c.run_dtype, c.m, c.k) / 8;
  const double w_bytes = bits_of(c.scheme.weight, *c.run_dtype, c.n, c.k) / 8;
  const double mk = static_cast<double>(c.m) * static_cast<double>(c.k);
  const double nk = static_cast<double>(c.n) * static_cast<double>(c.k);
  const double mn = static_cast<double>(c.m) * static_cast<double>(c.n);
  // A scale over the tensor needs all of it before the first code: it is written and read again.
  const bool twice = spec.quantized() && spec.when == When::kPerCall &&
                     (spec.block.rows == kAll || spec.global_scale);
  const double bandwidth = read_gb_s * 1e9;
  const double operations = 2 * mk * static_cast<double>(c.n);
  return {.activation_s = mk * (run_bytes + x_bytes + (twice ? 2 * run_bytes : 0)) / bandwidth,
          .linear_s = std::max((mk * x_bytes + nk * w_bytes + mn * run_bytes) / bandwidth,
                               operations / (math_gops * 1e9))};
}

}  // namespace mantissa
