// Canonical codes and scales -> packed weight and back; rows gathered from a packed weight.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/queue.h"

namespace mantissa::cpu {
namespace {

int canonical_bytes(const PackedLayout& l) {
  return l.codes == Codes::kF32 ? 4 : l.codes == Codes::kPacked ? 1 : 2;
}

// ---- packed codes

using Word = uint64_t;  // eight codes, a byte each
constexpr Word kEachByte = 0x0101010101010101ull;
constexpr int kVectorWords = kVectorBytes / static_cast<int>(sizeof(Word));

// The vectors of a strip's K block, a code in each byte.
struct BlockCodes {
  Word words[kVectorsMost][kVectorWords];
  std::byte* bytes(int vector) { return reinterpret_cast<std::byte*>(words[vector]); }
};

// `inputs` canonical codes of one channel into their bytes.
void put_channel(Order order, int inputs, int channel, const std::byte* codes, BlockCodes& block) {
  for (int v = 0; v < inputs / kVectorInputs; ++v, codes += kVectorInputs) {
    uint32_t dword;
    std::memcpy(&dword, codes, sizeof dword);
    std::byte* to = block.bytes(v);
    if (order == Order::kPairs) {
      const auto low = static_cast<uint16_t>(dword), high = static_cast<uint16_t>(dword >> 16);
      std::memcpy(to + byte_of(order, channel, 0), &low, 2);
      std::memcpy(to + byte_of(order, channel, 2), &high, 2);
      continue;
    }
    if (order == Order::kWords)
      dword = (dword & 0xff0000ffu) | (dword & 0xff00u) << 8 | (dword >> 8 & 0xff00u);
    std::memcpy(to + 4 * channel, &dword, 4);
  }
}

// The block's lines, one behind the other; `flip` is or-ed exclusively to every code.
void pack_block(const PackedLayout& l, const Parts& parts, const BlockCodes& block, std::byte* to) {
  const Word flip = kEachByte * static_cast<uint8_t>(l.zero_shift);
  std::memset(to, 0, static_cast<size_t>(l.block_bytes));
  for (int p = 0; p < parts.count; ++p) {
    const Part& part = parts.part[p];
    const Word mask = kEachByte * ((1u << part.bits) - 1);
    for (int v = 0; v < l.inputs / kVectorInputs; ++v) {
      std::byte* at = to + part.line[v] * kVectorBytes;
      for (int w = 0; w < kVectorWords; ++w) {
        Word word;
        std::memcpy(&word, at + w * sizeof(Word), sizeof word);
        word |= ((block.words[v][w] ^ flip) >> part.at & mask) << part_bit(part, v);
        std::memcpy(at + w * sizeof(Word), &word, sizeof word);
      }
    }
  }
}

// A strip's K block where it stands.
struct PackedBlock {
  std::byte* first;
  int64_t stride;  // between lines
  std::byte* operator[](int64_t line) const { return first + line * stride; }
};

// Code of one channel and input of a block, as packed.
uint8_t code_at(const PackedLayout& l, const Parts& parts, const PackedBlock& block, int channel,
                int input) {
  const int v = input / kVectorInputs, byte = byte_of(l.order, channel, input % kVectorInputs);
  unsigned code = 0;
  for (int p = 0; p < parts.count; ++p) {
    const Part& part = parts.part[p];
    const auto stored = static_cast<unsigned>(block[part.line[v]][byte]);
    code |= (stored >> part_bit(part, v) & ((1u << part.bits) - 1)) << part.at;
  }
  return static_cast<uint8_t>(code);
}

// Rows [first, last) of one strip; `rows` are their canonical codes, `stride` bytes apart.
struct StripRows {
  int64_t strip;
  int first, last;
  std::byte* rows;
  int64_t stride;

