// Where the tests' tokenizers are.
#pragma once

#include <filesystem>

namespace mantissa {

// The demo model of the repository, or its original.
inline std::filesystem::path demo_model() {
  const std::filesystem::path own = std::filesystem::path(MANTISSA_SOURCE_DIR) / "models/wiki-6m";
  return std::filesystem::exists(own / "tokenizer.json")
             ? own
             : std::filesystem::path(MANTISSA_SHARED_DIR) / "models/wiki-6m";
}
inline std::filesystem::path shared_path(const char* name) {
  return std::filesystem::path(MANTISSA_SHARED_DIR) / name;
}

}  // namespace mantissa
