// SPDX-License-Identifier: MIT
#include "zmlx/kernels/norms/norms.h"

#include <stdexcept>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

namespace mx = mlx::core;

// One pass over E[x^2] - E[x]^2 would lose all digits here, or be negative.
TEST(LayerNorm, KeepsItsDigitsUnderALargeMean) {
  const auto x = mx::array({10000.0f, 10001.0f, 10002.0f, 10003.0f});
  const auto y = norms::layer_norm_no_weight(x, 0.0f);
  const auto want =
      mx::array({-1.34164079f, -0.4472136f, 0.4472136f, 1.34164079f});
  EXPECT_TRUE(mx::allclose(y, want, 1e-6).item<bool>());
}

TEST(AddRmsNorm, RejectsAResidualOfAnotherShape) {
  EXPECT_THROW(
      norms::add_rms_norm(mx::ones({2, 4}), mx::ones({4}), mx::ones({4})),
      std::invalid_argument);
}

TEST(RmsNorm, SumsTheWeightsGradientOfNarrowTypesInFloat32) {
  const auto x = mx::ones({4096, 2}, mx::bfloat16);
  const auto weight = mx::ones({2}, mx::bfloat16);
  const auto gradient = mx::grad([&](const mx::array& w) {
    return mx::sum(mx::astype(norms::rms_norm(x, w, 0.0f), mx::float32));
  })(weight);
  EXPECT_TRUE(
      mx::array_equal(gradient, mx::full({2}, 4096.0f, mx::bfloat16))
          .item<bool>());
}

} // namespace
} // namespace zmlx
