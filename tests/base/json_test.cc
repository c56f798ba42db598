// JSON glue: what is refused, how errors name the place, exact numbers.
#include "base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/random.h"

namespace mantissa {
namespace {

template <class Run>
std::string error_of(Run run) {
  try {
    run();
  } catch (const Error& error) {
    return error.found;
  }
  return "";
}

std::string parse_error(std::string_view text, const json::Limits& limits = {}) {
  return error_of([&] { json::parse(text, "f.json", limits); });
}

TEST(Json, Reads) {
  const json::Document document = json::parse(
      R"({"b":true,"n":-7,"x":2.5,"s":"\u00e4\n","l":[1,[2]],"o":{"k":null},"big":18446744073709551615})",
      "f.json");
  const json::Value root = document.root();
  EXPECT_EQ(root.size(), 7u);
  EXPECT_TRUE(root.at("b").as_bool());
  EXPECT_EQ(root.at("n").as_int(), -7);
  EXPECT_EQ(root.at("n").as_number(), -7.0);
  EXPECT_TRUE(root.at("n").is_integer());
  EXPECT_FALSE(root.at("x").is_integer());
  EXPECT_EQ(root.at("x").as_number(0, 3), 2.5);
  EXPECT_EQ(root.at("s").as_string(), "\xc3\xa4\n");
  EXPECT_EQ(root.at("l")[1][0].as_int(), 2);
  EXPECT_EQ(root.member(3).first, "s");
  EXPECT_EQ(root.at("big").as_number(), 18446744073709551615.0);
  EXPECT_FALSE(root.find("nothing"));
  EXPECT_TRUE(root.at("o").find("k"));
  EXPECT_FALSE(root.at("o").find_set("k"));
  EXPECT_EQ(root.at("o").to_json(), R"({"k":null})");
}

TEST(Json, ValuesSurviveMovingTheDocument) {
  json::Document first = json::parse(R"(["a"])", "f.json");
  const json::Value value = first.root()[0];
  const json::Document second = std::move(first);
  EXPECT_EQ(value.as_string(), "a");
  EXPECT_EQ(value.path(), "[0]");
}

TEST(Json, ErrorsNameThePlace) {
  const json::Document document =
      json::parse(R"({"a":{"b":[1,{"c":"abc"}]},"d\u001b":1,"n":[]})", "dir/f.json");
  const json::Value root = document.root();
  const json::Value c = root.at("a").at("b")[1].at("c");
  EXPECT_EQ(c.path(), "a.b[1].c");
  EXPECT_EQ(error_of([&] { c.as_int(1, 9); }),
            "dir/f.json: a.b[1].c: expected an integer from 1 to 9, found \"abc\"");
  EXPECT_EQ(error_of([&] { c.as_int(1); }),
            "dir/f.json: a.b[1].c: expected an integer of at least 1, found \"abc\"");
  EXPECT_EQ(error_of([&] { c.as_int(); }),
            "dir/f.json: a.b[1].c: expected an integer, found \"abc\"");
  EXPECT_EQ(error_of([&] { c.as_number(0); }),
            "dir/f.json: a.b[1].c: expected a number of at least 0, found \"abc\"");
  EXPECT_EQ(error_of([&] { c.as_bool(); }),
            "dir/f.json: a.b[1].c: expected true or false, found \"abc\"");
  EXPECT_EQ(error_of([&] { c.size(); }),
            "dir/f.json: a.b[1].c: expected an array or an object, found \"abc\"");
  EXPECT_EQ(error_of([&] { root.at("n").at("x"); }),
            "dir/f.json: n: expected an object, found an array of 0");
  EXPECT_EQ(
      error_of([&] { root.at("x"); }),
      "dir/f.json: the top level: expected an object with the key \"x\", found an object of 3");
  EXPECT_EQ(error_of([&] { root.at("d\x1b").as_string(); }),
            "dir/f.json: d\\x1b: expected a string, found 1");
  EXPECT_EQ(error_of([&] { root.as_string(); }),
            "dir/f.json: the top level: expected a string, found an object of 3");
}

TEST(Json, Refuses) {
  const std::string_view broken[] = {
      "",
      " ",
      "{",
      "}",
      "nul",
      "{\"a\":1,}",
      "[1,]",
      "[1]]",
      "{} {}",
      "NaN",
      "Infinity",
      "-Infinity",
      "[1 2]",
      "'a'",
      "\"\n\"",
      "\"\\x\"",
      "\"\\ud800\"",
      "01",
      "1.",
      ".5",
      "+1",
      "0x10",
      "/**/1",
      "\"\xff\"",
      "\"\xc0\x80\"",
      "\"\xed\xa0\x80\"",
      "\xef\xbb\xbf{}",
      "1e",
  };
  for (const std::string_view text : broken) {
    EXPECT_NE(parse_error(text).find("not valid JSON"), std::string::npos) << text;
  }
  EXPECT_EQ(parse_error("{\n  \"a\": tru }").substr(0, 40),
            "f.json, line 2, column 8: not valid JSON");
}

TEST(Json, RefusesDuplicateKeysEverywhere) {
  EXPECT_EQ(parse_error(R"({"a":1,"b":2,"a":3})"),
            "f.json: the key \"a\" occurs twice in one object; duplicate keys are not allowed");
  EXPECT_NE(parse_error(R"([{"x":{"a":1,"\u0061":3}}])"), "") << "escaped the same key";
  EXPECT_NE(parse_error(R"({"":1,"":2})"), "");
  EXPECT_EQ(parse_error(R"({"a":{"a":{"a":1}},"b":{"a":1},"ab":1,"c":[{"a":1},{"a":1}]})"), "");
  std::string many = "{";
  for (int i = 0; i < 30000; ++i) many += text(i == 0 ? "" : ",", "\"key", i, "\":{\"k\":0}");
  EXPECT_EQ(parse_error(many + "}"), "");
  EXPECT_NE(parse_error(many + ",\"key12345\":1}").find("\"key12345\" occurs twice"),
            std::string::npos);
}

TEST(Json, LimitsDepthSizeAndValues) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_EQ(parse_error(nested(64)), "");
  EXPECT_NE(parse_error(nested(65)), "");
  EXPECT_NE(parse_error(std::string(5'000'000, '[')), "");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(parse_error(objects), "");
  EXPECT_NE(parse_error("[1,2,3]", {.bytes_max = 6}).find("at most 6 are accepted"),
            std::string::npos);
  EXPECT_EQ(parse_error("[1,2,3]", {.bytes_max = 7, .values_max = 4}), "");
  EXPECT_NE(parse_error("[1,2,3]", {.values_max = 3}).find("too many values"), std::string::npos);
}

TEST(Json, DoublesAreExact) {
  const json::Document document = json::parse(
      "[1e-5, 0.1, 1.7976931348623157e308, 5e-324, 2.2250738585072011e-308, "
      "123456789012345678901234567890, -0.0, 1e-400]",
      "f.json");
  const double wanted[] = {1e-5,
                           0.1,
                           1.7976931348623157e308,
                           5e-324,
                           2.2250738585072011e-308,
                           123456789012345678901234567890.0,
                           -0.0,
                           0.0};
  for (size_t i = 0; i < std::size(wanted); ++i) {
    EXPECT_EQ(document.root()[i].as_number(), wanted[i]) << i;
  }
  EXPECT_TRUE(std::signbit(document.root()[6].as_number()));
  EXPECT_NE(parse_error("[1e400]"), "");
  EXPECT_NE(parse_error("[-1e309]"), "");
  EXPECT_NE(parse_error("1e99999999999999999999"), "");
  for (uint64_t i = 0; i < 2000; ++i) {
    const double mantissa = random_uniform(1, 2 * i);
    const double value =
        std::ldexp(mantissa, static_cast<int>(random_bits(1, 2 * i + 1) % 200) - 100);
    char digits[64];
    std::snprintf(digits, sizeof(digits), "%.17g", value);
    EXPECT_EQ(json::parse(digits, "f.json").root().as_number(), value) << digits;
  }
}

}  // namespace
}  // namespace mantissa
