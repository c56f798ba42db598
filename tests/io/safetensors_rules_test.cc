// Every rule of the safetensors format: the verdict of the reference library on many small files,
// and what our errors say.
#include <sys/stat.h>

#include <set>

#include "base/file.h"
#include "base/json.h"
#include "fixture.h"
#include "io/safetensors.h"

namespace mantissa {
namespace {

std::filesystem::path golden(const char* name) {
  return std::filesystem::path(MANTISSA_SOURCE_DIR) / "tests/golden/safetensors" / name;
}

// Opens a file of this content; the error's text, or "" where it is accepted.
std::string open_error(const TempDir& dir, std::string_view content) {
  const std::filesystem::path path = dir.write("model.safetensors", content);
  std::string error = error_of([&] { Checkpoint::open(path); });
  EXPECT_TRUE(error.empty() || error.find("model.safetensors") != std::string::npos) << error;
  return error;
}

TEST(SafetensorsRules, VerdictsOfTheReferenceLibrary) {
  // Where we are stricter, and why.
  const std::set<std::string_view> stricter = {};
  const TempDir dir;
  const json::Document verdicts = json::parse_file(golden("verdicts.json"));
  const json::Value cases = verdicts.root().at("cases");
  ASSERT_GT(cases.size(), 100u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string_view name = cases[i].at("name").as_string();
    const bool accepted = cases[i].at("accepted").as_bool() && !stricter.contains(name);
    const std::string error = open_error(dir, from_hex(cases[i].at("hex").as_string()));
    EXPECT_EQ(error.empty(), accepted)
        << name << ": ours \"" << error << "\", theirs " << cases[i].at("error").as_string();
  }
}

struct Case {
  const char* header;
  const char* data;
  const char* says;  // part of the error
};

TEST(SafetensorsRules, ErrorsNameTensorAndRule) {
  // clang-format off
  const Case cases[] = {
      {R"([])", "", "expected an object of tensors, found an array of 0"},
      {R"({"a":)", "", "line 1, column 6: not valid JSON"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "ab",
       "the key \"a\" occurs twice"},
      {R"({"__metadata__":{"k":1}})", "", "__metadata__.k: expected a string, found 1"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", "", "the key \"k\" occurs twice"},
      {R"({"a":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}})", "a", "a.dtype: expected one of BOOL, F4, F6_E2M3,"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "a", "a.shape[0]: expected an integer of at least 0, found -1"},
      {R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", "a", "a.shape[0]: expected an integer of at least 0, found 1.5"},
      {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}})", "a",
       "tensor \"a\": the shape [4294967296, 4294967296] overflows"},
      {R"({"a":{"dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,1]}})", "a", "tensor \"a\": the size of shape [1152921504606846976] overflows"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "ab", "tensor \"a\": shape [3] of F4 has 12 bits, which is not a whole number of bytes"},
      {R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,23]}})", "", "tensor \"a\": data_offsets span 23 bytes, but shape [2, 3] of F32 takes 24"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[3,1]}})", "ab", "tensor \"a\": data_offsets end at 1, before they begin at 3"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}})", "ab", "a.data_offsets: expected an array [begin, end]"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "abc", "tensor \"a\": its data begin at byte 1, but the data before it end at 0"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "abc", "tensor \"b\": its data begin at byte 1, but the data before it end at 2: they overlap"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "a", "the tensors take 2 bytes, but 1 follow the header: the file is truncated"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "abc", "bytes that belong to no tensor"},
      {R"({"a":{"dtype":"U8","shape":[2]}})", "ab", "a: expected an object with the key \"data_offsets\""},
      {R"({"a":7})", "", "a: expected an object, found 7"},
  };
  // clang-format on
  const TempDir dir;
  for (const Case& c : cases) {
    const std::string error = open_error(dir, safetensors_file(c.header, c.data));
    EXPECT_NE(error.find(c.says), std::string::npos) << c.header << "\n  " << error;
  }
}

TEST(SafetensorsRules, ErrorsOfTheLength) {
  const TempDir dir;
  const auto says = [&](std::string_view content, const char* part) {
    const std::string error = open_error(dir, content);
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  says("", "the file has 0 bytes; a safetensors file has at least 8");
  says("1234567", "the file has 7 bytes");
  says(std::string(8, '\xff'), "a header of 18446744073709551615 bytes, and at most 100000000");
  says(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), "a header of 100000001 bytes, and at most");
  says(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8) + "{}",
       "says that it has 100000000 bytes, but the file ends after 2");
}

TEST(SafetensorsRules, HostileTextIsEscapedInErrors) {
  const TempDir dir;
  const std::string error = open_error(
      dir,
      safetensors_file(
          "{\"\\u001b[31m\\n\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", "a"));
  EXPECT_NE(error.find(R"(tensor "\x1b[31m\x0a")"), std::string::npos) << error;
  const std::string name(5000, 'n');
  const std::string long_error = open_error(
      dir, safetensors_file(
               "{\"" + name + "\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", "a"));
  EXPECT_LT(long_error.size(), 500u);
}

// attacks/ of the reference: one buffer behind very many tensors must not be readable many times.
TEST(SafetensorsRules, ManyTensorsOverOneBuffer) {
  const TempDir dir;
  std::string header = "{";
  for (int i = 0; i < 20000; ++i) {
    header += text(i == 0 ? "" : ",", "\"t", i,
                   "\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}");
  }
  header += "}";
  EXPECT_NE(open_error(dir, safetensors_file(header, std::string(16, 'x'))).find("they overlap"),
            std::string::npos);
}

// 2 bytes of header for 16 bytes of memory: bounded by the number of values.
TEST(SafetensorsRules, HeaderOfManyValuesIsBounded) {
  const TempDir dir;
  std::string header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[";
  for (int i = 0; i < 16'000'000; ++i) header += "1,";
  header += "1],\"data_offsets\":[0,1]}}";
  EXPECT_NE(open_error(dir, safetensors_file(header, "a")).find("too many values"),
            std::string::npos);
}

TEST(SafetensorsRules, NotARegularFile) {
  const TempDir dir;
  std::filesystem::create_directory(dir.path() / "model.safetensors");
  EXPECT_NE(error_of([&] { Checkpoint::open(dir.path()); }).find("is not a regular file"),
            std::string::npos);
  std::filesystem::remove(dir.path() / "model.safetensors");
  ASSERT_EQ(::mkfifo((dir.path() / "model.safetensors").c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { Checkpoint::open(dir.path()); }).find("is not a regular file"),
            std::string::npos);
}

}  // namespace
}  // namespace mantissa
