// The reference weight: canonical codes as they are, with the scale, zero point and global scale of
// each row written out, so that every scheme and every band of rows is stored the same way. A
// weight decodes to float64: ((code - zero) * scale) * global. Sums run over k = 0, 1, 2, ...
#include <cmath>
#include <cstring>

#include "kernels/ref/ref.h"

namespace mantissa::ref {
namespace {

constexpr LinearKernel kKernel{"linear_any__ref"};

int64_t blocks_over(int64_t size, int block) {
  return block == kAll ? 1 : (size + block - 1) / block;
}

// The sections of Weight::data, each [N, ...] row-major and 64-byte aligned.
struct Layout {
  const Elem* elem;                                  // of the codes
  int64_t rows, cols;                                // N, K
  int64_t code_bytes;                                // of one code
  int64_t scale_cols;                                // scales in a row
  int64_t codebook_len;                              // entries of one codebook; 0: none
  int64_t codes, scales, zeros, globals, codebooks;  // offsets in bytes
  int64_t bytes;

  explicit Layout(const WeightRequest& request) {
    const Spec& spec = request.scheme.weight;
    elem = spec.quantized() ? spec.elem : request.run_dtype;
    rows = request.rows;
    cols = request.cols;
    code_bytes = elem->bits() <= 8 ? 1 : elem->bits() / 8;
    scale_cols = spec.quantized() ? blocks_over(cols, spec.block.cols) : 0;
    codebook_len = spec.codebook ? int64_t{1} << elem->bits() : 0;
    bytes = 0;
    const auto section = [this](int64_t size) {
      const int64_t offset = bytes;
      bytes += (size + 63) / 64 * 64;
      return offset;
    };
    codes = section(rows * cols * code_bytes);
    scales = section(rows * scale_cols * 4);
    zeros = section(spec.asymmetric ? rows * scale_cols * 4 : 0);
    globals = section(spec.quantized() ? rows * 4 : 0);
    codebooks = section(rows * scale_cols * codebook_len * 4);
  }
};

template <class T>
Matrix<T> section(const Weight& w, int64_t offset, int64_t rows, int64_t cols) {
  return {reinterpret_cast<T*>(w.data + offset), rows, cols};
}

// Weight rows as float64, through a table of all codes where there are at most 256.
class Decoder {
 public:
  explicit Decoder(const Weight& w) : w_(w), layout_(w.request) {
    if (layout_.code_bytes != 1) return;
    table_.resize(256);
    for (uint32_t code = 0; code < 256; ++code)
      table_[code] = decode(*layout_.elem, code & ((1u << layout_.elem->bits()) - 1));
  }

  void row(int64_t n, std::span<double> out) const {
    const Layout& l = layout_;
    if (l.code_bytes != 1) {
      load_row({w_.data + l.codes, *l.elem, l.rows, l.cols}, n, out);
      return;
    }
    const Spec& spec = w_.request.scheme.weight;
    const std::span<uint8_t> codes = section<uint8_t>(w_, l.codes, l.rows, l.cols).row(n);
    const std::span<float> scales = section<float>(w_, l.scales, l.rows, l.scale_cols).row(n);
    const double global = section<float>(w_, l.globals, l.rows, 1).row(n)[0];
    const int64_t block = spec.block.cols == kAll ? l.cols : spec.block.cols;
    for (int64_t k = 0; k < l.cols; ++k) {
      const int64_t b = k / block;
      const uint8_t code = codes[static_cast<size_t>(k)];
      double value = table_[code];
      if (l.codebook_len > 0) {
        value = section<float>(w_, l.codebooks, l.rows, l.scale_cols * l.codebook_len)
                    .row(n)[static_cast<size_t>(b * l.codebook_len + code)];
      }
      if (spec.asymmetric)
        value -= section<int32_t>(w_, l.zeros, l.rows, l.scale_cols).row(n)[static_cast<size_t>(b)];
      out[static_cast<size_t>(k)] = value * scales[static_cast<size_t>(b)] * global;
    }
  }