  std::byte* codes(int channel, int64_t at) const { return rows + (channel - first) * stride + at; }
};

// The strip's K block `number`.
PackedBlock block_of(const PackedLayout& l, std::byte* data, int64_t strip, int64_t number) {
  const int64_t in_tile = strip % kTileStrips,
                first = l.entry(strip - in_tile, number, l.k_blocks) / kStrip * l.block_bytes;
  return {data + l.codes_at + first + in_tile * kBlockBytes, l.tile_strips(strip) * kBlockBytes};
}

// Other threads may pack other channels of the strip meanwhile: only own bytes are written.
void store_channels(const PackedLayout& l, const StripRows& s, const std::byte* packed,
                    const PackedBlock& to) {
  for (int64_t line = 0; line < l.block_bytes / kVectorBytes; ++line, packed += kVectorBytes) {
    if (s.first == 0 && s.last == kStrip) {
      std::memcpy(to[line], packed, kVectorBytes);
      continue;
    }
    for (int channel = s.first; channel < s.last; ++channel)
      for (int i = 0; i < kVectorInputs; ++i) {
        const int at = byte_of(l.order, channel, i);
        to[line][at] = packed[at];
      }
  }
}

void pack_strip(const PackedLayout& l, std::byte* data, const StripRows& s) {
  const Parts parts = parts_of(l.bits);
  BlockCodes block{};
  std::byte packed[kVectorsMost * kVectorBytes];
  for (int64_t b = 0; b < l.k_blocks; ++b) {
    const int64_t from = b * l.inputs, count = std::min<int64_t>(l.inputs, l.cols - from);
    for (int channel = s.first; channel < s.last; ++channel) {
      std::byte padded[kVectorsMost * kVectorInputs] = {};
      const std::byte* codes = s.codes(channel, from);
      if (count < l.inputs) {
        std::memcpy(padded, codes, static_cast<size_t>(count));
        codes = padded;
      }
      put_channel(l.order, l.inputs, channel, codes, block);
    }
    pack_block(l, parts, block, packed);
    store_channels(l, s, packed, block_of(l, data, s.strip, b));
  }
}

// Codes of 8 bits of one channel: a few bytes of each K block.
void unpack_channel(const PackedLayout& l, std::byte* data, const StripRows& s) {
  constexpr int64_t kAhead = 32;  // K blocks
  const PackedBlock first = block_of(l, data, s.strip, 0);
  const int64_t jump = l.tile_strips(s.strip) * l.block_bytes;
  int at[kVectorInputs];
  for (int i = 0; i < kVectorInputs; ++i) at[i] = byte_of(l.order, s.first, i);
  std::byte* to = s.rows;
  for (int64_t b = 0; b * kVectorInputs < l.cols; ++b, to += kVectorInputs) {
    const std::byte* block = first.first + b * jump;
    __builtin_prefetch(block + kAhead * jump);
    const int64_t count = std::min<int64_t>(kVectorInputs, l.cols - b * kVectorInputs);
    for (int64_t i = 0; i < count; ++i) to[i] = block[at[i]] ^ static_cast<std::byte>(l.zero_shift);
  }
}

void unpack_strip(const PackedLayout& l, std::byte* data, const StripRows& s) {
  if (l.bits == 8 && s.last - s.first == 1) return unpack_channel(l, data, s);
  const Parts parts = parts_of(l.bits);
  for (int64_t k = 0; k < l.cols; ++k) {
    const PackedBlock block = block_of(l, data, s.strip, k / l.inputs);
    for (int channel = s.first; channel < s.last; ++channel)
      *s.codes(channel, k) = static_cast<std::byte>(
          code_at(l, parts, block, channel, static_cast<int>(k % l.inputs)) ^ l.zero_shift);
  }
}

// ---- run dtypes: a dword of a channel in a block

template <bool kPack>
void move_dwords(const PackedLayout& l, std::byte* data, const StripRows& s) {
  const int64_t row_bytes = l.cols * canonical_bytes(l);
  for (int64_t b = 0; b < l.k_blocks; ++b) {
    std::byte* block = block_of(l, data, s.strip, b).first;
    const auto bytes = static_cast<size_t>(std::min<int64_t>(4, row_bytes - 4 * b));
    for (int channel = s.first; channel < s.last; ++channel) {
      if constexpr (kPack) {
        std::memset(block + 4 * channel, 0, 4);
        std::memcpy(block + 4 * channel, s.codes(channel, 4 * b), bytes);
      } else {
        std::memcpy(s.codes(channel, 4 * b), block + 4 * channel, bytes);
      }
    }
  }
}

template <bool kPack>
void move_codes(const PackedLayout& l, std::byte* data, const StripRows& s) {
  if (l.codes != Codes::kPacked) {
    move_dwords<kPack>(l, data, s);
  } else if constexpr (kPack) {
    pack_strip(l, data, s);
  } else {
    unpack_strip(l, data, s);
  }
}

// The entry of a strip's group in sections of group scales and codebooks.
struct GroupAt {
  int64_t entry;  // of scales
  int64_t book;   // byte of the low half of the channel's codebook
};
GroupAt group_at(const PackedLayout& l, int64_t row, int64_t group) {
  const int64_t first = l.entry(row / kStrip, group, l.groups), lane = row % kStrip;
  return {first + lane, l.books_at + first / kStrip * l.book_bytes + (lane << l.bits)};
}

const Elem& canonical_elem(const Weight& w) {
  const Spec& spec = w.request.scheme.weight;
  return spec.quantized() ? *spec.elem : *w.request.run_dtype;
}

float* row_scales(const PackedLayout& l, std::byte* data) {
  return reinterpret_cast<float*>(data + l.row_scales_at);
}

void put_scale(Form form, std::byte* at, float value) {
  uint32_t bits = __builtin_bit_cast(uint32_t, value);
  switch (form) {
    case Form::kF32:
      break;
    case Form::kF16:
      bits = f16_from_f32(value);
      break;
    case Form::kBf16:
      bits = bf16_from_f32(value);
      break;
    case Form::kE8m0:
      bits = encode(kE8M0, value);
      break;
    case Form::kE4m3:
      bits = encode(kE4M3, value);
      break;
  }
  std::memcpy(at, &bits, static_cast<size_t>(form_bytes(form)));
}
float take_scale(Form form, const std::byte* at) {
  uint32_t bits = 0;
  std::memcpy(&bits, at, static_cast<size_t>(form_bytes(form)));
  switch (form) {
    case Form::kF32:
      return __builtin_bit_cast(float, bits);
    case Form::kF16:
      return f32_from_f16(static_cast<uint16_t>(bits));
    case Form::kBf16:
      return f32_from_bf16(static_cast<uint16_t>(bits));
    case Form::kE8m0:
      return static_cast<float>(decode(kE8M0, bits));
    case Form::kE4m3:
      return static_cast<float>(decode(kE4M3, bits));
  }
  return 0;
}

int take_zero(const PackedLayout& l, const std::byte* data, int64_t row, int64_t group) {
  const int64_t entry = l.entry(row / kStrip, group, l.zero_groups()) + row % kStrip;
  return static_cast<int>(data[l.zeros_at + entry]) - l.zero_shift;
}

// The scale of `q` that covers row r of the band and group g.
size_t scale_index(const QuantRows& q, int64_t r, int64_t g) {
  const int64_t row = q.block.rows == kAll ? 0 : r / q.block.rows;
  return static_cast<size_t>(row * q.scale_cols() + g);
}

void put_book(const PackedLayout& l, std::byte* at, const float* entries) {
  for (int i = 0; i < 1 << l.bits; ++i) {
    const uint16_t entry = bf16_from_f32(entries[i]);
    check(f32_from_bf16(entry) == entries[i], "cpu: codebook entries are bf16 values");
    at[i] = static_cast<std::byte>(entry & 0xff);
    at[l.book_bytes / 2 + i] = static_cast<std::byte>(entry >> 8);
  }
}
float take_entry(const PackedLayout& l, const std::byte* book, int64_t code) {
  const auto low = static_cast<unsigned>(book[code]);
  const auto high = static_cast<unsigned>(book[l.book_bytes / 2 + code]);
  return f32_from_bf16(static_cast<uint16_t>(low | high << 8));
}

// Scales, zero points and codebooks of row r of the band, which is `row` of the weight.
void put_groups(const PackedLayout& l, std::byte* data, int64_t row, const QuantRows& q,
                int64_t r) {
  const int bytes = form_bytes(l.scale_form);
  for (int64_t g = 0; g < l.groups; ++g) {
    const GroupAt at = group_at(l, row, g);
    const size_t from = scale_index(q, r, g);
    if (l.scaled) put_scale(l.scale_form, data + l.scales_at + at.entry * bytes, q.scales[from]);
    if (l.book_bytes > 0) put_book(l, data + at.book, q.codebook.data() + (from << l.bits));
  }
  for (int64_t g = 0; g < l.zero_groups(); ++g) {
    const int64_t entry = l.entry(row / kStrip, g, l.zero_groups()) + row % kStrip;
    data[l.zeros_at + entry] =
        static_cast<std::byte>(q.zero_points[scale_index(q, r, g)] + l.zero_shift);
  }
  if (l.row_scales_at >= 0)
    row_scales(l, data)[row] = l.grouped ? q.global_scale : q.scales[scale_index(q, r, 0)];
}

// What a zero point of int8 activations meets (LinearArgs::column_sums) of row r of the band.
void put_column_sums(const PackedLayout& l, std::byte* data, int64_t row, const QuantRows& q,
                     int64_t r) {
  const uint8_t* codes = q.codes.data() + r * l.cols;
  const int sign = q.elem->kind == ElemKind::kSigned ? 1 << (q.elem->bits() - 1) : 0;
  const int64_t part = l.grouped ? l.group : kIntChunk;
  double total = 0;
  for (int64_t p = 0; p < l.parts; ++p) {
    const size_t at = scale_index(q, r, l.grouped ? p : 0);
    const int zero = l.asymmetric ? q.zero_points[at] : 0;
    int32_t sum = 0;
    for (int64_t k = p * part; k < std::min(l.cols, (p + 1) * part); ++k)
      sum += (codes[k] ^ sign) - sign - zero;
    std::byte* to = data + l.sums_at + 4 * ((l.grouped ? 0 : p) * l.strips * kStrip + row);
    if (l.grouped) {
      total += static_cast<double>(sum) * static_cast<double>(q.scales[at]);
      const auto value = static_cast<float>(total);
      std::memcpy(to, &value, 4);
    } else {
      std::memcpy(to, &sum, 4);
    }
  }
}

// The float32 that rounds to a narrower format as `value` itself would: truncated, last bit set
// where inexact.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(nearest)) return nearest;
  uint32_t bits = __builtin_bit_cast(uint32_t, nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;
  return __builtin_bit_cast(float, bits | 1u);
}

// values rounded to `elem` once.
void store(const Elem& elem, std::byte* at, std::span<const double> values) {
  if (elem == kF32) {
    std::transform(values.begin(), values.end(), reinterpret_cast<float*>(at),
                   [](double v) { return static_cast<float>(v); });
    return;
  }
  auto* out = reinterpret_cast<uint16_t*>(at);
  if (elem == kBF16) {
    std::transform(values.begin(), values.end(), out,
                   [](double v) { return bf16_from_f32(round_to_odd(v)); });
  } else {
    std::transform(values.begin(), values.end(), out,
                   [](double v) { return f16_from_f32(round_to_odd(v)); });
  }
}

// Values of a row's canonical codes, with the scales of the group that was entered.
class RowValues {
 public:
  RowValues(const PackedLayout& l, const Weight& w, int64_t row) : l_(l), w_(w), row_(row) {
    elem_ = &canonical_elem(w);
    if (l.codes == Codes::kPacked) table_ = &decode_table(*elem_, Indices::kCodes);
  }
  void enter(int64_t group) {
    if (l_.asymmetric) zero_ = take_zero(l_, w_.data, row_, group);
    if (!l_.grouped) return;
    const GroupAt at = group_at(l_, row_, group);
    if (l_.scaled)
      scale_ =
          take_scale(l_.scale_form, w_.data + l_.scales_at + at.entry * form_bytes(l_.scale_form));
    book_ = l_.book_bytes > 0 ? w_.data + at.book : nullptr;
  }
  // Of packed codes without a codebook.
  double value(uint8_t code) const {
    return (static_cast<double>(table_->f32[code]) - zero_) * static_cast<double>(scale_);
  }
  void load(const std::byte* codes, std::span<double> out) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(codes);
    const auto* halves = reinterpret_cast<const uint16_t*>(codes);
    if (book_ != nullptr) {
      for (size_t i = 0; i < out.size(); ++i) out[i] = take_entry(l_, book_, bytes[i]);
    } else if (table_ != nullptr) {
      for (size_t i = 0; i < out.size(); ++i) out[i] = value(bytes[i]);
    } else if (*elem_ == kF32) {
      std::copy_n(reinterpret_cast<const float*>(codes), out.size(), out.begin());
    } else if (*elem_ == kBF16) {
      std::transform(halves, halves + out.size(), out.begin(), f32_from_bf16);
    } else {
      std::transform(halves, halves + out.size(), out.begin(), f32_from_f16);
    }
  }

