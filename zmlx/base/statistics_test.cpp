// SPDX-License-Identifier: MIT
#include "zmlx/base/statistics.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/base/clock.h"

namespace zmlx {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
const std::vector<double> kSamples = {3, 1, 4, 1.5, 9.25, 2};

// Expected values: NumPy 2 in float64.
TEST(Statistics, AreNumPys) {
  EXPECT_DOUBLE_EQ(median(kSamples), 2.5);
  EXPECT_DOUBLE_EQ(median({5, 1, 3}), 3);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 0.1), 1.25);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 0.25), 1.625);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 0.75), 3.75);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 0.999), 9.22375);
  EXPECT_DOUBLE_EQ(quantile(kSamples, 1), 9.25);
  EXPECT_DOUBLE_EQ(mean(kSamples), 3.4583333333333335);
  EXPECT_DOUBLE_EQ(standard_deviation(kSamples), 3.0348668284896236);
  EXPECT_DOUBLE_EQ(spread(kSamples), 3.3);
  EXPECT_DOUBLE_EQ(quartile_spread(kSamples), 0.85);
}

TEST(Statistics, OfOneSampleHaveNoSpread) {
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(quantile({7}, 0.3), 7);
  EXPECT_EQ(standard_deviation({7}), 0);
  EXPECT_EQ(spread({7}), 0);
  EXPECT_EQ(quartile_spread({7}), 0);
}

TEST(Statistics, AreNaNForNoneAndForNaN) {
  for (const auto& bad :
       {std::vector<double>{}, std::vector<double>{1, kNaN, 2}}) {
    EXPECT_TRUE(std::isnan(median(bad)));
    EXPECT_TRUE(std::isnan(quantile(bad, 1)));
    EXPECT_TRUE(std::isnan(mean(bad)));
    EXPECT_TRUE(std::isnan(standard_deviation(bad)));
    EXPECT_TRUE(std::isnan(spread(bad)));
    EXPECT_TRUE(std::isnan(quartile_spread(bad)));
  }
}

TEST(Statistics, TakeInfinity) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(median({1, 2, infinity}), 2);
  EXPECT_EQ(quantile({1, 2, infinity}, 1), infinity);
}

TEST(Statistics, RejectFractionsOutsideTheUnit) {
  EXPECT_THROW(quantile({1}, -0.1), std::invalid_argument);
  EXPECT_THROW(quantile({1}, 1.1), std::invalid_argument);
  EXPECT_THROW(quantile({1}, kNaN), std::invalid_argument);
}

TEST(Interleave, TurnsTheOrderEachRound) {
  std::vector<std::pair<int, int>> order;
  interleave(
      2, 3, [&](int side, int round) { order.emplace_back(side, round); });
  const std::vector<std::pair<int, int>> expected = {
      {0, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {1, 2}};
  EXPECT_EQ(order, expected);
}

TEST(Interleave, RejectsNothingToRun) {
  const auto run = [](int, int) {};
  EXPECT_THROW(interleave(0, 1, run), std::invalid_argument);
  EXPECT_THROW(interleave(1, 0, run), std::invalid_argument);
}

TEST(Clock, WritesUtc) {
  const std::string now = utc_now();
  ASSERT_EQ(now.size(), 20u) << now;
  EXPECT_EQ(now[10], 'T');
  EXPECT_EQ(now[19], 'Z');
}

} // namespace
} // namespace zmlx