 private:
  const Weight& w_;
  Layout layout_;
  std::vector<double> table_;
};

// Tokens whose sums run side by side: x is stored [M / 8][K][8].
constexpr int64_t kPanel = 8;

// The activation as float64 panels, from the form that the weight's scheme reads.
std::vector<double> panels(const Activation& x, const Weight& w, int64_t m) {
  const Spec& spec = w.request.scheme.activation;
  const int64_t cols = w.request.cols;
  std::vector<double> out(static_cast<size_t>((m + kPanel - 1) / kPanel * kPanel * cols));
  std::vector<double> row(static_cast<size_t>(cols));
  const QuantizedActivation* form = spec.quantized() ? x.find(spec) : nullptr;
  check(!spec.quantized() || form != nullptr, "linear: x has the form that the weight reads");
  if (form == nullptr)
    check(x.high.rows == m && x.high.cols == cols, "linear: x is [M, K]");
  else
    check(form->codes.rows == m && form->codes.cols == cols, "linear: x is [M, K]");
  const double global = form != nullptr && spec.global_scale ? *form->global_scale : 1;
  const int64_t block = spec.block.cols == kAll ? cols : spec.block.cols;
  for (int64_t r = 0; r < m; ++r) {
    if (form == nullptr) {
      load_row(x.high, r, row);
    } else {
      const int64_t scale_row = spec.block.rows == kAll ? 0 : r;
      for (int64_t k = 0; k < cols; ++k) {
        const size_t b = static_cast<size_t>(k / block);
        double value = decode(*spec.elem, form->codes.row(r)[static_cast<size_t>(k)]);
        if (spec.asymmetric) value -= form->zero_points.row(scale_row)[b];
        row[static_cast<size_t>(k)] = value * form->scales.row(scale_row)[b] * global;
      }
    }
    for (int64_t k = 0; k < cols; ++k)
      out[static_cast<size_t>((r / kPanel * cols + k) * kPanel + r % kPanel)] =
          row[static_cast<size_t>(k)];
  }
  return out;
}

// sums[8] of one weight row with the eight tokens of a panel.
void dot_panel(const double* panel, std::span<const double> weight, double* sums) {
  double sum[kPanel] = {};
  for (const double v : weight) {
    for (int64_t j = 0; j < kPanel; ++j) sum[j] += panel[j] * v;
    panel += kPanel;
  }
  std::copy(sum, sum + kPanel, sums);
}

}  // namespace

Weight plan_weight(const WeightRequest& request, Queue*) {
  check(request.run_dtype != nullptr && request.rows >= 0 && request.cols >= 0,
        "plan_weight: a complete request");
  return {.request = request, .kernel = &kKernel, .bytes = Layout(request).bytes};
}

void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue*) {
  const Layout l(w.request);
  check(*q.elem == *l.elem && q.cols == l.cols, "pack_rows: rows of the planned scheme");
  check(0 <= row0 && row0 + q.rows <= l.rows, "pack_rows: rows in range");
  std::memcpy(w.data + l.codes + row0 * l.cols * l.code_bytes, q.codes.data(), q.codes.size());
  if (!w.request.scheme.weight.quantized()) return;
  const bool asymmetric = w.request.scheme.weight.asymmetric;
  for (int64_t r = 0; r < q.rows; ++r) {
    const int64_t from = (q.block.rows == kAll ? 0 : r / q.block.rows) * l.scale_cols;
    const std::span<float> scales = section<float>(w, l.scales, l.rows, l.scale_cols).row(row0 + r);
    for (int64_t b = 0; b < l.scale_cols; ++b) {
      const size_t at = static_cast<size_t>(from + b);
      scales[static_cast<size_t>(b)] = q.scales.empty() ? 1.0f : q.scales[at];
      if (asymmetric)
        section<int32_t>(w, l.zeros, l.rows, l.scale_cols).row(row0 + r)[static_cast<size_t>(b)] =
            q.zero_points[at];
    }
    section<float>(w, l.globals, l.rows, 1).row(row0 + r)[0] = q.global_scale;
    if (l.codebook_len == 0) continue;
    const std::span<float> books =
        section<float>(w, l.codebooks, l.rows, l.scale_cols * l.codebook_len).row(row0 + r);
    std::memcpy(books.data(), q.codebook.data() + from * l.codebook_len, books.size_bytes());
  }
}

