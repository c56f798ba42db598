// SHA-256 (FIPS 180-4), for goldens that hold a hash instead of a text that is not ours to copy.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace mantissa {

// The first 32 bits of the fractional parts of the roots (square: 2, cube: 3) of the first primes.
template <size_t N>
std::array<uint32_t, N> root_fractions(int root) {
  std::array<uint32_t, N> out{};
  size_t count = 0;
  for (int n = 2; count < N; ++n) {
    bool prime = true;
    for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
    if (!prime) continue;
    const long double r =
        root == 2 ? std::sqrt(static_cast<long double>(n)) : std::cbrt(static_cast<long double>(n));
    out[count++] = static_cast<uint32_t>((r - std::floor(r)) * 4294967296.0L);
  }
  return out;
}

inline std::string sha256(std::string_view text) {
  static const auto kRounds = root_fractions<64>(3);
  std::array<uint32_t, 8> state = root_fractions<8>(2);
  std::string bytes(text);
  bytes.push_back('\x80');
  while (bytes.size() % 64 != 56) bytes.push_back('\0');
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<char>((uint64_t{text.size()} * 8) >> shift));
  }
  for (size_t block = 0; block < bytes.size(); block += 64) {
    std::array<uint32_t, 64> w{};
    for (size_t i = 0; i < 64; ++i)
      w[i / 4] = w[i / 4] << 8 | static_cast<uint8_t>(bytes[block + i]);
    for (size_t i = 16; i < 64; ++i) {
      const uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) +
             (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (size_t i = 0; i < 64; ++i) {
      const uint32_t one = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                           ((e & f) ^ (~e & g)) + kRounds[i] + w[i];
      const uint32_t two =
          (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    const std::array<uint32_t, 8> add = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state[i] += add[i];
  }
  std::string out;
  for (uint32_t word : state) {
    char hex[9];
    std::snprintf(hex, sizeof hex, "%08x", word);
    out += hex;
  }
  return out;
}

}  // namespace mantissa
