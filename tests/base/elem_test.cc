// Every element format against golden values of ml_dtypes and numpy (tools/make_elem_goldens.py).
#include "base/elem.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/convert.h"
#include "base/error.h"

namespace mantissa {
namespace {

struct Pair {
  float value;
  uint32_t code;
};
struct Golden {
  std::map<std::string, std::vector<std::string>> decode;  // name -> float32 bits, or nan
  std::map<std::string, std::vector<Pair>> encode;         // "name saturate" or "name infinity"
  std::map<std::string, std::string> hash;                 // "decode_hash f16" ...
};

float from_bits(const std::string& hex) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex, nullptr, 16)));
}

const Golden& golden() {
  static const Golden kGolden = [] {
    Golden g;
    std::ifstream in(std::string(MANTISSA_SOURCE_DIR) + "/tests/golden/elem/elem.txt");
    std::string kind, name, mode, line;
    std::getline(in, line);  // the versions that made it
    size_t count = 0;
    while (in >> kind >> name) {
      if (kind == "decode") {
        in >> count;
        auto& values = g.decode[name];
        values.resize(count);
        for (std::string& value : values) in >> value;
      } else if (kind == "encode") {
        in >> mode >> count;
        std::string value, code;
        for (size_t i = 0; i < count; ++i) {
          in >> value >> code;
          g.encode[name + " " + mode].push_back(
              {from_bits(value), static_cast<uint32_t>(std::stoul(code, nullptr, 16))});
        }
      } else if (kind == "decode_hash") {
        in >> count >> g.hash[kind + " " + name];
      } else {
        in >> mode >> count;
        in >> g.hash[kind + " " + name + " " + mode];
      }
    }
    return g;
  }();
  return kGolden;
}

// FNV-1a, 64 bits, over little-endian 32-bit words.
std::string fnv(const std::vector<uint32_t>& words) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint32_t word : words)
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ ((word >> shift) & 0xffu)) * 0x100000001b3u;
  std::ostringstream out;
  out << std::hex;
  out.width(16);
  out.fill('0');
  out << hash;
  return out.str();
}

// Formats of at most 8 bits.
std::vector<const Elem*> small_elems() {
  std::vector<const Elem*> out;
  for (const Elem* elem : all_elems())
    if (elem->bits() <= 8) out.push_back(elem);
  return out;
}

TEST(Elem, GoldenCoversEveryFormat) {
  EXPECT_EQ(all_elems().size(), 27u);
  EXPECT_EQ(small_elems().size(), 24u);
  for (const Elem* elem : small_elems()) {
    const std::string name(elem->name);
    ASSERT_TRUE(golden().decode.contains(name)) << name;
    EXPECT_EQ(golden().decode.at(name).size(), size_t{1} << elem->bits()) << name;
    EXPECT_GE(golden().encode.at(name + " saturate").size(), 20u) << name;
  }
}

TEST(Elem, DecodesEveryCode) {
  for (const Elem* elem : small_elems()) {
    const auto& values = golden().decode.at(std::string(elem->name));
    for (uint32_t code = 0; code < values.size(); ++code) {
      const double ours = decode(*elem, code);
      if (values[code].ends_with("nan")) {
        EXPECT_TRUE(std::isnan(ours)) << elem->name << " " << code;
        EXPECT_TRUE(is_nan_code(*elem, code)) << elem->name << " " << code;
        continue;
      }
      const float theirs = from_bits(values[code]);
      EXPECT_EQ(ours, theirs) << elem->name << " " << code;
      EXPECT_EQ(std::signbit(ours), std::signbit(theirs)) << elem->name << " " << code;
      EXPECT_FALSE(is_nan_code(*elem, code)) << elem->name << " " << code;
    }
  }
}

TEST(Elem, EncodesMidpointsNeighboursOverflowAndNan) {
  for (const auto& [key, pairs] : golden().encode) {
    const Elem* elem = find_elem(key.substr(0, key.find(' ')));
    ASSERT_NE(elem, nullptr) << key;
    const bool saturate = key.ends_with("saturate");
    for (const Pair& pair : pairs) {
      EXPECT_EQ(encode(*elem, pair.value, saturate), pair.code)
          << key << " of " << pair.value << " (" << std::hexfloat << pair.value << ")";
    }
  }
}

