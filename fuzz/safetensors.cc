// Any bytes as a safetensors file: refused with an Error, or its tensors cover the data exactly.
#include "io/safetensors.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"

using mantissa::check;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  const int64_t file_bytes = static_cast<int64_t>(size);
  try {
    const int64_t header_bytes =
        mantissa::safetensors_header_bytes("fuzz.safetensors", file, file_bytes);
    check(0 <= header_bytes && header_bytes <= file_bytes - 8, "the header is inside the file");
    const std::string_view json(reinterpret_cast<const char*>(data) + 8,
                                static_cast<size_t>(header_bytes));
    const mantissa::SafetensorsHeader header =
        mantissa::parse_safetensors_header("fuzz.safetensors", json, file_bytes);
    int64_t next = 8 + header_bytes;
    for (const mantissa::TensorInfo& tensor : header.tensors) {
      check(tensor.dtype != nullptr, "every tensor has a type");
      check(tensor.offset == next && tensor.bytes >= 0, "tensors follow each other");
      check(tensor.rows() >= 0, "no negative size");
      check(!tensor.shape_text().empty(), "a shape has a text");
      next += tensor.bytes;
    }
    check(next == file_bytes, "tensors reach the end of the file");
  } catch (const mantissa::Error& error) {
    check(!error.found.empty() && !error.fix.empty(), "an error says something");
    check(error.found.find('\n') == std::string::npos, "an error's text is one line");
  }
  return 0;
}
