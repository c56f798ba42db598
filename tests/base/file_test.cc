// Reading files, and text made fit for messages.
#include "base/file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "base/env.h"
#include "base/error.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

template <class Run>
std::string error_of(Run run) {
  try {
    run();
  } catch (const Error& error) {
    return error.found;
  }
  return "";
}

TEST(File, ReadsAndRefuses) {
  const fs::path path = fs::temp_directory_path() / text("mantissa-file-", ::getpid());
  std::ofstream(path) << "0123456789";
  File file(path);
  EXPECT_EQ(file.size(), 10);
  char out[4] = {};
  file.read(3, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(std::string_view(out, 4), "3456");
  EXPECT_NE(error_of([&] {
              file.read(7, std::as_writable_bytes(std::span(out)));
            }).find("ends at byte 10, 1 bytes too early"),
            std::string::npos);
  EXPECT_NE(error_of([&] { file.read(-1, std::as_writable_bytes(std::span(out))); }), "");
  File moved = std::move(file);
  moved.read(0, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out[0], '0');
  EXPECT_EQ(read_file(path, 10), "0123456789");
  EXPECT_NE(error_of([&] { read_file(path, 9); }).find("has 10 bytes; at most 9"),
            std::string::npos);
  fs::remove(path);
  EXPECT_NE(error_of([&] { File gone(path); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { File folder(fs::temp_directory_path()); }).find("is not a regular file"),
            std::string::npos);
  EXPECT_NE(error_of([&] { File null("/dev/null"); }).find("is not a regular file"),
            std::string::npos);
}

TEST(File, PrintableText) {
  EXPECT_EQ(quoted("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"),
            "\"plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"");
  EXPECT_EQ(quoted("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(quoted(std::string_view("\x1b[0m\n\0\x7f", 7)), R"("\x1b[0m\x0a\x00\x7f")");
  EXPECT_EQ(quoted("\xff\xc3"), R"("\xff\xc3")");
  EXPECT_EQ(quoted("\xc2\x9b"), R"("\xc2\x9b")") << "a control character of ISO 6429";
  EXPECT_EQ(quoted("\xed\xa0\x80\xc0\x80"), R"("\xed\xa0\x80\xc0\x80")") << "no UTF-8";
  EXPECT_EQ(quoted("abcdef", 3), "\"abc...\"");
  EXPECT_EQ(quoted("abc", 3), "\"abc\"");
  EXPECT_EQ(quoted(""), "\"\"");
  EXPECT_EQ(printable("a\"\\\n"), "a\"\\\\x0a");
  EXPECT_EQ(printable("abcd", 2), "ab...");
}

TEST(Env, SetAndUnset) {
  ::setenv("MANTISSA_TEST_VARIABLE", "value", 1);
  EXPECT_EQ(env("MANTISSA_TEST_VARIABLE"), "value");
  ::unsetenv("MANTISSA_TEST_VARIABLE");
  EXPECT_EQ(env("MANTISSA_TEST_VARIABLE"), std::nullopt);
}

}  // namespace
}  // namespace mantissa
