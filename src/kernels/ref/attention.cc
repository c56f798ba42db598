// Rotary embedding, cache writes and attention of the reference. A page is
//   K [KV heads][P tokens][D], V the same, K scales float32 [KV heads][P] and V scales (online
//   formats only), to a multiple of 64 bytes.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels/ref/ref.h"

namespace mantissa::ref {
namespace {

struct Page {
  KvShape shape;
  int64_t cell_bytes;  // K or V of one (token, head)
  int64_t half_bytes;  // all of K or V

  explicit Page(const KvShape& s)
      : shape(s),
        cell_bytes(int64_t{s.head_dim} * s.elem->bits() / 8),
        half_bytes(cell_bytes * s.kv_heads * s.page_tokens) {}

  int64_t index(int32_t head, int64_t offset) const { return head * shape.page_tokens + offset; }
  std::byte* cell(std::byte* page, bool v, int32_t head, int64_t offset) const {
    return page + (v ? half_bytes : 0) + index(head, offset) * cell_bytes;
  }
  float* scale(std::byte* page, bool v, int32_t head, int64_t offset) const {
    float* scales = reinterpret_cast<float*>(page + 2 * half_bytes);
    return scales + (v ? shape.kv_heads * shape.page_tokens : 0) + index(head, offset);
  }
  int64_t bytes() const {
    const int64_t scales = shape.scaled ? int64_t{8} * shape.kv_heads * shape.page_tokens : 0;
    return (2 * half_bytes + scales + 63) / 64 * 64;
  }
};

// The scale of batch.h for one (token, head).
float online_scale(std::span<const double> values, const Elem& elem) {
  float amax = 0;
  for (const double v : values)
    if (std::abs(v) > amax) amax = static_cast<float>(std::abs(v));
  return std::max(std::min(amax, FLT_MAX) / static_cast<float>(max_value(elem)), FLT_MIN);
}

uint8_t code_of(const Elem& elem, float value) {
  if (std::isnan(value) && elem.nan == NanCodes::kNone) return 0;
  return static_cast<uint8_t>(encode(elem, value));
}

void write_cell(const KvLayer& kv, int32_t slot, int32_t head, bool v,
                std::span<const double> values) {
  const Page page(kv.shape);
  std::byte* base = kv.pages + slot / kv.shape.page_tokens * kv.page_bytes;
  const int32_t offset = slot % kv.shape.page_tokens;
  std::byte* cell = page.cell(base, v, head, offset);
  const Elem& elem = *kv.shape.elem;
  if (elem.bits() > 8) {
    store_row({cell, elem, 1, kv.shape.head_dim}, 0, values);
    return;
  }
  const float scale = online_scale(values, elem);
  const float inverse = 1 / (v ? kv.shape.v_scale : kv.shape.k_scale);
  if (kv.shape.scaled) *page.scale(base, v, head, offset) = scale;
  for (size_t d = 0; d < values.size(); ++d) {
    const float x = static_cast<float>(values[d]);
    cell[d] = std::byte{code_of(elem, kv.shape.scaled ? x / scale : x * inverse)};
  }
}

void read_cell(const KvLayer& kv, int64_t slot, int32_t head, bool v, std::span<double> out) {
  const Page page(kv.shape);
  std::byte* base = kv.pages + slot / kv.shape.page_tokens * kv.page_bytes;
  const int64_t offset = slot % kv.shape.page_tokens;
  const std::byte* cell = page.cell(base, v, head, offset);
  const Elem& elem = *kv.shape.elem;
  if (elem.bits() > 8) {
    load_row({cell, elem, 1, kv.shape.head_dim}, 0, out);
    return;
  }
  const double fixed = v ? kv.shape.v_scale : kv.shape.k_scale;
  const double scale = kv.shape.scaled ? *page.scale(base, v, head, offset) : fixed;
  for (size_t d = 0; d < out.size(); ++d)
    out[d] = decode(elem, std::to_integer<uint32_t>(cell[d])) * scale;
}

// One row of attention: softmax(scale q k^T) v over keys [first, last] of the context.
struct KeyRange {
  int64_t first, last;
};
// k, v [L, D] are the context of the head; writes D values.
void attend(std::span<const double> q, const std::vector<double>& k, const std::vector<double>& v,
            KeyRange keys, const AttentionParams& params, double* out) {
  const size_t d_count = q.size();
  std::vector<double> scores;
  double top = -HUGE_VAL;
  for (int64_t j = keys.first; j <= keys.last; ++j) {
    double score = 0;
    for (size_t d = 0; d < d_count; ++d) score += q[d] * k[static_cast<size_t>(j) * d_count + d];
    score *= params.scale;
    if (params.soft_cap > 0) score = params.soft_cap * std::tanh(score / params.soft_cap);
    scores.push_back(score);
    top = std::max(top, score);
  }
  std::fill(out, out + d_count, 0.0);
  double sum = 0;
  for (int64_t j = keys.first; j <= keys.last; ++j) {
    const double p = std::exp(scores[static_cast<size_t>(j - keys.first)] - top);
    sum += p;
    for (size_t d = 0; d < d_count; ++d) out[d] += p * v[static_cast<size_t>(j) * d_count + d];
  }
  for (size_t d = 0; d < d_count; ++d) out[d] /= sum;
}

}  // namespace

int64_t kv_page_bytes(const KvShape& shape) {
  check(shape.elem != nullptr, "kv_page_bytes: the cache has a format");
  if (shape.elem->bits() <= 8 && shape.scaled == shape.is_static())
    throw Error(text("a KV cache of ", shape.elem->name, " with ",
                     shape.scaled ? "both online scales and a static scale" : "no scale"),
                "keep online scales, or give --kv-scale");
  return Page(shape).bytes();
}

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue) {
  const int64_t dim = kv.shape.head_dim;
  const int64_t half = rope.rotary_dim / 2;
  check(qkv.rows == batch.tokens && qkv.cols == (params.heads + 2 * kv.shape.kv_heads) * dim,
        "rope_write: qkv is [T, (H + 2 KV) * D]");
  check(rope.rotary_dim % 2 == 0 && rope.rotary_dim <= dim, "rope_write: rotary_dim <= D, even");
  for_each(queue, batch.tokens, [&](int64_t t) {
    std::vector<double> row(static_cast<size_t>(qkv.cols));
    load_row(qkv, t, row);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(batch.positions[t]) * rope.inv_freq[i];
      const float c = static_cast<float>(std::cos(double{angle})) * rope.attention_factor;
      const float s = static_cast<float>(std::sin(double{angle})) * rope.attention_factor;
      for (int32_t head = 0; head < params.heads + kv.shape.kv_heads; ++head) {
        double& a = row[static_cast<size_t>(head * dim + i)];
        double& b = row[static_cast<size_t>(head * dim + i + half)];
        const double rotated = a * c - b * s;
        b = b * c + a * s;
        a = rotated;
      }
    }
    store_row(qkv, t, row);
    load_row(qkv, t, row);  // rounded to the run dtype
    for (int32_t head = 0; head < kv.shape.kv_heads; ++head) {
      const size_t size = static_cast<size_t>(dim);
      const std::span<const double> all(row);
      write_cell(kv, batch.slots[t], head, false,
                 all.subspan(static_cast<size_t>(params.heads + head) * size, size));
      write_cell(
          kv, batch.slots[t], head, true,
          all.subspan(static_cast<size_t>(params.heads + kv.shape.kv_heads + head) * size, size));
    }
  });
}