 private:
  const PackedLayout& l_;
  const Weight& w_;
  int64_t row_;
  const Elem* elem_;
  const DecodeTable* table_ = nullptr;
  const std::byte* book_ = nullptr;
  float scale_ = 1;
  int zero_ = 0;
};

// A row whose codes share a scale: its values are looked up among those of all codes.
struct RowCodes {
  const std::byte* codes;
  int64_t count;
};
void look_up_row(RowValues& row, double scale, const RowCodes& x, std::byte* out, const Elem& run) {
  constexpr size_t kCodes = 256;
  alignas(float) std::byte table[kCodes * sizeof(float)] = {};
  double values[kCodes];
  row.enter(0);
  for (size_t i = 0; i < kCodes; ++i) values[i] = row.value(static_cast<uint8_t>(i)) * scale;
  store(run, table, values);
  const auto look_up = [&](auto* to) {
    const auto* from = reinterpret_cast<decltype(to)>(table);
    for (int64_t k = 0; k < x.count; ++k) to[k] = from[static_cast<uint8_t>(x.codes[k])];
  };
  if (run == kF32) {
    look_up(reinterpret_cast<uint32_t*>(out));
  } else {
    look_up(reinterpret_cast<uint16_t*>(out));
  }
}

// Row `row` of w times `multiplier`.
void embed_row(const Weight& w, const PackedLayout& l, int64_t row, double multiplier,
               std::byte* out, const Elem& run, std::byte* codes) {
  constexpr int64_t kPiece = 256;
  const int lane = static_cast<int>(row % kStrip);
  move_codes<false>(l, w.data, {row / kStrip, lane, lane + 1, codes, 0});
  const double row_scale = (l.row_scales_at >= 0 ? row_scales(l, w.data)[row] : 1) * multiplier;
  const int64_t group = l.grouped ? l.group : std::max<int64_t>(l.cols, 1);
  RowValues row_values(l, w, row);
  if (l.codes == Codes::kPacked && !l.grouped)
    return look_up_row(row_values, row_scale, {codes, l.cols}, out, run);
  for (int64_t g = 0; g * group < l.cols; ++g) {
    row_values.enter(g);
    const int64_t end = std::min(l.cols, (g + 1) * group);
    for (int64_t k = g * group; k < end; k += kPiece) {
      double buffer[kPiece];
      const std::span<double> values(buffer, static_cast<size_t>(std::min(kPiece, end - k)));
      row_values.load(codes + k * canonical_bytes(l), values);
      for (double& v : values) v *= row_scale;
      store(run, out + k * run.bits() / 8, values);
    }
  }
}

}  // namespace

