// SPDX-License-Identifier: MIT
// matvec() against sums in double over fields read bit by bit.
#include "zmlx/kernels/common/matvec.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "zmlx/kernels/common/rows.h"

namespace zmlx::cpu {
namespace {

struct Case {
  int64_t rows, cols;
  int bits, group_size;
  mx::Dtype dtype = mx::bfloat16;
};

class Weights {
 public:
  explicit Weights(const Case& c) : case_(c) {
    std::mt19937 rng(c.bits * 1000 + static_cast<int>(c.cols));
    words_.resize(static_cast<size_t>(c.rows * c.cols * c.bits / 32));
    for (auto& word : words_) {
      word = static_cast<uint32_t>(rng());
    }
    const int groups = static_cast<int>(c.rows * c.cols / c.group_size);
    auto key = mx::random::key(7);
    scales_ = mx::astype(
        mx::random::uniform(0.01f, 0.1f, {groups}, mx::float32, key), c.dtype);
    biases_ = mx::astype(mx::negative(scales_ * mx::array(7.3f)), c.dtype);
    mx::eval(scales_, biases_);
  }

  PackedMatrix matrix() const {
    const FloatType type = case_.dtype == mx::float32 ? FloatType::F32
        : case_.dtype == mx::float16                  ? FloatType::F16
                                                      : FloatType::BF16;
    return {
        words_.data(),
        scales_.data<char>(),
        biases_.data<char>(),
        type,
        case_.rows,
        case_.cols,
        case_.bits,
        case_.group_size};
  }

  struct Parts {
    double scaled, bias; // the weight is their sum
  };

  Parts value(int64_t row, int64_t col) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(words_.data());
    const int64_t first = (row * case_.cols + col) * case_.bits;
    int quant = 0;
    for (int64_t bit = 0; bit < case_.bits; ++bit) {
      const int64_t at = first + bit;
      quant |= (bytes[at / 8] >> (at % 8) & 1) << bit;
    }
    const int64_t group = (row * case_.cols + col) / case_.group_size;
    float scale, bias;
    const auto size = case_.dtype.size();
    to_float(scales_.data<char>() + group * size, case_.dtype, 1, &scale);
    to_float(biases_.data<char>() + group * size, case_.dtype, 1, &bias);
    return {double{scale} * quant, bias};
  }

 private:
  Case case_;
  std::vector<uint32_t> words_;
  mx::array scales_{0.0f}, biases_{0.0f};
};

std::vector<float> normal(int64_t count, int seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(count));
  for (auto& value : values) {
    value = distribution(rng);
  }
  return values;
}

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

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      for (int64_t cols : {128, 384, 640, 1792}) {
        cases.push_back({7, cols, bits, group});
      }
    }
    cases.push_back({5, 32, bits, 32, mx::float16});
    cases.push_back({1, 96, bits, 32, mx::float32});
    cases.push_back({3, 320, bits, 64, mx::float16});
    cases.push_back({3, 320, bits, 64, mx::float32});
  }
  return cases;
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

std::vector<int64_t> targets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    MatvecOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
