// SPDX-License-Identifier: MIT
// gemm() against sums in double.
#include "zmlx/kernels/common/gemm.h"

#include <limits>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/dense.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/row_blocks.h"
#include "zmlx/kernels/common/test_matrices.h"

namespace zmlx::cpu {
namespace {

/// Rows of vectors, and the pointers to them.
struct Rows {
  Rows(int64_t count, int64_t width) : values(count * width), width(width) {
    for (int64_t i = 0; i < count; ++i) {
      pointers.push_back(values.data() + i * width);
    }
  }
  const float* const* inputs() const {
    return pointers.data();
  }
  std::vector<float> values;
  int64_t width;
  std::vector<float*> pointers;
};

Rows normal_rows(int64_t count, int64_t width) {
  Rows rows(count, width);
  rows.values = normal(count * width, 11);
  for (int64_t i = 0; i < count; ++i) {
    rows.pointers[i] = rows.values.data() + i * width;
  }
  return rows;
}

template <class Matrix>
Rows run(const Matrix& w, const Rows& x) {
  const auto count = static_cast<int64_t>(x.pointers.size());
  PreparedRows prepared;
  prepared.prepare(w, x.inputs(), count);
  Rows y(count, w.rows);
  gemm(w, 0, w.rows, prepared, y.pointers.data());
  return y;
}

double worst_error(const Case& c, const Rows& x) {
  const Weights weights(c);
  const Rows y = run(weights.matrix(), x);
  double worst = 0;
  for (int64_t row = 0; row < c.rows; ++row) {
    std::vector<Weights::Parts> parts;
    for (int64_t col = 0; col < c.cols; ++col) {
      parts.push_back(weights.value(row, col));
    }
    for (size_t i = 0; i < x.pointers.size(); ++i) {
      double sum = 0, size = 0;
      for (int64_t col = 0; col < c.cols; ++col) {
        const auto& w = parts[col];
        const double value = x.pointers[i][col];
        sum += (w.scaled + w.bias) * value;
        size += (std::abs(w.scaled) + std::abs(w.bias)) * std::abs(value);
      }
      worst = std::max(worst, std::abs(y.pointers[i][row] - sum) / size);
    }
  }
  return worst;
}

class GemmOnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }
};

TEST_P(GemmOnEveryTarget, MatchesDoubleSumsInEveryFormat) {
  for (const auto& c : all_cases()) {
    EXPECT_LT(worst_error(c, normal_rows(3, c.cols)), 2e-7)
        << target_name() << ' ' << c.rows << 'x' << c.cols << ", " << c.bits
        << " bits, group " << c.group_size;
  }
}

TEST_P(GemmOnEveryTarget, MatchesDoubleSumsForAnyNumberOfVectorsAndRows) {
  for (int64_t count = 1; count <= 27; ++count) {
    const Case c{60 + count, 320, count % 2 == 0 ? 4 : 8, 64};
    EXPECT_LT(worst_error(c, normal_rows(count, c.cols)), 2e-7) << count;
  }
}

TEST_P(GemmOnEveryTarget, KeepsFloatAccuracyBesideOutliers) {
  for (int bits : {4, 8}) {
    Rows x = normal_rows(5, 640);
    x.values[3] = 1e4f;
    x.values[100] = 1e-6f;
    // The outlier's one product makes up the sum: a dozen roundings of it.
    EXPECT_LT(worst_error({9, 640, bits, 64}, x), 1.5e-6);
  }
}

TEST_P(GemmOnEveryTarget, CarriesNanAndInfinityAndTinyValues) {
  const Weights weights(Case{3, 256, 4, 64});
  Rows x = normal_rows(4, 256);
  const Rows before = run(weights.matrix(), x);
  x.values[17] = std::numeric_limits<float>::quiet_NaN();
  x.values[256 + 17] = std::numeric_limits<float>::infinity();
  const Rows y = run(weights.matrix(), x);
  EXPECT_TRUE(std::isnan(y.pointers[0][0]));
  EXPECT_FALSE(std::isfinite(y.pointers[1][0]));
  for (int row = 0; row < 3; ++row) {
    EXPECT_EQ(y.pointers[2][row], before.pointers[2][row]);
    EXPECT_EQ(y.pointers[3][row], before.pointers[3][row]);
  }
  std::fill_n(x.pointers[0], 256, 1e-35f);
  std::fill_n(x.pointers[1], 256, 0.0f);
  EXPECT_LT(worst_error({3, 256, 4, 64}, x), 2e-7);
  EXPECT_EQ(run(weights.matrix(), x).pointers[1][2], 0.0f);
}

