// Comma-separated lists: columns of tables, choices of options, what users type.
#pragma once

#include <string_view>
#include <vector>

namespace mantissa {

// Calls fn(item) for each item of "a,b,c", until it returns true; true if one did.
template <class Fn>
constexpr bool any_item(std::string_view list, Fn fn) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (fn(list.substr(0, comma))) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

constexpr bool list_contains(std::string_view list, std::string_view item) {
  return any_item(list, [&](std::string_view one) { return one == item; });
}

inline std::vector<std::string_view> split_list(std::string_view list) {
  std::vector<std::string_view> items;
  any_item(list, [&](std::string_view item) {
    items.push_back(item);
    return false;
  });
  return items;
}

}  // namespace mantissa