void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue*) {
  const PackedLayout& l = plan_of(w).layout;
  check(w.data != nullptr, "cpu: pack_rows into a weight with memory");
  check(q.cols == l.cols && row0 >= 0 && row0 + q.rows <= l.rows, "cpu: pack_rows in range");
  const int64_t stride = l.cols * canonical_bytes(l);
  auto* codes = reinterpret_cast<std::byte*>(const_cast<uint8_t*>(q.codes.data()));
  for (int64_t r = 0; r < q.rows;) {
    const int64_t row = row0 + r;
    const int first = static_cast<int>(row % kStrip);
    const int64_t count = std::min<int64_t>(kStrip - first, q.rows - r);
    move_codes<true>(
        l, w.data,
        {row / kStrip, first, first + static_cast<int>(count), codes + r * stride, stride});
    for (int64_t i = r; i < r + count; ++i) {
      if (l.grouped || l.scaled) put_groups(l, w.data, row0 + i, q, i);
      if (l.column_sums) put_column_sums(l, w.data, row0 + i, q, i);
    }
    r += count;
  }
}

void finish_weight(const Weight& w, Queue*) {
  const PackedLayout& l = plan_of(w).layout;
  const int64_t padding = l.strips * kStrip - l.rows;
  if (padding == 0) return;
  // The rows that pad the last strip: codes, scales and sums of zero.
  QuantRows zero;
  zero.elem = &canonical_elem(w);
  zero.rows = 1;
  zero.cols = l.cols;
  zero.block = {1, l.grouped ? static_cast<int>(l.group) : kAll};
  zero.codes.assign(static_cast<size_t>(l.cols * canonical_bytes(l)), 0);
  zero.scales.assign(static_cast<size_t>(std::max<int64_t>(l.groups, 1)), 0);
  zero.zero_points.assign(zero.scales.size(), 0);
  zero.codebook.assign(zero.scales.size() << l.bits, 0);
  auto* codes = reinterpret_cast<std::byte*>(zero.codes.data());
  for (int64_t row = l.rows; row < l.strips * kStrip; ++row) {
    const int lane = static_cast<int>(row % kStrip);
    move_codes<true>(l, w.data, {row / kStrip, lane, lane + 1, codes, 0});
    if (l.grouped || l.scaled) put_groups(l, w.data, row, zero, 0);
    if (l.column_sums) put_column_sums(l, w.data, row, zero, 0);
  }
}

