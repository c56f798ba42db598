#include "quant/blocks.h"

#include <algorithm>
#include <vector>

#include "quant/codebook.h"
#include "quant/encode_rows.h"

namespace mantissa {
namespace {

// Rows without NaN: the caller's own where clean, else copies.
class CleanRows {
 public:
  CleanRows(Matrix<const float> x, QuantReport& report) {
    for (int64_t r = 0; r < x.rows; ++r) {
      std::span<const float> row = x.row(r);
      const int32_t most = amax_bits(row);
      if (most >= kInfinityBits) {
        std::vector<float>& copy = copies_.emplace_back(row.size());
        replace_nan(row, copy, report);
        row = copy;
      }
      rows_.push_back(row);
      finite_amax_.push_back(most < kInfinityBits ? __builtin_bit_cast(float, most)
                                                  : finite_amax(row));
    }
  }
  size_t count() const { return rows_.size(); }
  std::span<const float> row(size_t r) const { return rows_[r]; }
  float amax(size_t r) const { return finite_amax_[r]; }

 private:
  std::vector<std::span<const float>> rows_;
  std::vector<float> finite_amax_;
  std::vector<std::vector<float>> copies_;  // inner buffers stay where they are
};

void widen(BlockRange& range, const BlockRange& other) {
  range.amax = std::max(range.amax, other.amax);
  range.min = std::min(range.min, other.min);
  range.max = std::max(range.max, other.max);
}

// Only what the recipe needs: amax, or the whole range.
BlockRange range_of(const CleanRows& rows, size_t first, size_t count, bool asymmetric) {
  BlockRange range;
  for (size_t r = 0; r < rows.count(); ++r) {
    const std::span<const float> row = rows.row(r);
    if (asymmetric) {
      widen(range, finite_range(row.subspan(first, count)));
    } else if (count == row.size()) {
      range.amax = std::max(range.amax, rows.amax(r));
    } else {
      range.amax = std::max(range.amax, finite_amax(row.subspan(first, count)));
    }
  }
  return range;
}

// Clamping moves values only where the scale does not follow the block's own amax (given scales),
// or may lie below it by design (MX).
bool may_saturate(const Spec& spec) {
  return spec.when == When::kStatic || *spec.scale == kE8M0;
}

// One stripe of rows: as many as a block has.
struct Stripe {
  const CleanRows& rows;
  int64_t row0 = 0, scale_row = 0;
  size_t first = 0, width = 0;  // the block's columns
  int64_t block = 0;            // its number in the stripe
};

BlockScale scale_of(const BlockQuantizer& q, const Stripe& s, const BlockTargets& out,
                    QuantReport& report) {
  const bool asymmetric = q.spec.asymmetric;
  float& scale = out.scales.row(s.scale_row)[static_cast<size_t>(s.block)];
  int32_t* zero =
      asymmetric ? &out.zero_points.row(s.scale_row)[static_cast<size_t>(s.block)] : nullptr;
  if (q.given) return given_scale(q.recipe, scale, zero != nullptr ? *zero : 0);
  BlockScale found;
  if (q.fixed) {
    found = *q.fixed;
  } else {
    const BlockRange range = range_of(s.rows, s.first, s.width, asymmetric);
    report.zero_blocks += range.amax == 0 ? 1 : 0;
    found = block_scale(q.recipe.rule, q.input, range);
  }
  scale = found.scale;
  if (zero != nullptr) *zero = found.zero;
  return found;
}

void quantize_block(const BlockQuantizer& q, const Stripe& s, const BlockTargets& out,
                    QuantReport& report) {
  const Spec& spec = q.spec;
  const auto codes_of = [&](size_t r) {
    return out.codes.row(s.row0 + static_cast<int64_t>(r)).subspan(s.first, s.width);
  };
  if (spec.codebook) {  // one row a block
    const std::span<const float> x = s.rows.row(0).subspan(s.first, s.width);
    const std::span<float> entries = out.codebook.row(s.scale_row);
    const auto count = size_t{1} << spec.elem->bits();
    fit_codebook(x, entries.subspan(static_cast<size_t>(s.block) * count, count), codes_of(0));
    report.zero_blocks += finite_amax(x) == 0 ? 1 : 0;
    return;
  }
  const BlockScale scale = scale_of(q, s, out, report);
  for (size_t r = 0; r < s.rows.count(); ++r) {
    const std::span<const float> piece = s.rows.row(r).subspan(s.first, s.width);
    encode_row(q.input, q.recipe, scale, piece, codes_of(r));
    if (may_saturate(spec)) report.saturated += count_saturated(q.input, q.recipe, scale, piece);
  }
}

}  // namespace

QuantReport BlockQuantizer::run(Matrix<const float> x, const BlockTargets& out) const {
  const Block block = spec.block;
  QuantReport report;
  report.values = x.rows * x.cols;
  if (report.values == 0) return report;
  const int64_t stripe_rows = block.rows == kAll ? 1 : block.rows;
  const int64_t block_cols = block.cols == kAll ? x.cols : block.cols;
  for (int64_t row0 = 0; row0 < x.rows; row0 += stripe_rows) {
    const CleanRows rows(x.row_range(row0, std::min(stripe_rows, x.rows - row0)), report);
    Stripe stripe{.rows = rows, .row0 = row0};
    stripe.scale_row = block.rows == kAll ? 0 : row0 / stripe_rows;
    for (int64_t col0 = 0; col0 < x.cols; col0 += block_cols, ++stripe.block) {
      stripe.first = static_cast<size_t>(col0);
      stripe.width = static_cast<size_t>(std::min(block_cols, x.cols - col0));
      quantize_block(*this, stripe, out, report);
    }
  }
  return report;
}

}  // namespace mantissa
