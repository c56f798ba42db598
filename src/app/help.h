// `--help`: texts made from the tables of command.h, and names as people see them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "base/list.h"

namespace mantissa {

struct CpuFeatures;

bool is_positional(const Option& option);
std::string key_name(const Option& option);      // "quantization", "MODEL": the name Args knows
std::string display_name(const Option& option);  // "--quantization", "MODEL"
std::string long_names(const Option& option);    // "--samples or --calibrate-samples"

// All options of a verb: its own, then those of its groups.
std::vector<const Option*> options_of(const Verb& verb);

std::string verb_help(const Verb& verb);
// All verbs, or those of one group ("bench").
std::string overview_help(const std::string& group);
void print_version(bool json);
// "avx2 fma ...": those that kernels ask for.
std::string instruction_sets(const CpuFeatures& cpu);

// The name that a mistyped one most likely meant; empty where none is near.
std::string nearest_name(std::string_view typed, const std::vector<std::string>& names);

std::vector<std::string> to_strings(const std::vector<std::string_view>& views);

}  // namespace mantissa
