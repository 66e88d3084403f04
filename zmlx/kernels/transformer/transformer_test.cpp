// SPDX-License-Identifier: MIT
#include "zmlx/kernels/transformer/transformer.h"

#include <cmath>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/authoring/arrays.h"

namespace zmlx {
namespace {

mx::array kept(const mx::Shape& shape, double p, uint64_t seed) {
  return mx::astype(
      transformer::dropout(mx::ones(shape), p, seed) != mx::array(0.0f),
      mx::float32);
}

double mean_of(const mx::array& x) {
  return mx::mean(x).item<float>();
}

bool same(const mx::array& a, const mx::array& b) {
  return mx::array_equal(a, b).item<bool>();
}

TEST(Dropout, KeepsTheShareAskedFor) {
  for (double p : {0.1, 0.5, 0.9}) {
    const double count = 512 * 1024;
    EXPECT_NEAR(
        mean_of(kept({512, 1024}, p, 3)),
        1 - p,
        5 * std::sqrt(p * (1 - p) / count))
        << p;
  }
}

// An additive counter without a hash, or rows that share their numbers, would
// show here as a correlation at some distance.
TEST(Dropout, IsUncorrelatedAlongRowsAcrossRowsAndBetweenSeeds) {
  const auto x = kept({512, 1024}, 0.5, 3) - mx::array(0.5f);
  const double bound = 5 * 0.25 / std::sqrt(512 * 1000.0);
  for (int shift : {1, 2, 3, 5, 8, 16}) {
    const auto left = mx::slice(x, {0, 0}, {512, 1024 - shift});
    const auto right = mx::slice(x, {0, shift}, {512, 1024});
    EXPECT_NEAR(mean_of(left * right), 0, bound) << shift;
    const auto upper = mx::slice(x, {0, 0}, {512 - shift, 1024});
    const auto lower = mx::slice(x, {shift, 0}, {512, 1024});
    EXPECT_NEAR(mean_of(upper * lower), 0, 1.05 * bound) << shift;
  }
  for (uint64_t seed : {uint64_t{2}, uint64_t{4}, uint64_t{1} << 40}) {
    const auto other = kept({512, 1024}, 0.5, seed) - mx::array(0.5f);
    EXPECT_NEAR(mean_of(x * other), 0, bound) << seed;
  }
}

TEST(Dropout, DependsOnThePlaceAndNotOnTheLayout) {
  const auto x = normal_values({37, 53}, mx::float32, 1);
  const auto strided = mx::transpose(mx::contiguous(mx::transpose(x)));
  EXPECT_TRUE(same(
      transformer::dropout(x, 0.4, 9), transformer::dropout(strided, 0.4, 9)));
  EXPECT_TRUE(same(transformer::dropout(x, 0.0, 9), x));
}

TEST(Dropout, RejectsAProbabilityOfOne) {
  for (double p : {1.0, -0.1, double{NAN}}) {
    EXPECT_THROW(transformer::dropout(mx::ones({2}), p), std::invalid_argument);
  }
}

TEST(Swiglu, RejectsAnOddLastAxis) {
  EXPECT_THROW(transformer::swiglu(mx::ones({2, 3})), std::invalid_argument);
  EXPECT_THROW(
      transformer::bias_geglu(mx::ones({2, 4}), mx::ones({2})),
      std::invalid_argument);
}

} // namespace
} // namespace zmlx
