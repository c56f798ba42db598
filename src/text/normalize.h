// Unicode normalization forms and lower case of valid UTF-8, as the reference tokenizers do them.
#pragma once

#include <string>
#include <string_view>

namespace mantissa {

struct UnicodeForm {
  bool compatible = false;  // NFKC, NFKD
  bool composed = false;    // NFC, NFKC
};

// Throws Error where memory ends. Time is O(n log n), whatever the marks' order.
std::string normalized(std::string_view text, UnicodeForm form);
std::string lower_case(std::string_view text);

}  // namespace mantissa
