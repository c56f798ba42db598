#include "kernels/cpu/layout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"

namespace mantissa::cpu {
namespace {

struct FormRow {
  const Elem* elem;
  Form form;
  int bytes;
};
constexpr FormRow kForms[] = {
    {&kF32, Form::kF32, 4},   {&kF16, Form::kF16, 2},   {&kBF16, Form::kBf16, 2},
    {&kE8M0, Form::kE8m0, 1}, {&kE4M3, Form::kE4m3, 1},
};

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Codes codes_of(const Elem& elem) {
  if (elem == kF32) return Codes::kF32;
  if (elem == kF16) return Codes::kF16;
  return elem == kBF16 ? Codes::kBf16 : Codes::kPacked;
}

// Operands of bf16 pairs are made by word permutations of up to 5 bits, else by byte permutations:
// of 7 bits, where the index is a code of 4 bits and the mantissa of its group's e4m3 scale.
Order order_of(const Scheme& scheme, const PackedLayout& l) {
  const Spec& weight = scheme.weight;
  if (l.integers) return Order::kDwords;
  if (l.bits > 4 || weight.codebook) return Order::kPairs;
  const bool products =
      l.bits == 4 && l.grouped && l.scale_form == Form::kE4m3 && !weight.asymmetric;
  return products && !has_exact_groups(scheme) ? Order::kPairs : Order::kWords;
}

DecodeTable make_table(const Elem& elem, Indices indices) {
  DecodeTable t;
  const auto product = [&](uint32_t index) {
    return decode(elem, index % 16) * (1 + (index / 16 % 8) / 8.0);
  };
  const auto difference = [&](uint32_t index) {
    if (elem.bits() > 6) return static_cast<double>(index);
    const uint32_t count = elem.bits() <= 4 ? 32 : 2u << elem.bits(), low = index % count;
    return static_cast<double>(low) - (low < count / 2 ? 0 : static_cast<double>(count));
  };
  for (uint32_t i = 0; i < 256; ++i) {
    t.f32[i] = static_cast<float>(indices == Indices::kDifferences ? difference(i)
                                  : indices == Indices::kProducts  ? product(i)
                                                                   : decode(elem, i));
    // A NaN stays one without the three highest bits of its mantissa.
    t.bf16[i] = static_cast<uint16_t>(bf16_from_f32(t.f32[i]) | (std::isnan(t.f32[i]) ? 1 : 0));
    t.bf16_low[i] = static_cast<uint8_t>(t.bf16[i] & 0xff);
    t.bf16_high[i] = static_cast<uint8_t>(t.bf16[i] >> 8);
  }
  bool repeats = true, negates = true;
  for (uint32_t i = 0; i < 128; ++i) {
    repeats &= t.bf16[i] == t.bf16[i + 128];
    negates &= (t.bf16[i] | 0x8000u) == t.bf16[i + 128];
  }
  t.half = repeats || negates;
  t.int8 = elem == int_elem(8);
  t.bits = elem.bits();
  if (elem.kind == ElemKind::kSigned) t.kind = DecodeTable::Kind::kSigned;
  if (elem.kind == ElemKind::kUnsigned) t.kind = DecodeTable::Kind::kUnsigned;
  // As fields of float16, whose largest exponent is infinity and NaN (e5m2fnuz has values there).
  const bool top_exponent = elem.exp_bits == 5 && elem.nan != NanCodes::kIeee;
  if (elem.is_float() && !top_exponent) {
    t.kind = DecodeTable::Kind::kFloat;
    t.man_bits = elem.man_bits;
    t.bias = elem.bias;
    if (elem.nan == NanCodes::kTop) t.nan = DecodeTable::Nan::kTop;
    if (elem.nan == NanCodes::kNegZero) t.nan = DecodeTable::Nan::kNegZero;
  }
  t.sign_mask = !repeats && negates ? 0x80 : 0;
  return t;
}

}  // namespace

Form form_of(const Elem& elem) {
  for (const FormRow& row : kForms)
    if (*row.elem == elem) return row.form;
  check(false, "cpu: a scale or run dtype with a packed form");
  return Form::kF32;
}

int form_bytes(Form form) {
  for (const FormRow& row : kForms)
    if (row.form == form) return row.bytes;
  return 0;
}

bool has_exact_groups(const Scheme& scheme) {
  const auto is_nvfp4 = [](const Spec& s) {
    return s.quantized() && *s.elem == kE2M1 && *s.scale == kE4M3 && s.block == per_group(16);
  };
  return is_nvfp4(scheme.weight) && is_nvfp4(scheme.activation);
}

std::string layout_refuses(const WeightRequest& request, bool integers) {
  const Spec& spec = request.scheme.weight;
  if (!spec.quantized()) return "";
  const bool whole_row = spec.block.cols == kAll || spec.block.cols >= request.cols;
  bool scale_known = false;
  for (const FormRow& row : kForms) scale_known |= *row.elem == *spec.scale;
  if (spec.elem->bits() > 8) return text(spec.elem->name, " is no code of up to 8 bits");
  if (!scale_known) return text("scales of format ", spec.scale->name, " have no packed form");
  if (integers && !whole_row && spec.block.cols > kIntGroupMost)
    return text("groups of ", spec.block.cols, " inputs are too long for sums of integers");
  const int inputs = block_inputs(spec.elem->bits());
  if (!whole_row && spec.block.cols % inputs != 0)
    return text("groups of ", spec.block.cols, " of ", spec.elem->name, " are no multiple of ",
                inputs);
  if (spec.codebook && (spec.elem->bits() < 2 || spec.elem->bits() > 4 || spec.asymmetric))
    return text("codebooks of 2 to 4 bits have a packed form, not of ", spec.elem->bits());
  return "";
}

PackedLayout packed_layout(const WeightRequest& request, bool integers) {
  const Spec& spec = request.scheme.weight;
  const Elem& elem = spec.quantized() ? *spec.elem : *request.run_dtype;
  PackedLayout l;
  l.integers = integers;
  l.codes = codes_of(elem);
  if (l.codes == Codes::kPacked) {
    l.bits = elem.bits();
    l.inputs = block_inputs(l.bits);
    l.block_bytes = kStrip * l.inputs * l.bits / 8;
  } else {
    l.inputs = l.codes == Codes::kF32 ? 1 : 2;
    l.block_bytes = kBlockBytes;
  }
  l.rows = request.rows;
  l.cols = request.cols;
  l.strips = ceil_div(l.rows, kStrip);
  l.k_blocks = ceil_div(l.cols, l.inputs);
  l.scaled = spec.quantized() && !spec.codebook;
  const bool whole_row = spec.block.cols == kAll || spec.block.cols >= l.cols;
  l.grouped = spec.quantized() &&
              (!whole_row || (spec.asymmetric && !integers) || spec.global_scale || spec.codebook);
  l.asymmetric = spec.asymmetric;
  if (l.grouped) {
    l.scale_form = form_of(*spec.scale);
    l.group = whole_row ? std::max<int64_t>(1, l.k_blocks) * l.inputs : spec.block.cols;
    l.groups = ceil_div(l.cols, l.group);
  }
  if (l.codes == Codes::kPacked) l.order = order_of(request.scheme, l);
  if (spec.codebook) l.book_bytes = int64_t{2 * kStrip} << l.bits;
  if (integers) l.parts = l.grouped ? l.groups : std::max<int64_t>(1, ceil_div(l.cols, kIntChunk));
  l.column_sums = integers && request.scheme.activation.asymmetric;
  if ((l.asymmetric || integers) && elem.kind == ElemKind::kSigned)
    l.zero_shift = 1 << (elem.bits() - 1);

  const int64_t padded = l.strips * kStrip;
  const auto section = [&l](int64_t bytes) {
    const int64_t at = l.bytes;
    l.bytes += ceil_div(bytes, kBlockBytes) * kBlockBytes;
    return at;
  };
  l.codes_at = section(l.strips * l.k_blocks * l.block_bytes);
  l.scales_at = section(l.scaled ? padded * l.groups * form_bytes(l.scale_form) : 0);
  l.zeros_at = section(padded * l.zero_groups());
  l.books_at = section(l.strips * l.groups * l.book_bytes);
  const bool row_scaled = l.scaled && (!l.grouped || spec.global_scale);
  l.row_scales_at = row_scaled ? section(padded * 4) : -1;
  l.sums_at = section(l.column_sums ? padded * 4 * (l.grouped ? 1 : l.parts) : 0);
  return l;
}

const DecodeTable& decode_table(const Elem& elem, Indices indices) {
  using Key = std::pair<std::string_view, Indices>;
  static const std::map<Key, DecodeTable> tables = [] {
    std::map<Key, DecodeTable> all;
    for (const Elem* e : all_elems()) {
      if (e->bits() > 8 || *e == kE8M0) continue;
      const auto add = [&](Indices i) { all.emplace(Key{e->name, i}, make_table(*e, i)); };
      add(Indices::kCodes);
      if (!e->is_float()) add(Indices::kDifferences);
      if (e->bits() == 4) add(Indices::kProducts);
    }
    return all;
  }();
  const auto found = tables.find(Key{elem.name, indices});
  check(found != tables.end(), "cpu: an element with a decode table");
  return found->second;
}

}  // namespace mantissa::cpu
