// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/combine.h"

#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/authoring/arrays.h"
#include "zmlx/kernels/moe/gather_kernel.h"

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

// What other devices than the CPU run, through a stand-in for MLX's products.
TEST(GatherQmmCombine, HasAKernelInMetalsDialect) {
  const auto act = normal_values({3, 2, 40}, mx::float32, 1);
  const auto weights = normal_values({4, 40, 5}, mx::float32, 2);
  const auto gate = normal_values({3, 2}, mx::float32, 3);
  const auto indices = mx::array({0, 2, 1, 3, 3, 0}, {3, 2});
  const moe::Composed composed = [](const std::vector<mx::array>& in) {
    const auto products =
        mx::matmul(mx::expand_dims(in[0], 2), mx::take(in[1], in[3], 0));
    return mx::sum(mx::squeeze(products, 2) * mx::expand_dims(in[2], -1), 1);
  };
  const auto run = [&](bool ours) {
    return [&, ours](const std::vector<mx::array>& in) {
      const std::vector<mx::array> all = {in[0], in[1], in[2], indices};
      return std::vector<mx::array>{
          ours ? moe::gather_by_kernel(all, composed) : composed(all)};
    };
  };
  const auto cotangent = normal_values({3, 5}, mx::float32, 4);
  const auto got = mx::vjp(run(true), {act, weights, gate}, {cotangent});
  const auto want = mx::vjp(run(false), {act, weights, gate}, {cotangent});
  EXPECT_TRUE(
      mx::allclose(got.first[0], want.first[0], 1e-5, 1e-5).item<bool>());
  for (size_t i = 0; i < want.second.size(); ++i) {
    EXPECT_TRUE(
        mx::allclose(got.second[i], want.second[i], 1e-5, 1e-5).item<bool>())
        << i;
  }
}

TEST(GatherQmmCombine, ReadsWeightsOfEveryNumberOfBitsInTheKernelToo) {
  const auto act = normal_values({3, 2, 96}, mx::float32, 1);
  const auto gate = normal_values({3, 2}, mx::float32, 3);
  const auto indices = mx::array({0, 2, 1, 3, 3, 0}, {3, 2});
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const auto parts =
        mx::quantize(normal_values({4, 7, 96}, mx::float32, 2), 32, bits);
    const auto want = moe::gather_qmm_combine_quantized(
        act, {parts[0], parts[1], parts[2], bits, 32}, gate, indices);
    const auto got = moe::gather_by_kernel(
        {act, parts[0], parts[1], parts[2], gate, indices}, bits, 32, {});
    EXPECT_TRUE(mx::allclose(got, want, 1e-5, 1e-5).item<bool>()) << bits;
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
