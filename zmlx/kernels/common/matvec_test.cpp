// SPDX-License-Identifier: MIT
// matvec() against sums in double over fields read bit by bit.
#include "zmlx/kernels/common/matvec.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/test_matrices.h"

namespace zmlx::cpu {
namespace {

std::vector<float> run(const Weights& weights, const std::vector<float>& x) {
  const PackedMatrix w = weights.matrix();
  PreparedVector prepared;
  prepared.prepare(x.data(), w.cols, w.bits, w.group_size);
  std::vector<float> y(static_cast<size_t>(w.rows));
  matvec(w, prepared, 0, w.rows, y.data());
  return y;
}

// Largest error relative to the sum of (|scale q| + |bias|) |x|, the size of
// what is summed and rounded.
double worst_error(const Case& c, const std::vector<float>& x) {
  const Weights weights(c);
  const auto y = run(weights, x);
  double worst = 0;
  for (int64_t row = 0; row < c.rows; ++row) {
    double sum = 0, size = 0;
    for (int64_t col = 0; col < c.cols; ++col) {
      const auto w = weights.value(row, col);
      sum += (w.scaled + w.bias) * x[col];
      size += (std::abs(w.scaled) + std::abs(w.bias)) * std::abs(x[col]);
    }
    worst = std::max(worst, std::abs(y[row] - sum) / size);
  }
  return worst;
}

class MatvecOnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }
};

TEST_P(MatvecOnEveryTarget, MatchesDoubleSums) {
  for (const auto& c : all_cases()) {
    EXPECT_LT(worst_error(c, normal(c.cols, 3)), 2e-7)
        << target_name() << ' ' << c.rows << 'x' << c.cols << ", " << c.bits
        << " bits, group " << c.group_size;
  }
}

TEST_P(MatvecOnEveryTarget, KeepsFloatAccuracyBesideOutliers) {
  auto x = normal(640, 5);
  x[3] = 1e4f;
  x[100] = 1e-6f;
  // The outlier's one product makes up the sum: a dozen roundings of it.
  EXPECT_LT(worst_error({9, 640, 4, 64}, x), 1.5e-6);
  EXPECT_LT(worst_error({9, 640, 8, 64}, x), 1.5e-6);
}

TEST_P(MatvecOnEveryTarget, CarriesNanAndInfinityAndTinyValues) {
  const Weights weights(Case{3, 256, 4, 64});
  auto x = normal(256, 6);
  x[17] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(run(weights, x)[0]));
  x[17] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(run(weights, x)[0]));
  std::vector<float> tiny(256, 1e-35f);
  EXPECT_LT(worst_error({3, 256, 4, 64}, tiny), 2e-7);
  EXPECT_EQ(run(weights, std::vector<float>(256, 0.0f))[2], 0.0f);
}

TEST_P(MatvecOnEveryTarget, GivesTheSameBitsHoweverRowsAreSplit) {
  const Case c{37, 384, 4, 64};
  const Weights weights(c);
  const auto x = normal(c.cols, 8);
  const auto whole = run(weights, x);
  PreparedVector prepared;
  prepared.reserve(c.cols, c.bits, c.group_size);
  prepared.prepare_part(x.data(), 256, 384);
  prepared.prepare_part(x.data(), 0, 256);
  std::vector<float> parts(37);
  for (auto [begin, end] : {std::pair{0, 5}, {5, 30}, {30, 37}}) {
    matvec(weights.matrix(), prepared, begin, end, parts.data() + begin);
  }
  EXPECT_EQ(whole, parts);
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    MatvecOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