template <const Elem& E>
void expect_fast_equals_golden() {
  const auto& pairs = golden().encode.at(std::string(E.name) + " saturate");
  for (const Pair& pair : pairs) {
    if (std::isnan(pair.value)) continue;
    EXPECT_EQ(encode_fast<E>(pair.value), pair.code) << E.name << " of " << pair.value;
  }
  std::mt19937 random(7);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isnan(value)) continue;
    ASSERT_EQ(encode_fast<E>(value), encode(E, value)) << E.name << " of " << value;
  }
}
TEST(Elem, FastEncodersEqualTheGenericOne) {
  expect_fast_equals_golden<kE4M3>();
  expect_fast_equals_golden<kE5M2>();
  expect_fast_equals_golden<kE4M3Fnuz>();
  expect_fast_equals_golden<kE5M2Fnuz>();
  expect_fast_equals_golden<kE2M1>();
  expect_fast_equals_golden<kE2M3>();
  expect_fast_equals_golden<kE3M2>();
}

TEST(Elem, EveryCodeSurvivesARoundTrip) {
  for (const Elem* elem : all_elems()) {
    const uint64_t codes = uint64_t{1} << std::min(elem->bits(), 16);
    const auto spread = static_cast<uint32_t>((uint64_t{1} << elem->bits()) / codes);
    for (uint64_t i = 0; i < codes; ++i) {
      const auto code = static_cast<uint32_t>(i) * spread;
      const double value = decode(*elem, code);
      const uint32_t back = encode(*elem, value, false);
      if (std::isnan(value)) {
        EXPECT_TRUE(is_nan_code(*elem, back)) << elem->name << " " << code;
        EXPECT_EQ(std::signbit(decode(*elem, back)), std::signbit(value)) << elem->name;
      } else {
        EXPECT_EQ(back, code) << elem->name << " of " << value;
      }
    }
  }
}

TEST(Elem, NanInfinityAndZeroFollowTheHeader) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(encode(kE4M3, nan), 0x7fu);
  EXPECT_EQ(encode(kE5M2, -nan), 0xfeu);
  EXPECT_EQ(encode(kE4M3Fnuz, nan), 0x80u);
  EXPECT_EQ(encode(kE8M0, nan), 0xffu);
  EXPECT_EQ(encode(kF16, nan), 0x7e00u);
  EXPECT_EQ(encode(kBF16, nan), 0x7fc0u);
  EXPECT_EQ(encode(kF32, nan), 0x7fc00000u);
  for (const Elem* elem : {&kE2M1, &kE2M3, &kE3M2, &int_elem(8), &uint_elem(4)}) {
    EXPECT_THROW(encode(*elem, nan), Error) << elem->name;
  }
  EXPECT_EQ(encode(kE5M2, infinity), 0x7bu);
  EXPECT_EQ(encode(kE5M2, infinity, false), 0x7cu);
  EXPECT_EQ(encode(kE4M3, -infinity, false), 0xfeu);  // has no infinity: saturates all the same
  EXPECT_EQ(encode(kE8M0, -3.0), 0u);
  EXPECT_EQ(encode(kE8M0, 0.0), 0u);
  EXPECT_EQ(encode(kE2M1, -0.0), 8u);
  EXPECT_EQ(encode(kE4M3Fnuz, -0.0), 0u);
  EXPECT_EQ(encode(kE4M3Fnuz, -1e-9), 0u);  // rounds to -0, which is NaN's code there
  EXPECT_EQ(encode(uint_elem(8), -3.7), 0u);
  EXPECT_EQ(encode(int_elem(4), -100), 0x8u);
  EXPECT_EQ(encode(int_elem(4), 2.5), 2u);
  EXPECT_EQ(find_elem("e4m3"), nullptr);
}

// The inputs of the 16-bit hashes: see inputs_of_code() in tools/make_elem_goldens.py.
std::vector<float> hash_inputs(const Elem& elem) {
  std::vector<float> out;
  const uint32_t top = max_code(elem);
  for (uint32_t code = 0; code <= top; ++code) {
    const double value = decode(elem, code);
    const double next = code < top ? decode(elem, code + 1) : 2 * value - decode(elem, code - 1);
    const auto middle = static_cast<float>((value + next) / 2);
    const float infinity = std::numeric_limits<float>::infinity();
    out.insert(out.end(), {static_cast<float>(value), std::nextafter(middle, -infinity), middle,
                           std::nextafter(middle, infinity)});
  }
  const size_t positive = out.size();
  for (size_t i = 0; i < positive; ++i) out.push_back(-out[i]);
  return out;
}