namespace {

// The canonical scales, zero points and codebooks of rows from row0.
void unpack_groups(const PackedLayout& l, const Weight& w, int64_t row0, QuantRows& q) {
  const int64_t step = q.block.rows == kAll ? q.rows : q.block.rows;
  const int64_t groups = l.grouped ? l.groups : 1;
  for (int64_t row = row0; row < row0 + q.rows; row += step) {
    for (int64_t g = 0; g < groups; ++g) {
      if (l.asymmetric) q.zero_points.push_back(take_zero(l, w.data, row, g));
      if (!l.grouped) {
        q.scales.push_back(row_scales(l, w.data)[row]);
        continue;
      }
      const GroupAt at = group_at(l, row, g);
      if (l.scaled)
        q.scales.push_back(
            take_scale(l.scale_form, w.data + l.scales_at + at.entry * form_bytes(l.scale_form)));
      for (int64_t i = 0; l.book_bytes > 0 && i < int64_t{1} << l.bits; ++i)
        q.codebook.push_back(take_entry(l, w.data + at.book, i));
    }
    if (w.request.scheme.weight.global_scale) q.global_scale = row_scales(l, w.data)[row];
  }
}

}  // namespace

void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue*) {
  const PackedLayout& l = plan_of(w).layout;
  const Spec& spec = w.request.scheme.weight;
  check(row0 >= 0 && rows >= 0 && row0 + rows <= l.rows, "cpu: unpack_rows in range");
  q = QuantRows{};
  q.elem = &canonical_elem(w);
  q.block = spec.block;
  q.rows = rows;
  q.cols = l.cols;
  const int64_t stride = l.cols * canonical_bytes(l);
  q.codes.resize(static_cast<size_t>(rows * stride));
  auto* codes = reinterpret_cast<std::byte*>(q.codes.data());
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row0 + r;
    const int lane = static_cast<int>(row % kStrip);
    move_codes<false>(l, w.data, {row / kStrip, lane, lane + 1, codes + r * stride, 0});
  }
  if (spec.quantized() && rows > 0) unpack_groups(l, w, row0, q);
}

void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue) {
  const PackedLayout& l = plan_of(table).layout;
  check(out.cols == l.cols && out.rows >= batch.tokens, "cpu: embed's output is [T, K]");
  CpuQueue& q = cpu_queue(queue);
  const int64_t row_bytes = l.k_blocks * l.inputs * canonical_bytes(l) + kBlockBytes;
  std::byte* scratch = q.scratch(ScratchUse::kLinearWorkers).get(row_bytes * q.pool.threads());
  q.pool.parallel_for(batch.tokens, 4, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t id = batch.token_ids[t];
      check(0 <= id && id < l.rows, "cpu: a token id below the number of rows");
      embed_row(table, l, id, multiplier, out.row(t), *out.elem, scratch + worker * row_bytes);
    }
  });
}

}  // namespace mantissa::cpu
