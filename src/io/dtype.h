// The element types of safetensors, one row each. Little-endian in the file and on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/elem.h"

namespace mantissa {

struct Dtype {
  std::string_view name;       // as in the file: "BF16"
  int bits = 0;                // of one element; types below 8 bits are packed
  const Elem* elem = nullptr;  // nullptr where base/elem.h has no such format
  // out[i] = in[i], rounded to nearest where float32 is narrower (F64); nullptr where there is no
  // such conversion (integers, packed types).
  void (*to_f32)(std::span<const std::byte> in, std::span<float> out) = nullptr;
};

std::span<const Dtype> all_dtypes();
// nullptr where there is none of that name.
const Dtype* find_dtype(std::string_view name);
// The dtype that stores elem; nullptr where there is none.
const Dtype* dtype_of(const Elem& elem);

}  // namespace mantissa
