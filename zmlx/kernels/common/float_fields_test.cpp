// SPDX-License-Identifier: MIT
// MXFP4, NVFP4 and MXFP8 against mlx.core.dequantize and sums in double.
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/row_blocks.h"
#include "zmlx/kernels/common/test_matrices.h"

namespace zmlx::cpu {
namespace {

/// The largest error of y[i] = W x[i], relative to the sum of |w x|.
double worst_error(
    const mx::array& w,
    const std::vector<std::vector<float>>& x,
    const std::vector<std::vector<float>>& y) {
  const int rows = w.shape(0), cols = w.shape(1);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    for (int row = 0; row < rows; ++row) {
      double sum = 0, size = 0;
      for (int col = 0; col < cols; ++col) {
        const double term =
            double{w.data<float>()[int64_t{row} * cols + col]} * x[i][col];
        sum += term;
        size += std::abs(term);
      }
      worst = std::max(worst, std::abs(y[i][row] - sum) / size);
    }
  }
  return worst;
}

std::vector<float> product(const PackedMatrix& w, const std::vector<float>& x) {
  PreparedVector prepared;
  prepared.prepare(x.data(), w);
  std::vector<float> y(static_cast<size_t>(w.rows));
  matvec(w, prepared, 0, w.rows, y.data());
  return y;
}

void multiply_all(
    const PackedMatrix& w,
    const std::vector<std::vector<float>>& x,
    std::vector<std::vector<float>>& y) {
  std::vector<const float*> from;
  std::vector<float*> to;
  for (size_t i = 0; i < x.size(); ++i) {
    from.push_back(x[i].data());
    to.push_back(y[i].data());
  }
  PreparedRows prepared;
  prepared.prepare(w, from.data(), static_cast<int64_t>(x.size()));
  gemm(w, 0, w.rows, prepared, to.data());
}

class FloatFieldsOnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }
};

TEST_P(FloatFieldsOnEveryTarget, StandForWhatMlxSays) {
  for (const auto& mode : kModes) {
    // Every field, under every scale.
    auto w = random(mode, {256, 512}, 1);
    w.words = mx::random::bits({256, 512 * mode.bits / 32}, 4);
    w.scales = mx::astype(
        mx::random::randint(0, 256, {256, 512 / mode.group_size}), mx::uint8);
    mx::eval(w.words, w.scales);
    const auto want = dequantized(mode, w);
    std::vector<float> row(512);
    for (int r = 0; r < 256; ++r) {
      dequantize_row(quant::view(w), r, row.data());
      for (int c = 0; c < 512; ++c) {
        const float value = want.data<float>()[r * 512 + c];
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(row[c])) << mode.name << ' ' << row[c];
        } else {
          ASSERT_EQ(row[c], value) << mode.name << ' ' << r << ' ' << c;
        }
      }
    }
  }
}

TEST_P(FloatFieldsOnEveryTarget, MultiplyAsSumsInDouble) {
  for (const auto& mode : kModes) {
    for (int cols : {32, 96, 128, 224, 640, 1792}) {
      for (int rows : {1, 7, 37}) {
        const auto w = random(mode, {rows, cols}, cols + rows);
        const auto x = normal(cols, 3);
        const auto y = product(quant::view(w), x);
        EXPECT_LT(worst_error(dequantized(mode, w), {x}, {y}), 2e-7)
            << mode.name << ' ' << rows << 'x' << cols << target_name();
      }
    }
  }
}

TEST_P(FloatFieldsOnEveryTarget, TakeEveryFieldAndScaleInProducts) {
  for (const auto& mode : kModes) {
    // One field is not zero: its product is the weight.
    const int cols = 128, field_bits = mode.bits;
    for (int code = 0; code < 256; ++code) {
      auto w = random(mode, {4, cols}, 1);
      std::vector<uint32_t> words(4 * cols * field_bits / 32);
      for (int r = 0; r < 4; ++r) {
        auto* bytes = reinterpret_cast<uint8_t*>(
            words.data() + r * cols * field_bits / 32);
        const int at = 11 + 20 * r;
        bytes[at * field_bits / 8] = field_bits == 8
            ? static_cast<uint8_t>(code)
            : static_cast<uint8_t>(code % 16 << (4 * (at % 2)));
      }
      w.words = mx::array(words.data(), w.words.shape(), mx::uint32);
      // Scales around 1 for bytes, all of them for nibbles.
      w.scales = mx::full(
          w.scales.shape(), field_bits == 8 ? 100 + code / 8 : code, mx::uint8);
      mx::eval(w.words, w.scales);
      const auto want = dequantized(mode, w);
      const auto y = product(quant::view(w), std::vector<float>(cols, 1));
      for (int r = 0; r < 4; ++r) {
        const float value = want.data<float>()[r * cols + 11 + 20 * r];
        if (std::isfinite(value)) {
          // The smallest scales leave the range of floats with a digit's.
          EXPECT_NEAR(y[r], value, 3e-7 * std::abs(value) + 1e-30)
              << mode.name << ' ' << code;
        } else {
          EXPECT_FALSE(std::isfinite(y[r])) << mode.name << ' ' << code;
        }
      }
    }
  }
}

