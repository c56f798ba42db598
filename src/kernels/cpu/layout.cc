#include "kernels/cpu/layout.h"

#include <array>
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

Codes codes_of(const WeightRequest& request, bool integers) {
  const Spec& spec = request.scheme.weight;
  const Elem& elem = spec.quantized() ? *spec.elem : *request.run_dtype;
  if (integers) return elem.bits() <= 4 ? Codes::kNibble : Codes::kInt8;
  if (elem == kF32) return Codes::kF32;
  if (elem == kF16) return Codes::kF16;
  if (elem == kBF16) return Codes::kBf16;
  return elem.bits() <= 4 ? Codes::kNibble : Codes::kByte;
}

int inputs_of(Codes codes) {
  constexpr int kInputs[] = {1, 2, 2, 4, 8, 4};
  return kInputs[static_cast<size_t>(codes)];
}

DecodeTable make_table(const Elem& elem, Codes codes, bool asymmetric) {
  DecodeTable t;
  const auto value = [&](uint32_t index) -> double {
    if (codes == Codes::kByte) return decode(elem, index & ((1u << elem.bits()) - 1));
    if (asymmetric) return index % 32 < 16 ? index % 32 : static_cast<double>(index % 32) - 32;
    return decode(elem, index & ((1u << elem.bits()) - 1));
  };
  for (uint32_t i = 0; i < 256; ++i) {
    t.f32[i] = static_cast<float>(value(i));
    t.bf16[i] = bf16_from_f32(t.f32[i]);
    t.bf16_low[i] = static_cast<uint8_t>(t.bf16[i] & 0xff);
    t.bf16_high[i] = static_cast<uint8_t>(t.bf16[i] >> 8);
  }
  bool repeats = true, negates = true;
  for (uint32_t i = 0; i < 128; ++i) {
    repeats &= t.bf16[i] == t.bf16[i + 128];
    negates &= (t.bf16[i] | 0x8000u) == t.bf16[i + 128];
  }
  t.half = repeats || negates;
  t.int8 = codes == Codes::kByte && elem == int_elem(8);
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

std::string layout_refuses(const WeightRequest& request, bool integers) {
  const Spec& spec = request.scheme.weight;
  if (!spec.quantized()) return "";
  const bool whole_row = spec.block.cols == kAll || spec.block.cols >= request.cols;
  const bool rows_known = spec.block.rows == 1 || (spec.block == per_tensor());
  bool scale_known = false;
  for (const FormRow& row : kForms) scale_known |= *row.elem == *spec.scale;
  if (spec.codebook) return "codebooks have no packed form yet";
  if (!rows_known) return text("blocks of ", spec.block.rows, " rows have no packed form yet");
  if (!scale_known) return text("scales of format ", spec.scale->name, " have no packed form");
  if (!whole_row && spec.block.cols % 8 != 0)
    return text("groups of ", spec.block.cols, " are no multiple of 8");
  if (spec.elem->bits() > 8) return text(spec.elem->name, " is no code of up to 8 bits");
  if (integers && !whole_row && spec.block.cols > kIntChunk)
    return text("groups of ", spec.block.cols, " inputs leave int32");
  if (spec.asymmetric && spec.elem->bits() > 4 && !integers)
    return text("zero points of ", spec.elem->name, " have no packed form yet");
  return "";
}

PackedLayout packed_layout(const WeightRequest& request, bool integers) {
  const Spec& spec = request.scheme.weight;
  PackedLayout l;
  l.integers = integers;
  l.codes = codes_of(request, integers);
  l.inputs = inputs_of(l.codes);
  l.rows = request.rows;
  l.cols = request.cols;
  l.strips = ceil_div(l.rows, kStrip);
  l.k_blocks = ceil_div(l.cols, l.inputs);
  l.scaled = spec.quantized();
  const bool whole_row = spec.block.cols == kAll || spec.block.cols >= l.cols;
  l.grouped = l.scaled && (!whole_row || (spec.asymmetric && !integers) || spec.global_scale);
  l.asymmetric = spec.asymmetric;
  if (l.grouped) {
    l.scale_form = form_of(*spec.scale);
    l.group = whole_row ? l.k_blocks * l.inputs : spec.block.cols;
    l.groups = ceil_div(l.cols, l.group);
  }
  if (integers) l.parts = l.grouped ? l.groups : ceil_div(l.cols, kIntChunk);
  l.column_sums = integers && request.scheme.activation.asymmetric;
  if ((l.asymmetric || integers) && spec.elem->kind == ElemKind::kSigned)
    l.zero_shift = 1 << (spec.elem->bits() - 1);

  const int64_t padded = l.strips * kStrip;
  const auto section = [&l](int64_t bytes) {
    const int64_t at = l.bytes;
    l.bytes += ceil_div(bytes, kBlockBytes) * kBlockBytes;
    return at;
  };
  l.codes_at = section(l.strips * l.k_blocks * kBlockBytes);
  l.scales_at = section(padded * l.groups * form_bytes(l.scale_form));
  l.zeros_at = section(padded * l.zero_groups());
  const bool row_scaled = l.scaled && (!l.grouped || spec.global_scale);
  l.row_scales_at = row_scaled ? section(padded * 4) : -1;
  l.sums_at = section(l.column_sums ? padded * 4 * (l.grouped ? 1 : l.parts) : 0);
  return l;
}

const DecodeTable& decode_table(const Elem& elem, Codes codes, bool asymmetric) {
  using Key = std::pair<std::string_view, std::pair<Codes, bool>>;
  static const std::map<Key, DecodeTable> tables = [] {
    std::map<Key, DecodeTable> all;
    for (const Elem* e : all_elems()) {
      if (e->bits() > 8 || *e == kE8M0) continue;
      all.emplace(Key{e->name, {Codes::kByte, false}}, make_table(*e, Codes::kByte, false));
      if (e->bits() > 4) continue;
      for (const bool zeros : {false, true})
        all.emplace(Key{e->name, {Codes::kNibble, zeros}}, make_table(*e, Codes::kNibble, zeros));
    }
    return all;
  }();
  const auto found = tables.find(Key{elem.name, {codes, asymmetric}});
  check(found != tables.end(), "cpu: an element with a decode table");
  return found->second;
}

}  // namespace mantissa::cpu
