// SPDX-License-Identifier: MIT
#include "zmlx/measure/ladder.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/measure/stepper.h"

namespace zmlx::measure {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;

TEST(MostLikely, IsTheLowestOfEqualsAndNeverNaN) {
  EXPECT_EQ(most_likely(Logits{1, 3, 3}), 1);
  EXPECT_EQ(most_likely(Logits{kNaN, 1, 2}), 2);
  EXPECT_EQ(most_likely(Logits{2, kNaN, 1}), 0);
  EXPECT_EQ(most_likely(Logits{kNaN, kNaN}), 0);
  EXPECT_EQ(most_likely(Logits{-kInfinity, -5}), 1);
}

// Expected values: NumPy in float64.
TEST(Divergence, IsNumPys) {
  const Logits a = {1, 2.5, -0.5, 2, 0.25}, b = {1.125, 2.25, -0.75, 2.5, 0.5};
  EXPECT_NEAR(divergence(a, b), 0.05763296263168346, 1e-15);
  EXPECT_NEAR(divergence(b, a), 0.058157935975796604, 1e-15);
  EXPECT_EQ(divergence(a, a), 0);
  EXPECT_NEAR(
      divergence(Logits{1, -kInfinity, 0.5}, Logits{0.75, -kInfinity, 1}),
      0.06870693410012793,
      1e-15);
}

TEST(Divergence, OfTinyDifferencesIsNotLostInRounding) {
  // KL of softmax(x + d) to second order is var_p(d) / 2: with p = 1/2 each and
  // d = (e, 0) it is e^2 / 8.
  const float e = 0x1p-12f;
  EXPECT_NEAR(divergence(Logits{0, 0}, Logits{e, 0}), double{e} * e / 8, 1e-13);
}

TEST(Divergence, IsNeverGoodNewsOfBadNumbers) {
  EXPECT_TRUE(std::isnan(divergence(Logits{1, kNaN}, Logits{1, 2})));
  EXPECT_TRUE(std::isnan(divergence(Logits{1, 2}, Logits{kInfinity, 2})));
  EXPECT_EQ(divergence(Logits{1, 2}, Logits{1, -kInfinity}), kInfinity);
  EXPECT_THROW(divergence(Logits{1, 2}, Logits{1}), std::invalid_argument);
}

TEST(CompareStep, TellsBitsFlipsAndMargins) {
  const auto same = compare_step(Logits{1, 4, 3.5}, Logits{1, 4, 3.5});
  EXPECT_TRUE(same.bitwise_equal && same.finite);
  EXPECT_EQ(same.kld, 0);
  EXPECT_EQ(same.margin, 0.5);
  const auto flip = compare_step(Logits{1, 4, 3.5}, Logits{1, 3.5, 4});
  EXPECT_FALSE(flip.bitwise_equal);
  EXPECT_EQ(flip.stock_token, 1);
  EXPECT_EQ(flip.patched_token, 2);
  EXPECT_EQ(flip.margin, 0.5);
  // Equal as numbers, but not as bits.
  EXPECT_FALSE(compare_step(Logits{0.f, 1}, Logits{-0.f, 1}).bitwise_equal);
}

TEST(CompareStep, SeesEqualNaNs) {
  const auto bad = compare_step(Logits{kNaN, 1}, Logits{kNaN, 1});
  EXPECT_TRUE(bad.bitwise_equal);
  EXPECT_FALSE(bad.finite);
  EXPECT_TRUE(std::isnan(bad.kld));
}

TEST(CompareStep, SeesEqualInfinities) {
  const auto bad = compare_step(Logits{kInfinity, 1}, Logits{kInfinity, 1});
  EXPECT_FALSE(bad.finite);
  EXPECT_TRUE(std::isnan(bad.kld));
  const auto masked =
      compare_step(Logits{-kInfinity, 1}, Logits{-kInfinity, 1});
  EXPECT_TRUE(masked.finite);
  EXPECT_EQ(masked.kld, 0);
}

TEST(Closeness, SumsUp) {
  Closeness sum;
  sum.add(0, 0, compare_step(Logits{1, 2}, Logits{1, 2}));
  sum.add(0, 1, compare_step(Logits{1, 2}, Logits{1, 2.25}));
  sum.add(1, 0, compare_step(Logits{1, 2}, Logits{2, 1}));
  sum.add(1, 1, compare_step(Logits{3, 2}, Logits{3, 2}));
  EXPECT_EQ(sum.steps, 4u);
  EXPECT_EQ(sum.equal_steps, 2u);
  ASSERT_EQ(sum.flips.size(), 1u);
  EXPECT_EQ(sum.flips[0].prompt, 1);
  EXPECT_EQ(sum.flips[0].step, 0);
  EXPECT_DOUBLE_EQ(sum.same_top(), 0.75);
  EXPECT_DOUBLE_EQ(sum.same_top_error(), std::sqrt(0.75 * 0.25 / 4));
  EXPECT_DOUBLE_EQ(sum.max_kld(), sum.klds[2]);
  EXPECT_DOUBLE_EQ(sum.mean_kld(), (sum.klds[1] + sum.klds[2]) / 4);
}

// Expected values: NumPy in float64.
TEST(OracleErrors, AreNumPys) {
  OracleErrors errors;
  errors.add(Logits{1, 2, 0.5}, Logits{1.25, 2, 0}, Logits{1, 2.125, 0.5});
  EXPECT_DOUBLE_EQ(errors.stock_rms(), 0.3227486121839514);
  EXPECT_DOUBLE_EQ(errors.patched_rms(), 0.07216878364870322);
  EXPECT_NEAR(errors.stock_kld(), 0.02275316124587673, 1e-15);
  EXPECT_NEAR(errors.patched_kld(), 0.0018035979084298822, 1e-15);
  // Stock's margin of its first two is 0.75, the oracle's of the same is 1.
  EXPECT_DOUBLE_EQ(errors.margin_noise(), 0.25);
  EXPECT_EQ(errors.steps(), 1u);
}

TEST(OracleErrors, KnowHowSureTheDifferenceIs) {
  OracleErrors errors;
  errors.add(Logits{1, 2}, Logits{1, 2}, Logits{1, 2.5});
  EXPECT_EQ(errors.kld_difference_error(), 0);
  errors.add(Logits{1, 2}, Logits{1, 2}, Logits{1, 2});
  const double kld = divergence(Logits{1, 2}, Logits{1, 2.5});
  EXPECT_NEAR(errors.kld_difference_error(), kld / 2, 1e-12);
}

TEST(OracleErrors, NaNExcusesNoFlip) {
  OracleErrors errors;
  errors.add(Logits{kNaN, 2}, Logits{1, 2}, Logits{1, 2});
  EXPECT_EQ(errors.margin_noise(), 0);
  EXPECT_TRUE(std::isnan(errors.stock_rms()));
}

} // namespace
} // namespace zmlx::measure
