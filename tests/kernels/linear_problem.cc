#include "linear_problem.h"

namespace mantissa::linear_test {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t blocks(int64_t size, int block) {
  return block == kAll ? 1 : ceil_div(size, block);
}
double uniform(std::mt19937& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}
int integer(std::mt19937& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

// A code whose value is finite; small integers where `exact`.
uint32_t random_code(std::mt19937& random, const Elem& elem, bool exact) {
  if (exact) {
    const double low = std::max(-3.0, min_value(elem)), high = std::min(3.0, max_value(elem));
    return encode(elem, integer(random, static_cast<int>(low), static_cast<int>(high)), true);
  }
  if (elem.bits() > 8) return encode(elem, uniform(random, -1, 1), true);
  for (;;) {
    const auto code = static_cast<uint32_t>(integer(random, 0, (1 << elem.bits()) - 1));
    if (std::isfinite(decode(elem, code))) return code;
  }
}

float random_scale(std::mt19937& random, const Elem& format, bool exact) {
  const double value = exact ? std::ldexp(1.0, integer(random, -2, 1)) : uniform(random, 0.01, 0.1);
  return static_cast<float>(decode(format, encode(format, value, true)));
}

}  // namespace

Problem::Problem(const Scheme& s, const Elem& run, const Shape& sh, const Options& o)
    : scheme(s),
      run_dtype(&run),
      shape(sh),
      options(o),
      random_(o.seed),
      high_(run, sh.m, sh.k),
      residual_(run, sh.m, sh.n) {
  fill_weight();
  fill_input();
  const bool exact = options.fill != Fill::kRandom;
  for (int64_t n = 0; n < shape.n; ++n) {
    const double value = exact ? integer(random_, -8, 8) : uniform(random_, -1, 1);
    bias_.push_back(static_cast<float>(compare::rounded(run, value)));
  }
  for (int64_t i = 0; i < shape.m * shape.n; ++i)
    residual_.set(i, exact ? integer(random_, -8, 8) : uniform(random_, -1, 1));
}

void Problem::fill_weight() {
  const Spec& spec = scheme.weight;
  const bool exact = options.fill != Fill::kRandom;
  weight.elem = spec.quantized() ? spec.elem : run_dtype;
  weight.block = spec.block;
  weight.rows = shape.n;
  weight.cols = shape.k;
  const auto bytes = static_cast<size_t>(weight.elem->bits() <= 8 ? 1 : weight.elem->bits() / 8);
  weight.codes.resize(static_cast<size_t>(shape.n * shape.k) * bytes);
  for (size_t i = 0; i < weight.codes.size(); i += bytes) {
    const uint32_t code = random_code(random_, *weight.elem, exact);
    std::memcpy(&weight.codes[i], &code, bytes);
  }
  if (!spec.quantized()) return;
  const int64_t count = blocks(shape.n, spec.block.rows) * blocks(shape.k, spec.block.cols);
  if (spec.codebook) {
    for (int64_t i = 0; i < count << spec.elem->bits(); ++i) {
      const double entry = exact ? integer(random_, -8, 8) : uniform(random_, -1, 1);
      weight.codebook.push_back(static_cast<float>(compare::rounded(kBF16, entry)));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    weight.scales.push_back(random_scale(random_, *spec.scale, exact));
    if (!spec.asymmetric) continue;
    const auto low = static_cast<int>(min_value(*spec.elem));
    const auto high = static_cast<int>(max_value(*spec.elem));
    weight.zero_points.push_back(integer(random_, low, high));
  }
  if (spec.global_scale) weight.global_scale = exact ? 0.5f : 0.37f;
}

void Problem::fill_input() {
  const Spec& spec = scheme.activation;
  const bool exact = options.fill != Fill::kRandom, hot = options.fill == Fill::kOneHot;
  const Elem& elem = spec.quantized() ? *spec.elem : *run_dtype;
  for (int64_t m = 0; m < shape.m; ++m) {
    const int64_t one = shape.k > 0 ? (m * 7919 + 3) % shape.k : 0;
    for (int64_t k = 0; k < shape.k; ++k) {
      const int64_t i = m * shape.k + k;
      const uint32_t code =
          hot ? encode(elem, k == one ? 1 : 0) : random_code(random_, elem, exact);
      x.push_back(decode(elem, code));
      if (spec.quantized()) {
        codes_.push_back(static_cast<uint8_t>(code));
      } else {
        high_.set(i, x.back());
      }
    }
  }
  if (!spec.quantized()) return;
  const int64_t count = (spec.block.rows == kAll ? 1 : shape.m) * blocks(shape.k, spec.block.cols);
  for (int64_t i = 0; i < count; ++i) {
    x_scales_.push_back(random_scale(random_, *spec.scale, exact));
    x_zeros_.push_back(spec.asymmetric ? integer(random_, -100, 100) : 0);
  }
  if (spec.global_scale) x_global_ = exact ? 0.25f : 0.73f;
}

Weight Problem::pack(Queue* queue, int64_t band) {
  Weight w = cpu::plan_weight(
      {.name = "test", .scheme = scheme, .run_dtype = run_dtype, .rows = shape.n, .cols = shape.k},
      queue);
  // Filled with NaN bytes: what packing leaves out is found.
  packed.assign(static_cast<size_t>(w.bytes) + 64, std::byte{0xff});
  const auto misaligned = reinterpret_cast<uintptr_t>(packed.data()) % 64;
  w.data = packed.data() + (64 - misaligned) % 64;
  const auto code_bytes =
      static_cast<int64_t>(weight.codes.size()) / std::max<int64_t>(shape.n * shape.k, 1);
  // Bands are whole tiles, where scales span rows.
  if (weight.block.rows > 1) band = std::max<int64_t>(band, weight.block.rows);
  for (int64_t row = 0; row < shape.n; row += band) {
    QuantRows rows = weight;
    rows.rows = std::min(band, shape.n - row);
    const auto slice = [](auto& all, int64_t first, int64_t count) {
      all = {all.begin() + first, all.begin() + first + count};
    };
    slice(rows.codes, row * shape.k * code_bytes, rows.rows * shape.k * code_bytes);
    if (scheme.weight.quantized() && weight.block.rows != kAll) {
      const int64_t groups = blocks(shape.k, weight.block.cols), first = row / weight.block.rows,
                    count = blocks(rows.rows, weight.block.rows);
      const int64_t entries = int64_t{1} << weight.elem->bits();
      if (!rows.scales.empty()) slice(rows.scales, first * groups, count * groups);
      if (!rows.zero_points.empty()) slice(rows.zero_points, first * groups, count * groups);
      if (!rows.codebook.empty())
        slice(rows.codebook, first * groups * entries, count * groups * entries);
    }
    cpu::pack_rows(w, row, rows, queue);
  }
  cpu::finish_weight(w, queue);
  return w;
}

Buffer Problem::run(const Weight& w, Queue* queue, int64_t first, int64_t count, bool in_place) {
  Activation x_act;
  const Spec& spec = scheme.activation;
  if (spec.quantized()) {
    QuantizedActivation& q = x_act.quantized[0];
    x_act.quantized_count = 1;
    q.spec = spec;
    q.codes = {codes_.data() + first * shape.k, count, shape.k};
    const int64_t scale_rows = spec.block.rows == kAll ? 1 : count;
    const int64_t groups = blocks(shape.k, spec.block.cols);
    const int64_t scale_first = spec.block.rows == kAll ? 0 : first * groups;
    q.scales = {x_scales_.data() + scale_first, scale_rows, groups};
    q.zero_points = {x_zeros_.data() + scale_first, scale_rows, groups};
    q.global_scale = &x_global_;
  } else {
    x_act.high = high_.view().row_range(first, count);
  }
  Buffer out(out_elem(), count, shape.n);
  Epilogue e;
  if (options.bias) e.bias = bias_.data();
  if (options.residual) {
    e.residual = residual_.view().row_range(first, count);
    if (in_place) {
      std::memcpy(out.bytes.data(), e.residual.data, out.bytes.size());
      e.residual = out.view();
    }
  }
  cpu::linear(out.view(), x_act, w, e, queue);
  return out;
}

double Problem::weight_value(int64_t n, int64_t k) const {
  const Spec& spec = scheme.weight;
  const auto bytes = static_cast<size_t>(weight.elem->bits() <= 8 ? 1 : weight.elem->bits() / 8);
  uint32_t code = 0;
  std::memcpy(&code, &weight.codes[static_cast<size_t>(n * shape.k + k) * bytes], bytes);
  const double value = decode(*weight.elem, code);
  if (!spec.quantized()) return value;
  const int64_t groups = blocks(shape.k, spec.block.cols);
  const auto block =
      static_cast<size_t>((spec.block.rows == kAll ? 0 : n / spec.block.rows) * groups +
                          (spec.block.cols == kAll ? 0 : k / spec.block.cols));
  if (spec.codebook) return weight.codebook[(block << spec.elem->bits()) + code];
  const double zero = spec.asymmetric ? weight.zero_points[block] : 0;
  return (value - zero) * static_cast<double>(weight.scales[block]) * weight.global_scale;
}

bool Problem::x_grouped() const {
  return scheme.activation.quantized() && scheme.activation.block.cols != kAll;
}
int64_t Problem::x_groups() const {
  return blocks(shape.k, scheme.activation.block.cols);
}
double Problem::x_group_scale(int64_t m, int64_t k) const {
  if (!x_grouped()) return 1;
  return x_scales_[static_cast<size_t>(m * x_groups() + k / scheme.activation.block.cols)];
}

void Problem::saturate() {
  std::fill(weight.codes.begin(), weight.codes.end(), static_cast<uint8_t>(0x80));
  std::fill(codes_.begin(), codes_.end(), static_cast<uint8_t>(0x7f));
  std::fill(x.begin(), x.end(), 127.0);
}

// Roundings of one output in units of the terms' magnitude. Float arithmetic: K adds (two for each
// product where products are rounded), groups and the epilogue; integer sums of a group, or of a
// whole row, are exact and rounded once to f32.
double Problem::roundings() const {
  const auto groups = static_cast<double>(blocks(shape.k, scheme.weight.block.cols));
  return 8 + 2 * groups + (integers() ? 0 : 2 * static_cast<double>(shape.k));
}

bool Problem::integers() const {
  return scheme.activation.quantized() && !scheme.activation.elem->is_float();
}

void Problem::reference(Values& want, Values& bound) const {
  const Spec& spec = scheme.weight;
  const bool asym_x = scheme.activation.asymmetric;
  const double u = compare::unit_roundoff(kF32), u_out = compare::unit_roundoff(out_elem());
  // What flushing subnormal products or outputs may cost.
  const double tiny =
      static_cast<double>(shape.k) * std::ldexp(1.0, -126) + min_subnormal(out_elem()) / 2;
  const int64_t group = spec.block.cols == kAll ? std::max<int64_t>(shape.k, 1) : spec.block.cols;
  std::vector<double> row(static_cast<size_t>(shape.k));
  want.assign(static_cast<size_t>(shape.m * shape.n), 0);
  bound = want;
  for (int64_t n = 0; n < shape.n; ++n) {
    for (int64_t k = 0; k < shape.k; ++k) row[static_cast<size_t>(k)] = weight_value(n, k);
    for (int64_t m = 0; m < shape.m; ++m) {
      const auto scale_row = static_cast<size_t>(scheme.activation.block.rows == kAll ? 0 : m);
      const double x_scale = x_grouped()                     ? x_global_
                             : scheme.activation.quantized() ? x_scales_[scale_row]
                                                             : 1;
      const double x_zero = asym_x ? x_zeros_[scale_row] : 0;
      // Magnitude of what is rounded: products, or exact sums of groups. With groups zero points of
      // x are taken back from the total.
      double sum = 0, magnitude = 0;
      for (int64_t first = 0; first < shape.k; first += group) {
        double plain = 0, whole = 0, zeros = 0, products = 0;
        for (int64_t k = first; k < std::min(first + group, shape.k); ++k) {
          const double x_code = x[static_cast<size_t>(m * shape.k + k)],
                       w = row[static_cast<size_t>(k)] * x_group_scale(m, k);
          whole += (x_code - x_zero) * w;
          plain += x_code * w;
          zeros += x_zero * w;
          products += std::abs(x_code * w);
        }
        sum += whole;
        const bool one_group = group >= shape.k;
        magnitude += !integers() ? products
                     : one_group ? std::abs(whole)
                                 : std::abs(plain) + std::abs(zeros);
      }
      const auto i = static_cast<size_t>(m * shape.n + n);
      const double bias = options.bias ? bias_[static_cast<size_t>(n)] : 0;
      const double residual =
          options.residual ? compare::value_at(const_cast<Buffer&>(residual_).view(), m, n) : 0;
      want[i] = sum * x_scale + bias + residual;
      bound[i] = roundings() * u * (magnitude * x_scale + std::abs(bias) + std::abs(residual)) +
                 u_out * std::abs(want[i]) * (1 + u_out) + tiny;
    }
  }
}

}  // namespace mantissa::linear_test
