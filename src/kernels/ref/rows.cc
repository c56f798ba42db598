// Row-wise operations of the reference: norm, gate, gather, and the quantized forms of their
// results.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/ref/ref.h"

namespace mantissa::ref {

float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (!(static_cast<double>(nearest) != value) || std::isnan(value)) return nearest;
  uint32_t bits = __builtin_bit_cast(uint32_t, nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;  // towards zero
  return __builtin_bit_cast(float, bits | 1u);
}

void load_row(ConstView x, int64_t r, std::span<double> out) {
  if (*x.elem == kF32) {
    const std::span<const float> row = x.as<float>().row(r);
    for (size_t i = 0; i < out.size(); ++i) out[i] = row[i];
    return;
  }
  const std::span<const uint16_t> row = x.as<uint16_t>().row(r);
  const bool bf16 = *x.elem == kBF16;
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = bf16 ? f32_from_bf16(row[i]) : f32_from_f16(row[i]);
}

void store_row(View out, int64_t r, std::span<const double> values) {
  if (*out.elem == kF32) {
    const std::span<float> row = out.as<float>().row(r);
    for (size_t i = 0; i < values.size(); ++i) row[i] = static_cast<float>(values[i]);
    return;
  }
  const std::span<uint16_t> row = out.as<uint16_t>().row(r);
  const bool bf16 = *out.elem == kBF16;
  for (size_t i = 0; i < values.size(); ++i) {
    const float odd = round_to_odd(values[i]);
    row[i] = bf16 ? bf16_from_f32(odd) : f16_from_f32(odd);
  }
}

void quantize_forms(const Activation& out, ConstView values, Queue* queue) {
  if (out.quantized_count == 0 || values.rows == 0) return;
  std::vector<float> wide(static_cast<size_t>(values.rows * values.cols));
  for_each(queue, values.rows, [&](int64_t r) {
    std::vector<double> row(static_cast<size_t>(values.cols));
    load_row(values, r, row);
    for (int64_t i = 0; i < values.cols; ++i)
      wide[static_cast<size_t>(r * values.cols + i)] =
          static_cast<float>(row[static_cast<size_t>(i)]);
  });
  const Matrix<const float> x(wide.data(), values.rows, values.cols);
  for (int i = 0; i < out.quantized_count; ++i) {
    const QuantizedActivation& form = out.quantized[i];
    quantize_activation(form.spec, x,
                        {form.codes, form.scales, form.zero_points, form.global_scale});
  }
}

namespace {

// out = op(row r) for every row, rounded once to the run dtype, into out.high where it is wanted
// and into every quantized form.
void each_row(const Activation& out, ConstView x, int64_t cols, Queue* queue,
              const std::function<void(std::span<const double>, std::span<double>)>& op) {
  View high = out.high;
  std::vector<std::byte> own;
  if (high.empty()) {
    own.resize(static_cast<size_t>(x.rows * cols * x.elem_bytes()));
    high = View(own.data(), *x.elem, x.rows, cols);
  }
  check(high.rows == x.rows && high.cols == cols, "ref: the result has one row for each row of x");
  for_each(queue, x.rows, [&](int64_t r) {
    std::vector<double> in(static_cast<size_t>(x.cols)), result(static_cast<size_t>(cols));
    load_row(x, r, in);
    op(in, result);
    store_row(high, r, result);
  });
  quantize_forms(out, high, queue);
}

// gelu's (1 + tanh(u)) / 2 is the sigmoid of 2 u, which does not cancel for negative u.
double apply(GateFn fn, double g) {
  if (fn == GateFn::kSilu) return g / (1 + std::exp(-g));
  return g / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
}

}  // namespace

namespace {

// values = values / rms * gain.
void normalize(std::span<double> values, const float* gain, float eps) {
  double squares = 0;
  for (const double v : values) squares += v * v;
  const double rms = std::sqrt(squares / static_cast<double>(values.size()) + eps);
  for (size_t i = 0; i < values.size(); ++i) values[i] = values[i] / rms * gain[i];
}

}  // namespace

void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue* queue) {
  each_row(out, x, x.cols, queue, [=](std::span<const double> in, std::span<double> result) {
    std::ranges::copy(in, result.begin());
    normalize(result, gain, eps);
  });
}

void add_rows(View x, ConstView delta, const AddParams& params, Queue* queue) {
  check(x.rows == delta.rows && x.cols == delta.cols && *x.elem == *delta.elem,
        "add_rows: both are [M, K] in one dtype");
  for_each(queue, x.rows, [&](int64_t r) {
    std::vector<double> sum(static_cast<size_t>(x.cols)), added(sum.size());
    load_row(x, r, sum);
    load_row(delta, r, added);
    if (params.gain != nullptr) normalize(added, params.gain, params.eps);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += params.multiplier * added[i];
    store_row(x, r, sum);
  });
}

void norm_heads(View qkv, const HeadNormParams& params, Queue* queue) {
  const int64_t dim = params.head_dim, q = params.heads * dim, k = params.kv_heads * dim;
  check(qkv.cols == q + 2 * k, "norm_heads: qkv is [T, (H + 2 KV) * D]");
  for_each(queue, qkv.rows, [&](int64_t r) {
    std::vector<double> row(static_cast<size_t>(qkv.cols));
    load_row(qkv, r, row);
    const auto norm_part = [&](int64_t begin, int64_t end, const float* gain) {
      const int64_t size = params.each_head ? dim : end - begin;
      for (int64_t at = begin; at < end; at += size)
        normalize({row.data() + at, static_cast<size_t>(size)}, gain, params.eps);
    };
    norm_part(0, q, params.q_gain);
    norm_part(q, q + k, params.k_gain);
    store_row(qkv, r, row);
  });
}

void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue* queue) {
  for_each(queue, logits.rows, [&](int64_t r) {
    for (float& z : logits.row(r)) {
      const double scaled = double{z} * multiplier;
      z = static_cast<float>(cap > 0 ? cap * std::tanh(scaled / cap) : scaled);
    }
  });
}

void quantize_rows(const Activation& out, Queue* queue) {
  quantize_forms(out, out.high, queue);
}

void observe(ConstView x, float* range, Queue*) {
  std::vector<double> row(static_cast<size_t>(x.cols));
  for (int64_t r = 0; r < x.rows; ++r) {
    load_row(x, r, row);
    for (const double v : row) {
      if (!std::isfinite(v)) continue;
      range[0] = std::max(range[0], static_cast<float>(-v));
      range[1] = std::max(range[1], static_cast<float>(v));
    }
  }
}

void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue) {
  check(gate_up.cols % 2 == 0, "gate: the input holds gate and up of equal width");
  each_row(out, gate_up, gate_up.cols / 2, queue,
           [=](std::span<const double> in, std::span<double> result) {
             for (size_t i = 0; i < result.size(); ++i)
               result[i] = apply(fn, in[i]) * in[result.size() + i];
           });
}

void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue*) {
  check(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols && *out.elem == *x.elem,
        "gather_rows: out is [R, K] in the dtype of x");
  for (size_t i = 0; i < rows.size(); ++i) {
    check(0 <= rows[i] && rows[i] < x.rows, "gather_rows: row in range");
    std::memcpy(out.row(static_cast<int64_t>(i)), x.row(rows[i]),
                static_cast<size_t>(x.cols * x.elem_bytes()));
  }
}

}  // namespace mantissa::ref
