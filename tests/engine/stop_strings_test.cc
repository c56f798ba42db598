// Stop strings in text that comes in pieces: equal to a search in the whole text.
#include "engine/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace mantissa {
namespace {

TEST(StopStrings, HoldsBackOnlyWhatMayBecomeOne) {
  StopStrings stops({"END", "\n\n"});
  EXPECT_EQ(stops.push("abc E"), "abc ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("X\n"), "ENX");
  EXPECT_EQ(stops.push("y"), "\ny");
  EXPECT_EQ(stops.push("EN"), "");
  EXPECT_EQ(stops.push("Dmore"), "");
  EXPECT_TRUE(stops.matched());
  EXPECT_EQ(stops.push("after"), "");
  EXPECT_EQ(stops.flush(), "");
}

TEST(StopStrings, FlushGivesWhatWasHeld) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.push("aEN"), "a");
  EXPECT_EQ(stops.flush(), "EN");
  EXPECT_FALSE(stops.matched());
}

TEST(StopStrings, NoneLetsEverythingThrough) {
  StopStrings stops({});
  EXPECT_EQ(stops.push("abc"), "abc");
  EXPECT_EQ(stops.flush(), "");
}

TEST(StopStrings, RefusesEmptyAndHalfCharacters) {
  EXPECT_THROW(StopStrings({""}), Error);
  EXPECT_THROW(StopStrings({"\xA9"}), Error);
  EXPECT_NO_THROW(StopStrings({"\xC3\xA9"}));
}

// Two letters and long overlaps: the hard case for partial matches.
TEST(StopStrings, EqualsASearchInTheWholeText) {
  std::mt19937 random(2);
  const auto word = [&](size_t length) {
    std::string w;
    for (size_t i = 0; i < length; ++i) w += random() % 2 == 0 ? 'a' : 'b';
    return w;
  };
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> strings;
    for (size_t i = 0, n = random() % 4; i < n; ++i) strings.push_back(word(1 + random() % 6));
    const std::string whole = word(random() % 24);
    size_t end = std::string::npos;  // of the text: before the match that is complete first
    for (size_t n = 0; n <= whole.size() && end == std::string::npos; ++n) {
      for (const std::string& s : strings) {
        if (whole.substr(0, n).ends_with(s)) end = std::min(end, n - s.size());
      }
    }
    StopStrings stops(strings);
    std::string got;
    for (size_t at = 0; at < whole.size() && !stops.matched();) {
      const size_t n = 1 + random() % 4;
      got += stops.push(std::string_view(whole).substr(at, n));
      ASSERT_EQ(whole.compare(0, got.size(), got), 0);
      ASSERT_LE(got.size(), std::min(end, whole.size()));
      at += n;
    }
    got += stops.flush();
    ASSERT_EQ(stops.matched(), end != std::string::npos);
    ASSERT_EQ(got, whole.substr(0, end));
    matches += stops.matched() ? 1 : 0;
  }
  EXPECT_GT(matches, 5000);
}

}  // namespace
}  // namespace mantissa
