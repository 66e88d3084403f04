// SPDX-License-Identifier: MIT
// matvec() against sums in double over fields read bit by bit.
#include "zmlx/kernels/common/matvec.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/kernels/common/row_blocks.h"
#include "zmlx/kernels/common/test_matrices.h"

namespace zmlx::cpu {
namespace {

std::vector<float> run(const PackedMatrix& w, const std::vector<float>& x) {
  PreparedVector prepared;
  prepared.prepare(x.data(), w);
  std::vector<float> y(static_cast<size_t>(w.rows));
  matvec(w, prepared, 0, w.rows, y.data());
  return y;
}

std::vector<float> run(const Weights& weights, const std::vector<float>& x) {
  return run(weights.matrix(), x);
}

// Largest error relative to the sum of (|scale q| + |bias|) |x|, the size of
// what is summed and rounded.
double worst_error(
    const Case& c,
    const Weights& weights,
    const std::vector<float>& x,
    const std::vector<float>& y) {
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

double worst_error(const Case& c, const std::vector<float>& x) {
  const Weights weights(c);
  return worst_error(c, weights, x, run(weights, x));
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
  for (int bits : kAllBits) {
    EXPECT_LT(worst_error({9, 640, bits, 64}, x), 1.5e-6) << bits;
  }
}

TEST_P(MatvecOnEveryTarget, HoldsTheLargestSumsOfIntegers) {
  for (int bits : kAllBits) {
    const Case c{5, 640, bits, 128, mx::float32};
    const Weights weights(c, true);
    for (float value : {1.0f, -1.0f}) {
      const std::vector<float> x(static_cast<size_t>(c.cols), value);
      // Roundings of equal terms add up; what overflows is wrong by far more.
      EXPECT_LT(worst_error(c, weights, x, run(weights, x)), 1e-6) << bits;
    }
  }
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
  for (int bits : kAllBits) {
    const Case c{37, 416, bits, 32};
    const Weights weights(c);
    const auto x = normal(c.cols, 8);
    const auto whole = run(weights, x);
    PreparedVector prepared;
    prepared.reserve(c.cols, c.bits, c.group_size);
    prepared.prepare_part(x.data(), 256, 416);
    prepared.prepare_part(x.data(), 0, 256);
    std::vector<float> parts(37);
    for (auto [begin, end] : {std::pair{0, 5}, {5, 30}, {30, 37}}) {
      matvec(weights.matrix(), prepared, begin, end, parts.data() + begin);
    }
    EXPECT_EQ(whole, parts) << bits;
  }
}

TEST_P(MatvecOnEveryTarget, MatchesDoubleSumsInBlocks) {
  for (const auto& c : block_cases()) {
    const Weights weights(c);
    const RowBlocks blocks(weights.matrix(), 1);
    const auto x = normal(c.cols, 3);
    EXPECT_LT(worst_error(c, weights, x, run(blocks.matrix(), x)), 2e-7)
        << target_name() << ' ' << c.rows << 'x' << c.cols << ", " << c.bits
        << " bits, group " << c.group_size;
  }
}

TEST_P(MatvecOnEveryTarget, KeepsFloatAccuracyBesideOutliersInBlocks) {
  for (int bits : {4, 8}) {
    const Case c{32, 640, bits, 64};
    const Weights weights(c);
    const RowBlocks blocks(weights.matrix(), 1);
    auto x = normal(c.cols, 5);
    x[3] = 1e4f;
    x[100] = 1e-6f;
    // Beside the outlier's roundings, a group of 64 shares its scale.
    EXPECT_LT(worst_error(c, weights, x, run(blocks.matrix(), x)), 3e-6);
  }
}

TEST_P(MatvecOnEveryTarget, TakesNanInfinityAndTinyValuesInBlocks) {
  const Case c{32, 256, 4, 64};
  const Weights weights(c);
  const RowBlocks blocks(weights.matrix(), 1);
  auto x = normal(256, 6);
  x[17] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(run(blocks.matrix(), x)[31]));
  x[17] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(run(blocks.matrix(), x)[0]));
  std::vector<float> tiny(256, 1e-35f);
  EXPECT_LT(worst_error(c, weights, tiny, run(blocks.matrix(), tiny)), 2e-7);
  EXPECT_EQ(run(blocks.matrix(), std::vector<float>(256, 0.0f))[2], 0.0f);
}

TEST_P(MatvecOnEveryTarget, ReadsRowsInBlocksAsTheyWere) {
  for (const auto& c : block_cases()) {
    const Weights weights(c);
    const RowBlocks blocks(weights.matrix(), 1);
    std::vector<float> before(c.cols), after(c.cols);
    for (int64_t row : {int64_t{0}, c.rows / 2 - 1, c.rows - 1}) {
      dequantize_row(weights.matrix(), row, before.data());
      dequantize_row(blocks.matrix(), row, after.data());
      EXPECT_EQ(before, after);
    }
  }
}

// What each of `count` vectors gives alone and among the others.
void expect_same_in_groups(const PackedMatrix& w, int count, bool infinite) {
  std::vector<PreparedVector> prepared(static_cast<size_t>(count));
  std::vector<const PreparedVector*> pointers;
  std::vector<std::vector<float>> one, all(count, std::vector<float>(w.rows));
  std::vector<float*> out;
  for (int i = 0; i < count; ++i) {
    auto x = normal(w.cols, i);
    // One that integers cannot hold, among others.
    x[7] = infinite && i == 5 ? std::numeric_limits<float>::infinity() : x[7];
    prepared[i].prepare(x.data(), w);
    pointers.push_back(&prepared[i]);
    one.push_back(run(w, x));
  }
  for (auto [begin, end] : {std::pair{0, 5}, {5, 32}, {32, 70}, {70, 96}}) {
    out.clear();
    for (auto& y : all) {
      out.push_back(y.data() + begin);
    }
    matvec(w, pointers.data(), count, begin, end, out.data());
  }
  for (int i = 0; i < count; ++i) {
    if (!infinite || i != 5) {
      EXPECT_EQ(one[i], all[i]) << i << " of " << count;
    }
  }
}

TEST_P(MatvecOnEveryTarget, GivesTheSameBitsHoweverRowsAndVectorsAreGrouped) {
  const Weights weights(Case{96, 384, 4, 64});
  const RowBlocks blocks(weights.matrix(), 1);
  for (const PackedMatrix& w : {weights.matrix(), blocks.matrix()}) {
    expect_same_in_groups(w, 11, true);
    for (int count : {2, 4, 5, 8, 9, 11, 17}) {
      expect_same_in_groups(w, count, false);
    }
  }
}

TEST_P(MatvecOnEveryTarget, GivesTheSameBitsInGroupsForEveryFormatInBlocks) {
  for (int bits : {4, 8}) {
    for (int group : {32, 64, 128}) {
      const auto type = group == 64 ? mx::bfloat16 : mx::float16;
      const Weights weights(Case{96, 384, bits, group, type});
      const RowBlocks blocks(weights.matrix(), 1);
      for (int count : {2, 3, 4, 5, 6, 7, 8, 13, 17, 23}) {
        expect_same_in_groups(blocks.matrix(), count, false);
      }
    }
  }
  for (const auto& mode : {kModes[0], kModes[1]}) {
    const auto weights = random(mode, {96, 384}, 2);
    const RowBlocks blocks(quant::view(weights), 1);
    for (int count : {2, 3, 4, 5, 6, 7, 8, 13, 17, 23}) {
      expect_same_in_groups(blocks.matrix(), count, false);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    MatvecOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
