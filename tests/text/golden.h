// Goldens of tests/golden/text (tools/make_tokenizer_goldens.py) and the CRC they hold.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mantissa {

inline json::Document read_golden(const char* name) {
  return json::parse_file(std::filesystem::path(MANTISSA_SOURCE_DIR) / "tests/golden/text" / name);
}

// CRC-32 of zlib, as eight hexadecimal digits.
inline std::string crc(std::string_view bytes) {
  static constexpr auto kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      table[i] = c;
    }
    return table;
  }();
  uint32_t c = 0xFFFFFFFFu;
  for (char byte : bytes) c = kTable[(c ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (c >> 8);
  char hex[9];
  snprintf(hex, sizeof hex, "%08x", ~c);
  return hex;
}
inline std::string crc(std::span<const int32_t> ids) {
  return crc(std::string_view(reinterpret_cast<const char*>(ids.data()), ids.size() * 4));
}

inline std::vector<int32_t> ids_of(const json::Value& list) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < list.size(); ++i) out.push_back(static_cast<int32_t>(list[i].as_int()));
  return out;
}

}  // namespace mantissa
