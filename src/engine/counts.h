// Counts of different things are different types: tokens and pages never mix silently.
#pragma once

#include <compare>
#include <cstdint>

namespace mantissa {

template <class Tag>
struct Count {
  int64_t n = 0;

  constexpr auto operator<=>(const Count&) const = default;
  constexpr Count operator+(Count other) const { return {n + other.n}; }
  constexpr Count operator-(Count other) const { return {n - other.n}; }
  constexpr Count& operator+=(Count other) { return *this = *this + other; }
  constexpr Count& operator-=(Count other) { return *this = *this - other; }
};
using Tokens = Count<struct TokensTag>;
using Pages = Count<struct PagesTag>;

// Pages that hold t tokens at page tokens each.
constexpr Pages pages_for(Tokens t, Tokens page) {
  return {(t.n + page.n - 1) / page.n};
}

}  // namespace mantissa