TEST_P(GemmOnEveryTarget, GivesTheSameBitsHoweverRowsAndVectorsAreSplit) {
  const Case c{150, 384, 4, 64};
  const Weights weights(c);
  const Rows x = normal_rows(29, c.cols);
  const Rows whole = run(weights.matrix(), x);
  for (auto [first, last] : {std::pair{0, 1}, {1, 9}, {9, 29}}) {
    PreparedRows prepared;
    prepared.prepare(weights.matrix(), x.inputs() + first, last - first);
    for (auto [begin, end] : {std::pair{0, 5}, {5, 100}, {100, 150}}) {
      Rows part(last - first, end - begin);
      gemm(weights.matrix(), begin, end, prepared, part.pointers.data());
      for (int i = first; i < last; ++i) {
        for (int row = begin; row < end; ++row) {
          ASSERT_EQ(
              part.pointers[i - first][row - begin], whole.pointers[i][row]);
        }
      }
    }
  }
}

TEST_P(GemmOnEveryTarget, GivesTheSameBitsInBlocks) {
  for (const auto& c : block_cases()) {
    const Weights weights(c);
    const RowBlocks blocks(weights.matrix(), 1);
    const Rows x = normal_rows(5, c.cols);
    EXPECT_EQ(run(weights.matrix(), x).values, run(blocks.matrix(), x).values);
    PreparedRows prepared;
    prepared.prepare(blocks.matrix(), x.inputs(), 5);
    const Rows whole = run(blocks.matrix(), x);
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 5}, {5, c.rows}}) {
      Rows part(5, end - begin);
      gemm(blocks.matrix(), begin, end, prepared, part.pointers.data());
      for (int64_t row = begin; row < end; ++row) {
        ASSERT_EQ(part.pointers[4][row - begin], whole.pointers[4][row]);
      }
    }
  }
}

TEST_P(GemmOnEveryTarget, MultipliesDenseMatricesOfEveryType) {
  for (auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    for (int64_t cols : {1, 37, 300, 700}) {
      const int64_t rows = 45;
      auto values = normal(rows * cols, 4);
      const mx::array stored = mx::astype(
          mx::array(values.data(), {static_cast<int>(rows * cols)}), dtype);
      mx::eval(stored);
      to_float(stored.data<char>(), dtype, rows * cols, values.data());
      const FloatType type = dtype == mx::float32 ? FloatType::F32
          : dtype == mx::float16                  ? FloatType::F16
                                                  : FloatType::BF16;
      const Rows x = normal_rows(14, cols);
      const DenseMatrix w{stored.data<char>(), type, rows, cols};
      const Rows y = run(w, x);
      std::vector<float> one(rows), parts(rows);
      matvec(w, x.pointers[3], 0, rows, one.data());
      matvec(w, x.pointers[3], 0, 7, parts.data());
      matvec(w, x.pointers[3], 7, rows, parts.data() + 7);
      EXPECT_EQ(one, parts);
      for (int64_t i = 0; i < 14; ++i) {
        for (int64_t row = 0; row < rows; ++row) {
          double sum = 0, size = 0;
          for (int64_t col = 0; col < cols; ++col) {
            const double product =
                double{values[row * cols + col]} * x.pointers[i][col];
            sum += product;
            size += std::abs(product);
          }
          ASSERT_NEAR(y.pointers[i][row], sum, 1e-6 * size + 1e-30);
          if (i == 3) {
            ASSERT_NEAR(one[row], sum, 1e-6 * size + 1e-30);
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    GemmOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
