#include "kernels/cuda/weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/convert.h"
#include "base/error.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

int64_t padded(int64_t bytes, int64_t to) {
  return (bytes + to - 1) / to * to;
}

void copy(void* to, const void* from, size_t bytes, Queue* queue) {
  cuda_check(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_queue(queue).stream.get()),
      "copying a weight to the GPU");
}
void fetch(void* to, const void* from, size_t bytes, Queue* queue) {
  const cudaStream_t stream = cuda_queue(queue).stream.get();
  cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "reading a weight");
  cuda_check(cudaStreamSynchronize(stream), "reading a weight");
}

// Rows of a band -> the stored width, row_bytes apart.
std::vector<unsigned char> store_codes(const WeightLayout& l, const QuantRows& q) {
  std::vector<unsigned char> out(static_cast<size_t>(q.rows * l.row_bytes));
  const int64_t code_bytes = std::max(1, l.code_bits / 8);
  for (int64_t r = 0; r < q.rows; ++r) {
    const uint8_t* from = q.codes.data() + r * l.cols * code_bytes;
    unsigned char* to = out.data() + r * l.row_bytes;
    if (l.code_bits != 4) {
      std::memcpy(to, from, static_cast<size_t>(l.cols * code_bytes));
      continue;
    }
    for (int k = 0; k < l.cols; ++k) {
      const Nibble at = nibble_of(k);
      const uint32_t code = widen_nibbles(from[k] & 15u, l.widened_bits) & 15u;
      to[at.byte] = static_cast<unsigned char>(to[at.byte] | code << at.shift);
    }
  }
  return out;
}

// One value per group of each `step` rows of the band, from blocks that may span several rows.
template <class T, class Of>
std::vector<T> per_row_group(const WeightLayout& l, const QuantRows& q, int64_t step,
                             const Of& of) {
  std::vector<T> out;
  out.reserve(static_cast<size_t>((q.rows + step - 1) / step * l.groups));
  const int64_t block_rows = q.block.rows == kAll ? std::max<int64_t>(q.rows, 1) : q.block.rows;
  for (int64_t r = 0; r < q.rows; r += step) {
    for (int64_t g = 0; g < l.groups; ++g)
      out.push_back(of(static_cast<size_t>(r / block_rows * l.groups + g)));
  }
  return out;
}

// Scales of a band that are no bytes; what pads rows of them stays as it is.
template <class T, class Of>
void pack_scales(const Weight& w, const WeightLayout& l, int64_t row0, const QuantRows& q,
                 Queue* queue, const Of& of) {
  check(l.scale_rows == 1 || (q.block.rows == l.scale_rows && row0 % l.scale_rows == 0),
        "a band of rows that begins at a tile");
  const std::vector<T> scales = per_row_group<T>(
      l, q, l.scale_rows, [&](size_t i) { return of(q.scales.empty() ? 1.0f : q.scales[i]); });
  const size_t row_bytes = static_cast<size_t>(l.groups) * sizeof(T);
  cuda_check(cudaMemcpy2DAsync(
                 w.data + l.scales + scale_at(row0, 0, l.scale_rows, l.scale_pitch) * sizeof(T),
                 static_cast<size_t>(l.scale_pitch) * sizeof(T), scales.data(), row_bytes,
                 row_bytes, scales.size() / static_cast<size_t>(l.groups), cudaMemcpyHostToDevice,
                 cuda_queue(queue).stream.get()),
             "copying a weight's scales to the GPU");
}
// One for each row and group, whatever they share.
template <class T, class Of>
void unpack_scales(const Weight& w, const WeightLayout& l, int64_t row0, QuantRows& q, Queue* queue,
                   const Of& of) {
  const int64_t first = row0 / l.scale_rows,
                end = (row0 + q.rows + l.scale_rows - 1) / l.scale_rows;
  std::vector<T> scales(static_cast<size_t>((end - first) * l.scale_pitch));
  fetch(scales.data(), w.data + l.scales + first * l.scale_pitch * sizeof(T),
        scales.size() * sizeof(T), queue);
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int g = 0; g < l.groups; ++g)
      q.scales[static_cast<size_t>(r * l.groups + g)] = of(scales[static_cast<size_t>(
          scale_at(row0 + r - first * l.scale_rows, g, l.scale_rows, l.scale_pitch))]);
  }
}