void attention(const Activation& out, ConstView qkv, const AttentionParams& params,
               const Batch& batch, const KvLayer& kv, Queue* queue) {
  const int64_t dim = kv.shape.head_dim;
  const int64_t group = params.heads / kv.shape.kv_heads;
  check(qkv.rows == batch.tokens && qkv.cols >= params.heads * dim &&
            params.heads % kv.shape.kv_heads == 0,
        "attention: qkv is [T, (H + 2 KV) * D], H a multiple of KV");
  std::vector<double> result(static_cast<size_t>(batch.tokens * params.heads * dim));  // [T, H * D]
  for_each(queue, int64_t{batch.sequences} * kv.shape.kv_heads, [&](int64_t task) {
    const int64_t s = task / kv.shape.kv_heads;
    const int32_t kv_head = static_cast<int32_t>(task % kv.shape.kv_heads);
    const int64_t length = batch.context_len[s];
    const int64_t begin = batch.query_start[s], end = batch.query_start[s + 1];
    if (begin == end) return;
    const size_t size = static_cast<size_t>(dim);
    std::vector<double> k(static_cast<size_t>(length * dim)), v(k.size());
    for (int64_t j = 0; j < length; ++j) {
      const int64_t page =
          batch.block_table[s * batch.block_table_stride + j / kv.shape.page_tokens];
      const int64_t slot = page * kv.shape.page_tokens + j % kv.shape.page_tokens;
      read_cell(kv, slot, kv_head, false, {k.data() + j * dim, size});
      read_cell(kv, slot, kv_head, true, {v.data() + j * dim, size});
    }
    std::vector<double> row(static_cast<size_t>(qkv.cols));
    for (int64_t t = begin; t < end; ++t) {
      load_row(qkv, t, row);
      const int64_t last = length - (end - t);
      const int64_t first = params.window > 0 ? std::max<int64_t>(0, last - params.window + 1) : 0;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        attend({row.data() + head * dim, size}, k, v, {first, last}, params,
               result.data() + (t * params.heads + head) * dim);
    }
  });
  View high = out.high;
  std::vector<std::byte> own;
  if (high.empty()) {
    own.resize(result.size() * static_cast<size_t>(qkv.elem_bytes()));
    high = View(own.data(), *qkv.elem, batch.tokens, params.heads * dim);
  }
  check(high.rows == batch.tokens && high.cols == params.heads * dim,
        "attention: out is [T, H * D]");
  const size_t cols = static_cast<size_t>(high.cols);
  for (int64_t t = 0; t < batch.tokens; ++t)
    store_row(high, t, {result.data() + t * high.cols, cols});
  quantize_forms(out, high, queue);
}

}  // namespace mantissa::ref
