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
  return l.codes == Codes::kF32 ? 4 : l.codes == Codes::kF16 || l.codes == Codes::kBf16 ? 2 : 1;
}

// Eight codes, one a byte, to a dword of nibbles: even codes low half, odd codes high half.
uint32_t nibbles_of(uint64_t bytes) {
  const uint64_t even = bytes & 0x000f000f000f000full, odd = (bytes >> 8) & 0x000f000f000f000full;
  const auto squeeze = [](uint64_t v) { return (v | v >> 12 | v >> 24 | v >> 36) & 0xffffu; };
  return static_cast<uint32_t>(squeeze(even) | squeeze(odd) << 16);
}
uint64_t bytes_of(uint32_t nibbles) {
  const auto spread = [](uint64_t v) {
    return (v | v << 12 | v << 24 | v << 36) & 0x000f000f000f000full;
  };
  return spread(nibbles & 0xffffu) | spread(nibbles >> 16) << 8;
}

// A dword of channel `lane` in a block, from and to canonical codes. The last block of a row passes
// through a zeroed buffer, so `src` and `dst` always have all inputs.
template <Codes kCodes>
void put(std::byte* block, int lane, const std::byte* src, uint64_t flip) {
  if constexpr (kCodes == Codes::kByte) {
    std::byte* at = block + lane / 4 * 16 + lane % 4 * 2;
    std::memcpy(at, src, 2);
    std::memcpy(at + 8, src + 2, 2);
  } else if constexpr (kCodes == Codes::kNibble) {
    uint64_t bytes;
    std::memcpy(&bytes, src, 8);
    const uint32_t dword = nibbles_of(bytes ^ flip);
    std::memcpy(block + 4 * lane, &dword, 4);
  } else if constexpr (kCodes == Codes::kInt8) {
    uint32_t dword;
    std::memcpy(&dword, src, 4);
    dword ^= static_cast<uint32_t>(flip);
    std::memcpy(block + 4 * lane, &dword, 4);
  } else {
    std::memcpy(block + 4 * lane, src, 4);
  }
}
template <Codes kCodes>
void take(const std::byte* block, int lane, std::byte* dst, uint64_t flip) {
  if constexpr (kCodes == Codes::kByte) {
    const std::byte* at = block + lane / 4 * 16 + lane % 4 * 2;
    std::memcpy(dst, at, 2);
    std::memcpy(dst + 2, at + 8, 2);
  } else if constexpr (kCodes == Codes::kNibble) {
    uint32_t dword;
    std::memcpy(&dword, block + 4 * lane, 4);
    const uint64_t bytes = bytes_of(dword) ^ flip;
    std::memcpy(dst, &bytes, 8);
  } else if constexpr (kCodes == Codes::kInt8) {
    uint32_t dword;
    std::memcpy(&dword, block + 4 * lane, 4);
    dword ^= static_cast<uint32_t>(flip);
    std::memcpy(dst, &dword, 4);
  } else {
    std::memcpy(dst, block + 4 * lane, 4);
  }
}

// Rows [first, last) of one strip; `rows` are their canonical codes, `stride` bytes apart.
struct StripRows {
  int64_t strip;
  int first, last;
  std::byte* rows;
  int64_t stride;
  uint64_t flip;  // of each code: the sign bit where stored codes are unsigned
};

template <Codes kCodes, bool kPack>
void move_strip(const PackedLayout& l, std::byte* data, const StripRows& s) {
  const int64_t code_bytes = canonical_bytes(l), step = l.inputs * code_bytes;
  const int64_t whole = l.cols / l.inputs;
  std::byte* blocks = data + l.codes_at + 4 * l.entry(s.strip, 0, l.k_blocks);
  const int64_t jump = l.tile_strips(s.strip) * kBlockBytes;
  for (int64_t b = 0; b < whole; ++b) {
    for (int lane = s.first; lane < s.last; ++lane) {
      std::byte* codes = s.rows + (lane - s.first) * s.stride + b * step;
      if constexpr (kPack) {
        put<kCodes>(blocks + b * jump, lane, codes, s.flip);
      } else {
        take<kCodes>(blocks + b * jump, lane, codes, s.flip);
      }
    }
  }
  const auto rest = static_cast<size_t>((l.cols - whole * l.inputs) * code_bytes);
  for (int lane = s.first; rest != 0 && lane < s.last; ++lane) {
    std::byte* codes = s.rows + (lane - s.first) * s.stride + whole * step;
    std::byte buffer[8] = {};
    if constexpr (kPack) {
      std::memcpy(buffer, codes, rest);
      put<kCodes>(blocks + whole * jump, lane, buffer, s.flip);
    } else {
      take<kCodes>(blocks + whole * jump, lane, buffer, s.flip);
      std::memcpy(codes, buffer, rest);
    }
  }
}

template <bool kPack>
void move_codes(const PackedLayout& l, std::byte* data, const StripRows& s) {
  using Move = void (*)(const PackedLayout&, std::byte*, const StripRows&);
  // NOLINTNEXTLINE(readability-identifier-naming): a constant, which clang-tidy 14 does not see
  constexpr Move kMoves[] = {
      move_strip<Codes::kF32, kPack>,    move_strip<Codes::kF16, kPack>,
      move_strip<Codes::kBf16, kPack>,   move_strip<Codes::kByte, kPack>,
      move_strip<Codes::kNibble, kPack>, move_strip<Codes::kInt8, kPack>,
  };
  kMoves[static_cast<size_t>(l.codes)](l, data, s);
}

