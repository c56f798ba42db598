// The tables behind quant/scheme.h, for the parser and its compile-time proofs. Not here: parsing
// and printing (scheme.cc), arithmetic (recipe.cc).
#pragma once

#include <span>
#include <string_view>

#include "base/list.h"
#include "quant/scheme.h"

namespace mantissa {

// An option after ':' that a row may list. Options of one axis exclude each other.
struct OptionRow {
  std::string_view name, axis, help;
  void (*apply)(Scheme&);
};
std::span<const OptionRow> option_rows();

}  // namespace mantissa