// The bytes of scales of rows that begin at a tile, for whole tiles.
std::vector<uint8_t> fetch_scale_tiles(const Weight& w, const WeightLayout& l, int64_t row0,
                                       int64_t rows, Queue* queue) {
  const int64_t tile_bytes = int64_t{kScaleTile} * l.scale_blocks * (128 / l.group_cols);
  std::vector<uint8_t> tiles(
      static_cast<size_t>(padded(rows, kScaleTile) / kScaleTile * tile_bytes));
  fetch(tiles.data(), w.data + l.scales + row0 / kScaleTile * tile_bytes, tiles.size(), queue);
  return tiles;
}
// A band of rows; other rows of its first and last tile keep theirs.
void pack_byte_scales(const Weight& w, const WeightLayout& l, int64_t row0, const QuantRows& q,
                      Queue* queue) {
  const Elem& elem = *w.request.scheme.weight.scale;
  const auto scales = per_row_group<uint8_t>(l, q, 1, [&](size_t i) {
    return static_cast<uint8_t>(encode(elem, q.scales.empty() ? 1.0f : q.scales[i], false));
  });
  const int64_t first = row0 / kScaleTile * kScaleTile;
  std::vector<uint8_t> tiles = fetch_scale_tiles(w, l, first, row0 + q.rows - first, queue);
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int g = 0; g < l.groups; ++g)
      tiles[static_cast<size_t>(byte_scale_at(row0 - first + r, g, l.scale_blocks, l.group_cols))] =
          scales[static_cast<size_t>(r * l.groups + g)];
  }
  copy(w.data + l.scales + byte_scale_at(first, 0, l.scale_blocks, l.group_cols), tiles.data(),
       tiles.size(), queue);
}
void unpack_byte_scales(const Weight& w, const WeightLayout& l, int64_t row0, QuantRows& q,
                        Queue* queue) {
  const auto values = decode_table(*w.request.scheme.weight.scale);
  const int64_t first = row0 / kScaleTile * kScaleTile;
  const std::vector<uint8_t> tiles = fetch_scale_tiles(w, l, first, row0 + q.rows - first, queue);
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int g = 0; g < l.groups; ++g)
      q.scales[static_cast<size_t>(r * l.groups + g)] = values[tiles[static_cast<size_t>(
          byte_scale_at(row0 - first + r, g, l.scale_blocks, l.group_cols))]];
  }
}

}  // namespace

WeightLayout::WeightLayout(const WeightRequest& request) : rows(request.rows), cols(request.cols) {
  const Spec& spec = request.scheme.weight;
  const int bits = spec.quantized() ? spec.elem->bits() : request.run_dtype->bits();
  code_bits = bits <= 4 ? 4 : bits <= 8 ? 8 : bits;
  if (code_bits == 4 && !spec.codebook && !spec.elem->is_float() && spec.elem->has_sign)
    widened_bits = bits;
  row_bytes = padded((cols * code_bits + 7) / 8, code_bits == 4 ? 64 : 16);
  const auto section = [this](int64_t size) {
    const int64_t offset = bytes;
    bytes += padded(size, 64);
    return offset;
  };
  codes = section(rows * row_bytes);
  if (!spec.quantized()) return;
  group_cols =
      static_cast<int>(spec.block.cols == kAll ? std::max<int64_t>(cols, 1) : spec.block.cols);
  groups = (cols + group_cols - 1) / group_cols;
  // FP4 in groups of 32 (MX) or 16 (NVFP4): what kernels of a few rows read is as small as can be.
  const bool bytes_of_fp4 = *spec.elem == kE2M1 && spec.block.rows == 1 &&
                            (*spec.scale == kE8M0   ? spec.block.cols == 32
                             : *spec.scale == kE4M3 ? spec.block.cols == 16
                                                    : false);
  scale_form = *spec.scale == kF32    ? ScaleForm::kF32
               : !bytes_of_fp4        ? ScaleForm::kBf16
               : *spec.scale == kE8M0 ? ScaleForm::kE8M0
                                      : ScaleForm::kE4M3;
  if (bytes_of_fp4) {
    scale_blocks = static_cast<int>((cols + 127) / 128);
    scale_bytes = padded(rows, kScaleTile) * scale_blocks * (128 / group_cols);
  } else {
    const int each = scale_form == ScaleForm::kF32 ? 4 : 2;
    scale_rows = spec.block.rows == kAll ? 1 : spec.block.rows;
    scale_pitch = scale_rows == 1 ? groups : padded(groups * each, 16) / each;
    scale_bytes = (rows + scale_rows - 1) / scale_rows * scale_pitch * each;
  }
  asymmetric = spec.asymmetric;
  codebook_len = spec.codebook ? int64_t{1} << bits : 0;
  scales = section(scale_bytes);
  zeros = section(asymmetric ? rows * groups : 0);
  globals = section(rows * 4);
  codebooks = section(rows * groups * codebook_len * 2);
  table = section(256 * 4);
}

DeviceWeight device_weight(const Weight& w) {
  const WeightLayout l(w.request);
  const auto at = [&](int64_t offset) { return w.data + offset; };
  const bool quantized = l.groups > 0;
  return {.codes = reinterpret_cast<const unsigned char*>(at(l.codes)),
          .scales = quantized ? at(l.scales) : nullptr,
          .zeros = l.asymmetric ? reinterpret_cast<const int8_t*>(at(l.zeros)) : nullptr,
          .globals = reinterpret_cast<const float*>(at(l.globals)),
          .codebooks = l.codebook_len > 0 ? reinterpret_cast<const __nv_bfloat16*>(at(l.codebooks))
                                          : nullptr,
          .table = reinterpret_cast<const float*>(at(l.table)),
          .row_bytes = l.row_bytes,
          .n = static_cast<int>(l.rows),
          .k = static_cast<int>(l.cols),
          .groups = static_cast<int>(l.groups),
          .group_cols = l.group_cols,
          .codebook_len = static_cast<int>(l.codebook_len),
          .code_bits = l.code_bits,
          .scale_form = l.scale_form,
          .scale_blocks = l.scale_blocks,
          .scale_rows = l.scale_rows,
          .scale_pitch = l.scale_pitch};
}

