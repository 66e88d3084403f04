// SPDX-License-Identifier: MIT
// Operations on weights of small floats against dense ones.
#include <gtest/gtest.h>

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/quant/quantized_matmul.h"

namespace zmlx::cpu {
namespace {

TEST(FloatFields, GoThroughTheMatrixProductAndItsGradient) {
  for (const auto& mode : kModes) {
    const auto w = random(mode, {48, 96}, 2);
    const auto values = dequantized(mode, w);
    for (int rows : {1, 3, 20}) {
      const auto x = mx::random::normal({rows, 96}, mx::float32);
      const auto y = quant::quantized_matmul(x, w);
      const auto want = mx::matmul(x, mx::transpose(values));
      EXPECT_LT(mx::max(mx::abs(y - want)).item<float>(), 2e-5) << mode.name;
      const auto gradient = mx::grad([&](const mx::array& given) {
        return mx::sum(quant::quantized_matmul(given, w));
      })(x);
      const auto wanted = mx::broadcast_to(mx::sum(values, 0), x.shape());
      EXPECT_LT(mx::max(mx::abs(gradient - wanted)).item<float>(), 1e-4);
    }
  }
}

TEST(FloatFields, GoThroughExperts) {
  for (const auto& mode : kModes) {
    const auto gate = random(mode, {4, 64, 96}, 1);
    const auto up = random(mode, {4, 64, 96}, 2);
    const auto down = random(mode, {4, 96, 64}, 3);
    const auto router = mx::random::normal({4, 96}, mx::float32);
    moe::RouterSpec spec;
    spec.top_k = 4;
    const auto x = mx::random::normal({6, 96}, mx::float32);
    const auto y =
        moe::moe_mlp(x, spec, router, std::nullopt, {gate, up, down});
    const auto dense = moe::moe_mlp(
        x,
        spec,
        router,
        std::nullopt,
        {dequantized(mode, gate),
         dequantized(mode, up),
         dequantized(mode, down)});
    const auto scale = mx::max(mx::abs(dense)).item<float>();
    EXPECT_LT(mx::max(mx::abs(y - dense)).item<float>() / scale, 1e-5)
        << mode.name;
  }
}

TEST(FloatFields, RejectOtherShapesOfTheModes) {
  const auto x = mx::zeros({1, 96});
  auto w = random(kModes[0], {8, 96}, 1);
  w.group_size = 64;
  EXPECT_THROW(quant::quantized_matmul(x, w), std::invalid_argument);
  w = random(kModes[1], {8, 48}, 1);
  EXPECT_THROW(
      quant::quantized_matmul(mx::zeros({1, 48}), w), std::invalid_argument);
  w = random(kModes[2], {8, 96}, 1);
  w.scales = mx::astype(w.scales, mx::float32);
  EXPECT_THROW(quant::quantized_matmul(x, w), std::invalid_argument);
}

} // namespace
} // namespace zmlx::cpu
