// SPDX-License-Identifier: MIT
// What the shared driver cannot know of softmax: empty rows, odd inputs, and
// that softmax_grad is softmax's gradient.
#include "zmlx/kernels/softmax/softmax.h"

#include <cmath>

#include <gtest/gtest.h>

#include "zmlx/authoring/difference.h"

namespace zmlx {
namespace {

mx::array sample(mx::Shape shape) {
  return mx::random::normal(std::move(shape), mx::float32, mx::random::key(3));
}

TEST(Softmax, TakesRowsWithoutElementsAndRefusesScalars) {
  EXPECT_EQ(softmax::softmax(mx::zeros({4, 0})).shape(), (mx::Shape{4, 0}));
  EXPECT_TRUE(
      mx::array_equal(
          softmax::logsumexp(mx::zeros({2, 0})), mx::full({2}, -INFINITY))
          .item<bool>());
  EXPECT_THROW(softmax::softmax(mx::array(1.0f)), std::invalid_argument);
}

TEST(Softmax, HasSoftmaxGradForItsGradient) {
  const auto x = sample({3, 17}), g = mx::sin(x);
  const auto gradient = mx::vjp(
      [](const std::vector<mx::array>& in) {
        return std::vector<mx::array>{softmax::softmax(in[0])};
      },
      {x},
      {g});
  EXPECT_EQ(
      difference(
          softmax::softmax_grad(softmax::softmax(x), g),
          gradient.second[0],
          {.of_largest = 1e-6}),
      "");
}

TEST(Softmax, DoesNotOverflowWhereExpDoes) {
  const auto x = mx::array({1000.f, 1000.f, -1000.f});
  EXPECT_EQ(
      difference(
          softmax::softmax(x), mx::array({0.5f, 0.5f, 0.f}), {1e-7, 0, 0}),
      "");
  EXPECT_EQ(
      difference(
          softmax::logsumexp(x), mx::array(1000 + std::log(2.f)), {0, 1e-6, 0}),
      "");
}

TEST(MaskedSoftmax, RefusesAMaskOfNumbersOrAnotherShape) {
  const auto x = sample({2, 3});
  EXPECT_THROW(softmax::masked_softmax(x, x), std::invalid_argument);
  const auto mask = mx::zeros({4, 2, 3}, mx::bool_);
  EXPECT_THROW(softmax::masked_softmax(x, mask), std::invalid_argument);
  EXPECT_THROW(
      softmax::scale_mask_softmax(x, mx::zeros({3}, mx::bool_), NAN),
      std::invalid_argument);
}

} // namespace
} // namespace zmlx