TEST_P(FloatFieldsOnEveryTarget, MultiplyManyVectors) {
  for (const auto& mode : kModes) {
    for (int count : {1, 5, 13, 30}) {
      const auto w = random(mode, {70, 416}, count);
      std::vector<std::vector<float>> x, y(count, std::vector<float>(70));
      for (int i = 0; i < count; ++i) {
        x.push_back(normal(416, i));
      }
      multiply_all(quant::view(w), x, y);
      EXPECT_LT(worst_error(dequantized(mode, w), x, y), 3e-7)
          << mode.name << ' ' << count;
    }
  }
}

TEST_P(FloatFieldsOnEveryTarget, CarryNanInfinityAndTinyValues) {
  for (const auto& mode : kModes) {
    const auto w = random(mode, {5, 256}, 9);
    auto x = normal(256, 4);
    x[17] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(product(quant::view(w), x)[0])) << mode.name;
    x[17] = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(std::isfinite(product(quant::view(w), x)[0])) << mode.name;
    const std::vector<float> tiny(256, 1e-35f);
    const auto y = product(quant::view(w), tiny);
    EXPECT_LT(worst_error(dequantized(mode, w), {tiny}, {y}), 3e-7);
    EXPECT_EQ(product(quant::view(w), std::vector<float>(256))[2], 0.0f);
  }
}

TEST_P(FloatFieldsOnEveryTarget, CarryNanAndTinyValuesAmongManyVectors) {
  for (const auto& mode : kModes) {
    const auto w = random(mode, {40, 256}, 9);
    std::vector<std::vector<float>> x, y(6, std::vector<float>(40));
    for (int i = 0; i < 6; ++i) {
      x.push_back(normal(256, i));
    }
    x[1][17] = std::numeric_limits<float>::quiet_NaN();
    std::fill(x[2].begin(), x[2].end(), 1e-35f);
    multiply_all(quant::view(w), x, y);
    for (float value : y[1]) {
      EXPECT_TRUE(std::isnan(value)) << mode.name;
    }
    const auto values = dequantized(mode, w);
    EXPECT_LT(worst_error(values, {x[0], x[2], x[5]}, {y[0], y[2], y[5]}), 3e-7)
        << mode.name;
  }
}

TEST_P(FloatFieldsOnEveryTarget, TakeEveryFieldAmongManyVectors) {
  for (const auto& mode : kModes) {
    // A row each field of eight bits, or each pair of four.
    const int cols = 64, bytes = cols * mode.bits / 8;
    auto w = random(mode, {256, cols}, 1);
    std::vector<uint32_t> words(256 * cols * mode.bits / 32);
    for (int r = 0; r < 256; ++r) {
      reinterpret_cast<uint8_t*>(words.data())[r * bytes + r % bytes] =
          static_cast<uint8_t>(r);
    }
    w.words = mx::array(words.data(), w.words.shape(), mx::uint32);
    w.scales = mx::full(w.scales.shape(), 120, mx::uint8);
    mx::eval(w.words, w.scales);
    const double scale = mode.scheme == Scheme::NVFP4 ? 256 : 0x1p-7;
    auto ramp = std::vector<float>(cols);
    for (int i = 0; i < cols; ++i) {
      ramp[static_cast<size_t>(i)] = 1 + static_cast<float>(i) / 64;
    }
    const std::vector<std::vector<float>> x(5, ramp);
    std::vector<std::vector<float>> y(5, std::vector<float>(256));
    multiply_all(quant::view(w), x, y);
    const auto values = dequantized(mode, w);
    for (int r = 0; r < 256; ++r) {
      double want = 0;
      for (int c = 0; c < cols; ++c) {
        want += double{values.data<float>()[r * cols + c]} * ramp[c];
      }
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(y[4][r])) << mode.name << ' ' << r;
      } else {
        // Fields of four bits are bytes less an offset, which rounds.
        const double unit =
            mode.bits == 8 ? 1e-6 * std::abs(want) : 2e-4 * scale;
        EXPECT_NEAR(y[4][r], want, unit) << mode.name << ' ' << r;
      }
    }
  }
}

TEST_P(FloatFieldsOnEveryTarget, AreTheSameInBlocks) {
  for (const auto& mode : {kModes[0], kModes[1]}) {
    for (int cols : {128, 640, 1792}) {
      const auto w = random(mode, {64, cols}, cols);
      const RowBlocks blocks(quant::view(w), 1);
      const auto values = dequantized(mode, w);
      std::vector<std::vector<float>> x, y(9, std::vector<float>(64));
      std::vector<float> row(static_cast<size_t>(cols));
      dequantize_row(blocks.matrix(), 37, row.data());
      for (int c = 0; c < cols; ++c) {
        ASSERT_EQ(row[c], values.data<float>()[37 * cols + c]);
      }
      for (int i = 0; i < 9; ++i) {
        x.push_back(normal(cols, i));
      }
      multiply_all(blocks.matrix(), x, y);
      EXPECT_LT(worst_error(values, x, y), 3e-7) << mode.name << cols;
      auto rows = y;
      multiply_all(quant::view(w), x, rows);
      EXPECT_EQ(y, rows) << mode.name;
      for (int i = 0; i < 9; ++i) {
        y[i] = product(blocks.matrix(), x[i]);
      }
      EXPECT_LT(worst_error(values, x, y), 3e-7) << mode.name << cols;
      x[3][40] = std::numeric_limits<float>::infinity();
      EXPECT_FALSE(std::isfinite(product(blocks.matrix(), x[3])[5]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    FloatFieldsOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