void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue* queue) {
  if (q.rows == 0) return;
  const WeightLayout l(w.request);
  if (!q.codes.empty()) {
    const std::vector<unsigned char> codes = store_codes(l, q);
    copy(w.data + l.codes + row0 * l.row_bytes, codes.data(), codes.size(), queue);
  }
  if (l.groups == 0) return;
  if (is_byte(l.scale_form)) {
    pack_byte_scales(w, l, row0, q, queue);
  } else if (l.scale_form == ScaleForm::kF32) {
    pack_scales<float>(w, l, row0, q, queue, [](float scale) { return scale; });
  } else {
    pack_scales<uint16_t>(w, l, row0, q, queue, bf16_from_f32);
  }
  if (l.asymmetric) {
    const auto zeros = per_row_group<int8_t>(
        l, q, 1, [&](size_t i) { return static_cast<int8_t>(q.zero_points[i]); });
    copy(w.data + l.zeros + row0 * l.groups, zeros.data(), zeros.size(), queue);
  }
  const std::vector<float> globals(static_cast<size_t>(q.rows), q.global_scale);
  copy(w.data + l.globals + row0 * 4, globals.data(), globals.size() * 4, queue);
  if (l.codebook_len > 0) {
    std::vector<uint16_t> entries(q.codebook.size());
    std::ranges::transform(q.codebook, entries.begin(), bf16_from_f32);
    copy(w.data + l.codebooks + row0 * l.groups * l.codebook_len * 2, entries.data(),
         entries.size() * 2, queue);
  }
}

CodeTable code_table(const Elem& elem) {
  CodeTable table;
  std::ranges::copy(decode_table(elem), table.value);
  if (!elem.is_float()) {
    const size_t codes = size_t{1} << elem.bits();
    for (size_t i = codes; i < kCodes; ++i) table.value[i] = table.value[i % codes];
  }
  return table;
}

void finish_weight(const Weight& w, Queue* queue) {
  const WeightLayout l(w.request);
  if (l.groups == 0) return;
  const CodeTable table = code_table(*w.request.scheme.weight.elem);
  copy(w.data + l.table, table.value, sizeof table.value, queue);
}

void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue* queue) {
  const WeightLayout l(w.request);
  const Spec& spec = w.request.scheme.weight;
  q = {};
  q.elem = spec.quantized() ? spec.elem : w.request.run_dtype;
  q.block = spec.quantized() ? Block{1, spec.block.cols} : Block{};
  q.rows = rows;
  q.cols = l.cols;
  std::vector<unsigned char> stored(static_cast<size_t>(rows * l.row_bytes));
  fetch(stored.data(), w.data + l.codes + row0 * l.row_bytes, stored.size(), queue);
  const int64_t code_bytes = std::max(1, l.code_bits / 8);
  q.codes.resize(static_cast<size_t>(rows * l.cols * code_bytes));
  for (int64_t r = 0; r < rows; ++r) {
    const unsigned char* from = stored.data() + r * l.row_bytes;
    uint8_t* to = q.codes.data() + r * l.cols * code_bytes;
    if (l.code_bits != 4) {
      std::memcpy(to, from, static_cast<size_t>(l.cols * code_bytes));
      continue;
    }
    const int mask = (1 << l.widened_bits) - 1;
    for (int k = 0; k < l.cols; ++k) {
      const Nibble at = nibble_of(k);
      to[k] = static_cast<uint8_t>(from[at.byte] >> at.shift & mask);
    }
  }
  if (l.groups == 0) return;
  const auto count = static_cast<size_t>(rows * l.groups);
  q.scales.resize(count);
  if (is_byte(l.scale_form)) {
    unpack_byte_scales(w, l, row0, q, queue);
  } else if (l.scale_form == ScaleForm::kF32) {
    unpack_scales<float>(w, l, row0, q, queue, [](float scale) { return scale; });
  } else {
    unpack_scales<uint16_t>(w, l, row0, q, queue, f32_from_bf16);
  }
  if (l.asymmetric) {
    std::vector<int8_t> zeros(count);
    fetch(zeros.data(), w.data + l.zeros + row0 * l.groups, count, queue);
    q.zero_points.assign(zeros.begin(), zeros.end());
  }
  fetch(&q.global_scale, w.data + l.globals + row0 * 4, 4, queue);
  if (l.codebook_len > 0) {
    std::vector<uint16_t> entries(count * static_cast<size_t>(l.codebook_len));
    fetch(entries.data(), w.data + l.codebooks + row0 * l.groups * l.codebook_len * 2,
          entries.size() * 2, queue);
    q.codebook.resize(entries.size());
    std::ranges::transform(entries, q.codebook.begin(), f32_from_bf16);
  }
}

}  // namespace mantissa::cuda
