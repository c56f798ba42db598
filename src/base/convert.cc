#include "base/convert.h"

#include <cstring>

#include "base/error.h"

namespace mantissa {
namespace {

template <class From, class To, class Fn>
void convert_rows(Matrix<const From> x, Matrix<To> out, Fn fn) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const From* from = x.row(r).data();
    To* to = out.row(r).data();
    for (int64_t c = 0; c < x.cols; ++c) to[c] = fn(from[c]);
  }
}

void check_run_dtype(const Elem& elem) {
  check(elem == kF32 || elem == kF16 || elem == kBF16, "a run dtype: f32, f16 or bf16");
}

}  // namespace

void to_f32(ConstView x, Matrix<float> out) {
  check(x.rows == out.rows && x.cols == out.cols, "to_f32: shapes agree");
  check_run_dtype(*x.elem);
  if (*x.elem == kF32) return convert_rows(x.as<float>(), out, [](float v) { return v; });
  if (*x.elem == kBF16)
    return convert_rows(x.as<uint16_t>(), out, [](uint16_t v) { return f32_from_bf16(v); });
  convert_rows(x.as<uint16_t>(), out, [](uint16_t v) { return f32_from_f16(v); });
}

void from_f32(Matrix<const float> x, View out) {
  check(x.rows == out.rows && x.cols == out.cols, "from_f32: shapes agree");
  check_run_dtype(*out.elem);
  if (*out.elem == kF32) return convert_rows(x, out.as<float>(), [](float v) { return v; });
  if (*out.elem == kBF16)
    return convert_rows(x, out.as<uint16_t>(), [](float v) { return bf16_from_f32(v); });
  convert_rows(x, out.as<uint16_t>(), [](float v) { return f16_from_f32(v); });
}

RunDtype run_dtype_of(const Elem& elem) {
  check_run_dtype(elem);
  return elem == kF32 ? RunDtype::kF32 : elem == kF16 ? RunDtype::kF16 : RunDtype::kBF16;
}

std::array<float, 256> decode_table(const Elem& elem) {
  check(elem.bits() <= 8, "decode_table: at most 8 bits");
  std::array<float, 256> table{};
  for (uint32_t code = 0; code < 256; ++code) {
    table[code] = static_cast<float>(decode(elem, code));
  }
  return table;
}

}  // namespace mantissa
