// SPDX-License-Identifier: MIT
#include "zmlx/kernels/loss/loss.h"

#include <cmath>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/authoring/arrays.h"

namespace zmlx {
namespace {

using loss::softmax_cross_entropy;

TEST(CrossEntropy, IsNanForTargetsThatAreNoClass) {
  const auto logits = mx::ones({4, 3});
  const auto targets = mx::array({0, 3, -1, -100});
  const auto losses = softmax_cross_entropy(logits, targets);
  mx::eval(losses);
  EXPECT_NEAR(losses.data<float>()[0], std::log(3.0), 1e-6);
  EXPECT_TRUE(std::isnan(losses.data<float>()[1]));
  EXPECT_TRUE(std::isnan(losses.data<float>()[2]));
  EXPECT_EQ(losses.data<float>()[3], 0);
  const auto gradient =
      loss::softmax_cross_entropy_grad(logits, targets, mx::ones({4}));
  const auto bad = mx::all(mx::isnan(gradient), 1);
  EXPECT_TRUE(
      mx::array_equal(bad, mx::array({false, true, true, false})).item<bool>());
}

TEST(CrossEntropy, TakesTargetsOfAnyIntegerType) {
  const auto logits = normal_values({6, 300}, mx::float32, 1);
  const auto targets = mx::array({0, 1, 2, 100, 101, 127});
  const auto want = softmax_cross_entropy(logits, targets);
  for (auto dtype : {mx::int8, mx::uint8, mx::uint32, mx::int64}) {
    const auto got = softmax_cross_entropy(logits, mx::astype(targets, dtype));
    EXPECT_TRUE(mx::array_equal(got, want).item<bool>());
  }
}

TEST(CrossEntropy, KeepsItsDigitsForLargeLogits) {
  const auto logits = mx::array({1e4f, 1e4f, -1e4f}, {1, 3});
  auto got = softmax_cross_entropy(logits, mx::array({0}));
  EXPECT_NEAR(got.item<float>(), std::log(2.0), 1e-6);
}

TEST(CrossEntropy, RejectsShapesAndTypesThatDoNotFit) {
  const auto logits = mx::ones({2, 3});
  EXPECT_THROW(
      softmax_cross_entropy(logits, mx::array({1})), std::invalid_argument);
  EXPECT_THROW(
      softmax_cross_entropy(logits, mx::ones({2})), std::invalid_argument);
  EXPECT_THROW(
      softmax_cross_entropy(mx::array(1.0f), mx::array(1)),
      std::invalid_argument);
}

} // namespace
} // namespace zmlx
