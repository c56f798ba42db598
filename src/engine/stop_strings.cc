#include "engine/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mantissa {

void check_stop_strings(std::span<const std::string> stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) throw Error("a stop string is empty", "leave it out");
    if ((static_cast<unsigned char>(stop[0]) & 0xC0) == 0x80) {
      throw Error("a stop string starts inside a UTF-8 character", "give it as valid UTF-8");
    }
  }
}

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  check_stop_strings(stops_);
}

std::string StopStrings::push(std::string_view piece) {
  if (matched_) return {};
  held_ += piece;
  size_t begin = std::string::npos, end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos || at + stop.size() > end) continue;
    if (at + stop.size() < end || at < begin) begin = at;
    end = at + stop.size();
  }
  if (begin != std::string::npos) {
    matched_ = true;
    held_.resize(begin);
    return std::exchange(held_, {});
  }
  // The longest end of the text that is the beginning of a stop string.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopStrings::flush() {
  return std::exchange(held_, {});
}

}  // namespace mantissa