TEST(Elem, SixteenBitFormatsEqualNumpyOnEveryCode) {
  for (const Elem* elem : {&kF16, &kBF16}) {
    const std::string name(elem->name);
    std::vector<uint32_t> words;
    for (uint32_t code = 0; code < 65536; ++code) {
      const double value = decode(*elem, code);
      const auto fast = *elem == kF16 ? f32_from_f16(static_cast<uint16_t>(code))
                                      : f32_from_bf16(static_cast<uint16_t>(code));
      uint32_t word = std::bit_cast<uint32_t>(static_cast<float>(value));
      if (std::isnan(value)) {
        word = 0x7fc00000u | (std::signbit(value) ? 0x80000000u : 0);
        EXPECT_TRUE(std::isnan(fast)) << name << " " << code;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(fast), word) << name << " " << code;
      }
      words.push_back(word);
    }
    EXPECT_EQ(fnv(words), golden().hash.at("decode_hash " + name));
    for (const bool saturate : {true, false}) {
      words.clear();
      for (const float value : hash_inputs(*elem)) words.push_back(encode(*elem, value, saturate));
      const std::string mode = saturate ? " saturate" : " infinity";
      EXPECT_EQ(fnv(words), golden().hash.at("encode_hash " + name + mode));
    }
    words.clear();
    for (const float value : hash_inputs(*elem)) {
      words.push_back(*elem == kF16 ? f16_from_f32(value) : bf16_from_f32(value));
    }
    EXPECT_EQ(fnv(words), golden().hash.at("encode_hash " + name + " infinity"));
  }
}

TEST(Convert, BulkConversionsRespectStridesAndEveryRunDtype) {
  std::vector<float> x(3 * 5), back(3 * 7, -1);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.3f * static_cast<float>(i) - 2;
  for (const Elem* elem : {&kF32, &kF16, &kBF16}) {
    std::vector<std::byte> bytes(3 * 6 * 4);
    const View stored(bytes.data(), *elem, 3, 5, 6);
    from_f32(Matrix<const float>(x.data(), 3, 5), stored);
    to_f32(stored, Matrix<float>(back.data(), 3, 5, 7));
    for (size_t r = 0; r < 3; ++r) {
      for (size_t c = 0; c < 5; ++c) {
        const double rounded = decode(*elem, encode(*elem, x[r * 5 + c], false));
        EXPECT_EQ(back[r * 7 + c], rounded) << elem->name;
        EXPECT_EQ(round_to(*elem, x[r * 5 + c]), rounded) << elem->name;
      }
      EXPECT_EQ(back[r * 7 + 5], -1) << "the gap between rows stays as it was";
    }
  }
}

TEST(Convert, RunDtypesOverflowToInfinityAndKeepNan) {
  EXPECT_EQ(round_to(kF16, 65519.0f), 65504.0f);
  EXPECT_EQ(round_to(kF16, 65520.0f), std::numeric_limits<float>::infinity());
  EXPECT_EQ(round_to(kF16, -1e30f), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(round_to(kBF16, 3.4e38f), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(round_to(kF16, std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(round_to(kBF16, std::bit_cast<float>(0x7f800001u))));
}

TEST(Convert, DecodeTableHoldsEveryCode) {
  const auto table = decode_table(kE2M1);
  EXPECT_EQ(table[0x0f], -6.0f);
  EXPECT_EQ(table[0xf7], 6.0f);  // upper bits do not count
  EXPECT_EQ(decode_table(int_elem(4))[0x0f], -1.0f);
}

TEST(Convert, RoundsToIntegersWithTiesToEven) {
  for (const float value : {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -127.5f, 0.49999997f}) {
    EXPECT_EQ(static_cast<int8_t>(round_to_int_bits(value)), std::nearbyint(value)) << value;
  }
}

}  // namespace
}  // namespace mantissa
