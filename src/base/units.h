// Numbers as people read them: bytes, seconds, counts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mantissa {

std::string fixed(double value, int digits);
std::string human_bytes(int64_t bytes);     // "12.3 MB": powers of 1000, as disks and GB/s count
std::string human_seconds(double seconds);  // "0.42 s", "3 min 05 s"
std::string human_count(int64_t count);     // "29.4 M"
std::string counted(int64_t count, std::string_view what);  // "1 token", "2 tokens"

}  // namespace mantissa
