// The tables behind quant/scheme.h, for the parser and its compile-time proofs. Not here: parsing
// and printing (scheme.cc), arithmetic (recipe.cc).
#pragma once

#include <span>
#include <string_view>

#include "quant/scheme.h"

namespace mantissa {

// An option after ':' that a row may list. Options of one axis exclude each other.
struct OptionRow {
  std::string_view name, axis, help;
  void (*apply)(Scheme&);
};
std::span<const OptionRow> option_rows();

// Calls fn(item) for each item of a comma-separated list, until it returns true; true if one did.
template <class Fn>
constexpr bool any_item(std::string_view list, Fn fn) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (fn(list.substr(0, comma))) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

}  // namespace mantissa