uint64_t flip_of(const PackedLayout& l) {
  return static_cast<uint64_t>(l.zero_shift) * 0x0101010101010101ull;
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

void put_scales(const PackedLayout& l, std::byte* data, int64_t row, const QuantRows& q,
                int64_t r) {
  const int bytes = form_bytes(l.scale_form);
  for (int64_t g = 0; g < l.groups; ++g) {
    const int64_t entry = l.entry(row / kStrip, g, l.groups) + row % kStrip;
    put_scale(l.scale_form, data + l.scales_at + entry * bytes, q.scales[scale_index(q, r, g)]);
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

// The values of canonical codes, less their zero point.
void load_codes(const PackedLayout& l, const Weight& w, const std::byte* codes, int zero,
                std::span<double> out) {
  const Elem& elem = canonical_elem(w);
  const auto* halves = reinterpret_cast<const uint16_t*>(codes);
  if (canonical_bytes(l) == 1) {
    const DecodeTable& table = decode_table(elem, Codes::kByte, false);
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = table.f32[static_cast<uint8_t>(codes[i])] - static_cast<double>(zero);
  } else if (elem == kF32) {
    std::copy_n(reinterpret_cast<const float*>(codes), out.size(), out.begin());
  } else if (elem == kBF16) {
    std::transform(halves, halves + out.size(), out.begin(), f32_from_bf16);
  } else {
    std::transform(halves, halves + out.size(), out.begin(), f32_from_f16);
  }
}

// Row `row` of w times `multiplier`.
void embed_row(const Weight& w, const PackedLayout& l, int64_t row, double multiplier,
               std::byte* out, const Elem& run, std::byte* codes) {
  constexpr int64_t kPiece = 256;
  move_codes<false>(l, w.data,
                    {row / kStrip, static_cast<int>(row % kStrip),
                     static_cast<int>(row % kStrip) + 1, codes, 0, flip_of(l)});
  const double row_scale = (l.row_scales_at >= 0 ? row_scales(l, w.data)[row] : 1) * multiplier;
  const int64_t group = l.grouped ? l.group : std::max<int64_t>(l.cols, 1);
  for (int64_t g = 0; g * group < l.cols; ++g) {
    double scale = 1;
    int zero = 0;
    if (l.grouped) {
      const int64_t entry = l.entry(row / kStrip, g, l.groups) + row % kStrip;
      scale = take_scale(l.scale_form, w.data + l.scales_at + entry * form_bytes(l.scale_form));
    }
    if (l.asymmetric) zero = take_zero(l, w.data, row, g);
    const int64_t end = std::min(l.cols, (g + 1) * group);
    for (int64_t k = g * group; k < end; k += kPiece) {
      double buffer[kPiece];
      const std::span<double> values(buffer, static_cast<size_t>(std::min(kPiece, end - k)));
      load_codes(l, w, codes + k * canonical_bytes(l), zero, values);
      for (double& v : values) v = v * scale * row_scale;
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
    move_codes<true>(l, w.data,
                     {row / kStrip, first, first + static_cast<int>(count), codes + r * stride,
                      stride, flip_of(l)});
    for (int64_t i = r; i < r + count; ++i) {
      if (l.scaled) put_scales(l, w.data, row0 + i, q, i);
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
  for (int64_t row = l.rows; row < l.strips * kStrip; ++row) {
    const int lane = static_cast<int>(row % kStrip);
    move_codes<true>(l, w.data,
                     {row / kStrip, lane, lane + 1, reinterpret_cast<std::byte*>(zero.codes.data()),
                      0, flip_of(l)});
    if (l.scaled) put_scales(l, w.data, row, zero, 0);
    if (l.column_sums) put_column_sums(l, w.data, row, zero, 0);
  }
}

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
  const uint8_t mask =
      static_cast<uint8_t>(canonical_bytes(l) > 1 ? 0xff : (1 << q.elem->bits()) - 1);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row0 + r;
    const int lane = static_cast<int>(row % kStrip);
    move_codes<false>(l, w.data, {row / kStrip, lane, lane + 1, codes + r * stride, 0, flip_of(l)});
  }
  for (uint8_t& byte : q.codes) byte &= mask;
  if (!l.scaled) return;
  const int64_t scale_cols = l.grouped ? l.groups : 1;
  const int64_t scale_rows = spec.block.rows == kAll ? std::min<int64_t>(rows, 1) : rows;
  q.scales.resize(static_cast<size_t>(scale_rows * scale_cols));
  if (l.asymmetric) q.zero_points.resize(q.scales.size());
  for (int64_t r = 0; r < scale_rows; ++r) {
    const int64_t row = row0 + r;
    for (int64_t g = 0; g < scale_cols; ++g) {
      const auto i = static_cast<size_t>(r * scale_cols + g);
      if (l.asymmetric) q.zero_points[i] = take_zero(l, w.data, row, g);
      if (!l.grouped) {
        q.scales[i] = row_scales(l, w.data)[row];
        continue;
      }
      const int64_t entry = l.entry(row / kStrip, g, l.groups) + row % kStrip;
      q.scales[i] =
          take_scale(l.scale_form, w.data + l.scales_at + entry * form_bytes(l.scale_form));
    }
    if (spec.global_scale) q.global_scale = row_scales(l, w.data)[row];
  }
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