void finish_weight(const Weight&, Queue*) {}

void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue*) {
  const Layout l(w.request);
  check(0 <= row0 && 0 <= rows && row0 + rows <= l.rows, "unpack_rows: rows in range");
  const Spec& spec = w.request.scheme.weight;
  q = {};
  q.elem = l.elem;
  q.block = spec.block;
  q.rows = rows;
  q.cols = l.cols;
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(w.data) + l.codes;
  q.codes.assign(codes + row0 * l.cols * l.code_bytes,
                 codes + (row0 + rows) * l.cols * l.code_bytes);
  if (!spec.quantized() || rows == 0) return;
  q.global_scale = section<float>(w, l.globals, l.rows, 1).row(row0)[0];
  const int64_t step = spec.block.rows == kAll ? rows : spec.block.rows;
  for (int64_t r = 0; r < rows; r += step) {
    const std::span<float> scales = section<float>(w, l.scales, l.rows, l.scale_cols).row(row0 + r);
    if (l.codebook_len == 0) q.scales.insert(q.scales.end(), scales.begin(), scales.end());
    if (spec.asymmetric) {
      const std::span<int32_t> zeros =
          section<int32_t>(w, l.zeros, l.rows, l.scale_cols).row(row0 + r);
      q.zero_points.insert(q.zero_points.end(), zeros.begin(), zeros.end());
    }
    if (l.codebook_len == 0) continue;
    const std::span<float> books =
        section<float>(w, l.codebooks, l.rows, l.scale_cols * l.codebook_len).row(row0 + r);
    q.codebook.insert(q.codebook.end(), books.begin(), books.end());
  }
}

void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue) {
  check(out.rows == batch.tokens && out.cols == table.request.cols, "embed: out is [T, K]");
  const Decoder decoder(table);
  for_each(queue, batch.tokens, [&](int64_t t) {
    check(0 <= batch.token_ids[t] && batch.token_ids[t] < table.request.rows,
          "embed: token in range");
    std::vector<double> row(static_cast<size_t>(out.cols));
    decoder.row(batch.token_ids[t], row);
    for (double& v : row) v *= multiplier;
    store_row(out, t, row);
  });
}

void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue) {
  check(out.cols == w.request.rows, "linear: out is [M, N]");
  if (out.rows == 0) return;
  const int64_t panel_count = (out.rows + kPanel - 1) / kPanel;
  const Decoder decoder(w);
  const std::vector<double> in = panels(x, w, out.rows);
  std::vector<double> sums(static_cast<size_t>(out.cols * panel_count * kPanel));  // [N, M]
  for_each(queue, out.cols, [&](int64_t n) {
    std::vector<double> weight(static_cast<size_t>(w.request.cols));
    decoder.row(n, weight);
    for (int64_t p = 0; p < panel_count; ++p)
      dot_panel(in.data() + p * kPanel * w.request.cols, weight,
                sums.data() + (n * panel_count + p) * kPanel);
  });
  for_each(queue, out.rows, [&](int64_t m) {
    std::vector<double> row(static_cast<size_t>(out.cols)), residual;
    if (!e.residual.empty()) {
      residual.resize(row.size());
      load_row(e.residual, m, residual);
    }
    for (size_t n = 0; n < row.size(); ++n) {
      row[n] = sums[n * static_cast<size_t>(panel_count * kPanel) + static_cast<size_t>(m)];
      if (e.bias != nullptr) row[n] += e.bias[n];
      if (!residual.empty()) row[n] += residual[n];
    }
    store_row(out, m, row);
  });
}

}  // namespace mantissa::ref
