#include "quant/quantize.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "base/convert.h"
#include "base/error.h"
#include "quant/blocks.h"
#include "quant/encode_rows.h"

namespace mantissa {
namespace {

int64_t blocks_along(int64_t size, int block) {
  if (size == 0) return 0;
  return block == kAll ? 1 : (size + block - 1) / block;
}

bool spans_rows(const Spec& spec) {
  return spec.quantized() && (spec.block.rows == kAll || spec.global_scale);
}

// Values in the run dtype, as bytes; counts what is not finite, before and after rounding.
QuantReport store_unquantized(const Elem& dtype, Matrix<const float> x, QuantRows& out) {
  const auto bytes = static_cast<size_t>(dtype.bits() / 8);
  out.codes.resize(static_cast<size_t>(x.rows * x.cols) * bytes);
  from_f32(x, View(reinterpret_cast<std::byte*>(out.codes.data()), dtype, x.rows, x.cols));
  QuantReport report;
  report.values = x.rows * x.cols;
  const float limit = static_cast<float>(max_value(dtype));
  for (int64_t r = 0; r < x.rows; ++r) {
    const std::span<const float> row = x.row(r);
    const float most = __builtin_bit_cast(float, amax_bits(row));
    if (most <= limit) continue;  // false for NaN
    for (const float v : row) {
      report.nan += std::isnan(v) ? 1 : 0;
      report.inf += std::isinf(v) ? 1 : 0;
      report.saturated += std::isfinite(v) && std::isinf(round_to(dtype, v)) ? 1 : 0;
    }
  }
  return report;
}

}  // namespace

int64_t QuantRows::scale_rows() const {
  return scales.empty() && codebook.empty() ? 0 : blocks_along(rows, block.rows);
}
int64_t QuantRows::scale_cols() const {
  return scales.empty() && codebook.empty() ? 0 : blocks_along(cols, block.cols);
}

void QuantReport::add(const QuantReport& other) {
  values += other.values;
  nan += other.nan;
  inf += other.inf;
  zero_blocks += other.zero_blocks;
  saturated += other.saturated;
}

struct WeightQuantizer::State {
  Spec spec;
  const Elem* run_dtype = nullptr;
  RecipeInput input;
  RecipeRow recipe;
  int64_t rows = 0, cols = 0;
  std::atomic<int32_t> amax_bits{0};  // of the finite values seen by observe()
};

WeightQuantizer::WeightQuantizer(const Spec& spec, int64_t rows, int64_t cols,
                                 const Elem& run_dtype)
    : state_(std::make_unique<State>()) {
  check(rows >= 0 && cols >= 0, "WeightQuantizer: a shape");
  check(!spec.quantized() || spec.when == When::kAtLoad, "WeightQuantizer: a weight's spec");
  check(!(spans_rows(spec) && spec.asymmetric), "no zero points over a whole tensor");
  state_->spec = spec;
  state_->run_dtype = &run_dtype;
  if (spec.quantized()) {
    state_->recipe = find_recipe(spec);
    state_->input = recipe_input(spec, run_dtype);
  }
  state_->rows = rows;
  state_->cols = cols;
}

WeightQuantizer::~WeightQuantizer() = default;

bool WeightQuantizer::needs_observe() const {
  return spans_rows(state_->spec);
}

int64_t WeightQuantizer::band_multiple() const {
  const Block block = state_->spec.block;
  return state_->spec.quantized() && block.rows != kAll ? block.rows : 1;
}

void WeightQuantizer::observe(Matrix<const float> band) {
  check(band.cols == state_->cols, "WeightQuantizer::observe: whole rows");
  float amax = 0;
  for (int64_t r = 0; r < band.rows; ++r) amax = std::max(amax, finite_amax(band.row(r)));
  const auto bits = __builtin_bit_cast(int32_t, amax);
  int32_t seen = state_->amax_bits.load(std::memory_order_relaxed);
  while (seen < bits && !state_->amax_bits.compare_exchange_weak(seen, bits)) {
  }
}

QuantReport WeightQuantizer::quantize(int64_t row0, Matrix<const float> band,
                                      QuantRows& out) const {
  const Spec& spec = state_->spec;
  check(band.cols == state_->cols, "WeightQuantizer::quantize: whole rows");
  check(0 <= row0 && row0 + band.rows <= state_->rows, "WeightQuantizer::quantize: rows in range");
  check(row0 % band_multiple() == 0, "WeightQuantizer::quantize: a band starts at a block");
  out.elem = spec.quantized() ? spec.elem : state_->run_dtype;
  out.block = spec.block;
  out.rows = band.rows;
  out.cols = band.cols;
  out.global_scale = 1;
  out.scales.clear();
  out.zero_points.clear();
  out.codebook.clear();
  if (!spec.quantized()) return store_unquantized(*out.elem, band, out);

  BlockQuantizer quantizer{.spec = spec, .input = state_->input, .recipe = state_->recipe};
  RecipeInput& input = quantizer.input;
  const float amax = __builtin_bit_cast(float, state_->amax_bits.load());
  if (spec.global_scale) {
    input.global_amax = amax;
    out.global_scale = input.global_scale = global_scale(quantizer.recipe.global, input);
  }
  if (spec.block == per_tensor()) {
    quantizer.fixed = block_scale(quantizer.recipe.rule, input, {.amax = amax});
  }
  const int64_t scale_rows = blocks_along(band.rows, spec.block.rows);
  const int64_t scale_cols = blocks_along(band.cols, spec.block.cols);
  const auto blocks = static_cast<size_t>(scale_rows * scale_cols);
  const int64_t entries = spec.codebook ? int64_t{1} << spec.elem->bits() : 0;
  out.codes.resize(static_cast<size_t>(band.rows * band.cols));
  out.codebook.resize(blocks * static_cast<size_t>(entries));
  if (!spec.codebook) out.scales.resize(blocks);
  if (spec.asymmetric) out.zero_points.resize(blocks);
  QuantReport report =
      quantizer.run(band, {.codes = {out.codes.data(), band.rows, band.cols},
                           .scales = {out.scales.data(), scale_rows, scale_cols},
                           .zero_points = {out.zero_points.data(), scale_rows, scale_cols},
                           .codebook = {out.codebook.data(), scale_rows, scale_cols * entries}});
  if (quantizer.fixed && row0 == 0 && amax == 0) report.zero_blocks = 1;
  return report;
}

QuantReport quantize_activation(const Spec& spec, Matrix<const float> x,
                                const ActivationCodes& out) {
  check(spec.quantized() && spec.when != When::kAtLoad,
        "quantize_activation: an activation's spec");
  check(spec.block.rows == 1 || spec.block == per_tensor(), "scales of rows, groups or the tensor");
  BlockQuantizer quantizer{
      .spec = spec, .input = recipe_input(spec, kF32), .recipe = find_recipe(spec)};
  RecipeInput& input = quantizer.input;
  const bool per_call = spec.when == When::kPerCall;
  BlockRange range;
  if (per_call && spans_rows(spec)) {
    for (int64_t r = 0; r < x.rows; ++r) {
      const BlockRange row = finite_range(x.row(r));
      range.amax = std::max(range.amax, row.amax);
      range.min = std::min(range.min, row.min);
      range.max = std::max(range.max, row.max);
    }
  }
  if (spec.global_scale) {
    check(out.global_scale != nullptr, "quantize_activation: a place for the global scale");
    input.global_amax = range.amax;
    if (per_call) *out.global_scale = global_scale(quantizer.recipe.global, input);
    input.global_scale = *out.global_scale;
    check(input.global_scale > 0 && std::isfinite(input.global_scale), "a global scale above 0");
  } else if (!per_call) {
    quantizer.given = true;
  } else if (spec.block == per_tensor()) {
    quantizer.fixed = block_scale(quantizer.recipe.rule, input, range);
  }
  return quantizer.run(
      x,
      {.codes = out.codes, .scales = out.scales, .zero_points = out.zero_points, .codebook = {}});
}

void dequantize(const QuantRows& q, Matrix<float> out) {
  check(q.rows == out.rows && q.cols == out.cols, "dequantize: shapes agree");
  if (q.rows == 0 || q.cols == 0) return;
  if (q.elem->bits() > 8) {
    return to_f32(
        ConstView(reinterpret_cast<const std::byte*>(q.codes.data()), *q.elem, q.rows, q.cols),
        out);
  }
  const std::array<float, 256> values = decode_table(*q.elem);
  const int64_t block_rows = q.block.rows == kAll ? q.rows : q.block.rows;
  const int64_t block_cols = q.block.cols == kAll ? q.cols : q.block.cols;
  const int64_t entries = int64_t{1} << q.elem->bits();
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < q.cols; ++c) {
      const auto block = static_cast<size_t>(r / block_rows * q.scale_cols() + c / block_cols);
      const uint8_t code = q.codes[static_cast<size_t>(r * q.cols + c)];
      float& value = out.row(r)[static_cast<size_t>(c)];
      if (!q.codebook.empty()) {
        value = q.codebook[block * static_cast<size_t>(entries) + code];
        continue;
      }
      const double zero = q.zero_points.empty() ? 0 : q.zero_points[block];
      value = static_cast<float>((values[code] - zero) * q.scales[block] *
                                 static_cast<double>(q.global_scale));
    }
  }
}

}  // namespace mantissa
