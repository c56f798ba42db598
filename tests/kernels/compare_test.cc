// The comparisons must themselves fail when they should.
#include "compare.h"

namespace mantissa {
namespace {

ConstView view_of(const std::vector<float>& values, int64_t cols) {
  return {reinterpret_cast<const std::byte*>(values.data()), kF32,
          static_cast<int64_t>(values.size()) / cols, cols};
}

TEST(Compare, FindsTheWorstElementAndKeepsANan) {
  const std::vector<double> want{1, 2, 3, 4}, bound{0.1, 0.1, 0.1, 0.1};
  EXPECT_TRUE(compare::within(view_of({1, 2, 3, 4.05f}, 2), want, bound));
  EXPECT_FALSE(compare::within(view_of({1, 2, 3.2f, 4}, 2), want, bound));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(compare::within(view_of({1, nan, 3, 4}, 2), want, bound));
  EXPECT_EQ(compare::worst_of(view_of({nan, 2, 3, 9}, 2), want, bound).row, 0);
}

TEST(Compare, ABoundOfZeroAsksForEquality) {
  EXPECT_TRUE(compare::within(view_of({1}, 1), {1}, {0}));
  EXPECT_FALSE(compare::within(view_of({std::nextafter(1.0f, 2.0f)}, 1), {1}, {0}));
}

TEST(Compare, BitEqualityTellsZerosApart) {
  EXPECT_TRUE(compare::bit_equal(view_of({0, 1}, 2), view_of({0, 1}, 2)));
  EXPECT_FALSE(compare::bit_equal(view_of({0, 1}, 2), view_of({-0.0f, 1}, 2)));
  EXPECT_FALSE(compare::bit_equal(view_of({0, 1}, 2), view_of({0, 1}, 1)));
}

TEST(Compare, RmsOfErrorAndValue) {
  const compare::Rms rms = compare::rms_of(view_of({4, 3}, 2), {4, 5});
  EXPECT_DOUBLE_EQ(rms.error, std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(rms.value, std::sqrt(20.5));
}

TEST(Compare, UnitRoundoffs) {
  EXPECT_EQ(compare::unit_roundoff(kBF16), 1.0 / 256);
  EXPECT_EQ(compare::unit_roundoff(kF32), std::ldexp(1.0, -24));
  EXPECT_EQ(compare::rounded(kBF16, 1 + 1.0 / 256), 1);
}

}  // namespace
}  // namespace mantissa
