// What a user is told of the weights that quantizing met: the same of a load and of `quantize`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/quantize.h"

namespace mantissa {

// A line for each kind of the weight `name`: "...: 2 NaN weights became 0". quantized: whether
// codes were made; else values stay as they are.
std::vector<std::string> report_lines(const QuantReport& report, std::string_view name,
                                      bool quantized);

}  // namespace mantissa
