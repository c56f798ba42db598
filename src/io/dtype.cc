#include "io/dtype.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace mantissa {

static_assert(std::endian::native == std::endian::little,
              "safetensors data is used as it is stored");

namespace {

template <class Stored, class Convert>
void convert_each(std::span<const std::byte> in, std::span<float> out, Convert convert) {
  check(in.size() == out.size() * sizeof(Stored), "one stored element per float");
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, in.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = convert(stored);
  }
}

void from_f64(std::span<const std::byte> in, std::span<float> out) {
  convert_each<double>(in, out, [](double v) { return static_cast<float>(v); });
}
void from_f32(std::span<const std::byte> in, std::span<float> out) {
  convert_each<float>(in, out, [](float v) { return v; });
}
void from_f16(std::span<const std::byte> in, std::span<float> out) {
  convert_each<uint16_t>(in, out, [](uint16_t v) { return f32_from_f16(v); });
}
void from_bf16(std::span<const std::byte> in, std::span<float> out) {
  convert_each<uint16_t>(in, out, [](uint16_t v) { return f32_from_bf16(v); });
}

// Every value of an 8-bit format is a float32.
template <const Elem& kElem>
void from_8_bits(std::span<const std::byte> in, std::span<float> out) {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values{};
    for (uint32_t code = 0; code < 256; ++code) {
      values[code] = static_cast<float>(decode(kElem, code));
    }
    return values;
  }();
  convert_each<uint8_t>(in, out, [](uint8_t code) { return kValues[code]; });
}

// The names and sizes of safetensors 0.7 (enum Dtype of tensor.rs).
// clang-format off
constexpr Dtype kDtypes[] = {
    {"BOOL",       8, nullptr,      nullptr},
    {"F4",         4, &kE2M1,       nullptr},
    {"F6_E2M3",    6, &kE2M3,       nullptr},
    {"F6_E3M2",    6, &kE3M2,       nullptr},
    {"U8",         8, &kUint[7],    nullptr},
    {"I8",         8, &kInt[7],     nullptr},
    {"F8_E5M2",    8, &kE5M2,       from_8_bits<kE5M2>},
    {"F8_E4M3",    8, &kE4M3,       from_8_bits<kE4M3>},
    {"F8_E8M0",    8, &kE8M0,       from_8_bits<kE8M0>},
    {"F8_E4M3FNUZ", 8, &kE4M3Fnuz,  from_8_bits<kE4M3Fnuz>},
    {"F8_E5M2FNUZ", 8, &kE5M2Fnuz,  from_8_bits<kE5M2Fnuz>},
    {"I16",       16, nullptr,      nullptr},
    {"U16",       16, nullptr,      nullptr},
    {"F16",       16, &kF16,        from_f16},
    {"BF16",      16, &kBF16,       from_bf16},
    {"I32",       32, nullptr,      nullptr},
    {"U32",       32, nullptr,      nullptr},
    {"F32",       32, &kF32,        from_f32},
    {"C64",       64, nullptr,      nullptr},
    {"F64",       64, nullptr,      from_f64},
    {"I64",       64, nullptr,      nullptr},
    {"U64",       64, nullptr,      nullptr},
};
// clang-format on

}  // namespace

std::span<const Dtype> all_dtypes() {
  return kDtypes;
}

const Dtype* find_dtype(std::string_view name) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

const Dtype* dtype_of(const Elem& elem) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.elem != nullptr && *dtype.elem == elem) return &dtype;
  }
  return nullptr;
}

}  // namespace mantissa
