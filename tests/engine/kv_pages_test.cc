// The page pool: every page once, references counted, leaks seen.
#include "engine/kv_pages.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace mantissa {
namespace {

static_assert(pages_for({17}, {16}) == Pages{2} && pages_for({16}, {16}) == Pages{1} &&
              pages_for({0}, {16}) == Pages{0});
static_assert(!std::is_convertible_v<Tokens, Pages>);

TEST(KvPages, GivesEveryPageOnceThenNone) {
  KvPages pages({5});
  std::set<int32_t> seen;
  for (int i = 0; i < 5; ++i) seen.insert(pages.take().value());
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_FALSE(pages.take().has_value());
  EXPECT_EQ(pages.free(), Pages{0});
  EXPECT_TRUE(pages.balanced(5));
}

TEST(KvPages, APageIsFreeWhenItsLastReferenceGoes) {
  KvPages pages({2});
  const int32_t page = pages.take().value();
  pages.share(page);
  EXPECT_EQ(pages.references(page), 2);
  pages.release(page);
  EXPECT_EQ(pages.in_use(), Pages{1});
  pages.release(page);
  EXPECT_EQ(pages.in_use(), Pages{0});
  EXPECT_TRUE(pages.balanced(0));
}

TEST(KvPages, BalancedSeesALeak) {
  KvPages pages({3});
  pages.take();
  EXPECT_TRUE(pages.balanced(1));
  EXPECT_FALSE(pages.balanced(0));
}

TEST(KvPagesDeathTest, ReleasingTwiceIsABug) {
  KvPages pages({1});
  const int32_t page = pages.take().value();
  pages.release(page);
  EXPECT_DEATH(pages.release(page), "released as often");
  EXPECT_DEATH(pages.share(page), "in use");
  EXPECT_DEATH(pages.references(1), "in range");
}

TEST(KvPages, RandomUseStaysBalanced) {
  std::mt19937 random(1);
  KvPages pages({40});
  std::vector<int32_t> held;
  for (int step = 0; step < 20000; ++step) {
    const bool take = random() % 2 == 0;
    if (take) {
      if (!held.empty() && random() % 4 == 0) {
        held.push_back(held[random() % held.size()]);
        pages.share(held.back());
      } else if (const auto page = pages.take()) {
        ASSERT_EQ(std::count(held.begin(), held.end(), *page), 0);
        held.push_back(*page);
      }
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      pages.release(held.back());
      held.pop_back();
    }
    ASSERT_EQ(pages.free().n,
              40 - static_cast<int64_t>(std::set<int32_t>(held.begin(), held.end()).size()));
  }
  EXPECT_TRUE(pages.balanced(static_cast<int64_t>(held.size())));
}

}  // namespace
}  // namespace mantissa
