// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/combine.h"

#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/authoring/arrays.h"

namespace zmlx {
namespace {

TEST(MoeCombineExact, HasTheBitsOfALoopOfMlxOperations) {
  for (auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    const auto e = normal_values({5, 4, 67}, dtype, 1);
    const auto w = normal_values({5, 4}, mx::float32, 2);
    auto want = mx::zeros({5, 67}, dtype);
    for (int k = 0; k < 4; ++k) {
      const auto one = mx::take(e, k, 1);
      const auto by = mx::expand_dims(mx::astype(mx::take(w, k, 1), dtype), 1);
      want = want + one * by;
    }
    const auto got = moe::moe_combine_exact(e, w);
    EXPECT_EQ(got.dtype(), dtype);
    EXPECT_TRUE(mx::array_equal(got, want).item<bool>()) << dtype;
  }
}

TEST(MoeCombine, RejectsWeightsOfAnotherShape) {
  EXPECT_THROW(
      moe::moe_combine(mx::ones({2, 3, 4}), mx::ones({2, 4})),
      std::invalid_argument);
  EXPECT_THROW(
      moe::moe_dispatch(mx::ones({2, 4}), mx::zeros({3, 2}, mx::int32)),
      std::invalid_argument);
}

// MLX differentiates the products once, so the shared driver's second
// derivatives would not do.
TEST(GatherQmmCombine, HasGradientsInActWeightsAndGate) {
  const auto act = normal_values({4, 2, 6}, mx::float32, 1);
  const auto weights = normal_values({3, 6, 5}, mx::float32, 2);
  const auto gate = normal_values({4, 2}, mx::float32, 3);
  const auto indices = mx::array({0, 2, 1, 1, 2, 0, 0, 1}, {4, 2});
  const auto slopes = [&](bool ours) {
    return mx::grad(
        [&](const std::vector<mx::array>& in) {
          const auto products = mx::squeeze(
              mx::matmul(
                  mx::expand_dims(in[0], 2), mx::take(in[1], indices, 0)),
              2);
          const auto out = ours
              ? moe::gather_qmm_combine(in[0], in[1], in[2], indices)
              : mx::sum(products * mx::expand_dims(in[2], -1), 1);
          return mx::sum(mx::square(out));
        },
        {0, 1, 2})({act, weights, gate});
  };
  const auto got = slopes(true), want = slopes(false);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(mx::allclose(got[i], want[i], 1e-5, 1e-5).item<bool>()) << i;
  }
}

TEST(GatherQmmCombine, RejectsShapesThatDoNotFit) {
  const auto act = mx::ones({4, 2, 6}), gate = mx::ones({4, 2});
  const auto indices = mx::zeros({4, 2}, mx::int32);
  EXPECT_THROW(
      moe::gather_qmm_combine(act, mx::ones({3, 5, 6}), gate, indices),
      std::invalid_argument);
  EXPECT_THROW(
      moe::gather_qmm_combine(
          mx::ones({4, 6}), mx::ones({3, 6, 5}), gate, indices),
      std::invalid_argument);
}

} // namespace
} // namespace zmlx
