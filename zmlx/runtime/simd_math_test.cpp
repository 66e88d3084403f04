// SPDX-License-Identifier: MIT
// Every function of expressions, on every instruction set, against double.
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "zmlx/runtime/expression_oracle.h"
#include "zmlx/runtime/expression_steps.h"

namespace zmlx::cpu {
namespace {

using dialect::Op;
using dialect::Type;

constexpr double kMost = 2.0; // ulp

// Distance of y from what it should be, in units of the last place of a float
// of that size. Infinity counts as 2^128, the next value after the largest.
double ulps(float y, double exact) {
  if (std::isnan(exact) || std::isnan(y)) {
    return std::isnan(exact) && std::isnan(y)
        ? 0
        : std::numeric_limits<double>::infinity();
  }
  const auto bounded = [](double x) {
    return std::copysign(std::fmin(std::abs(x), 0x1p128), x);
  };
  exact = bounded(exact);
  int exponent = -125;
  if (exact != 0) {
    std::frexp(exact, &exponent);
  }
  const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
  return std::abs(bounded(y) - exact) / unit;
}

// A function's lanes, whatever their number.
std::vector<float>
apply(Op op, const std::vector<float>& x, const std::vector<float>& y = {}) {
  const auto size = (x.size() + kGroup - 1) / kGroup * kGroup;
  std::vector<float> a = x, b = y, out(size);
  a.resize(size);
  b.resize(size);
  StepArgs args{
      {a.data(), b.data(), nullptr},
      {kGroup, kGroup, 0},
      out.data(),
      static_cast<int64_t>(size) / kGroup};
  find_step(op, Type::Float)(args);
  out.resize(x.size());
  return out;
}

std::vector<Op> functions() {
  std::vector<Op> ops;
  for (int i = static_cast<int>(Op::Exp); i < dialect::kNumOps; ++i) {
    ops.push_back(static_cast<Op>(i));
  }
  return ops;
}

// Bit patterns of all signs and exponents, NaN and infinity included: one in
// 4093, and what lies around whole numbers, halves and powers of two.
const std::vector<float>& samples() {
  static const auto values = [] {
    std::vector<float> samples;
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4093) {
      samples.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    }
    for (int whole = -200; whole <= 200; ++whole) {
      for (double around : {whole * 0.5, std::ldexp(1.0, whole)}) {
        const auto x = static_cast<float>(around);
        for (float sign : {1.0f, -1.0f}) {
          samples.push_back(sign * x);
          samples.push_back(std::nextafter(sign * x, 1e30f));
          samples.push_back(std::nextafter(sign * x, -1e30f));
        }
      }
    }
    // The float closest to a multiple of pi / 2, among others.
    for (float x : {0x1.f9cbe2p+7f, 0x1.6ac5b2p+39f, 0x1.be9162p+36f}) {
      samples.push_back(x);
    }
    return samples;
  }();
  return values;
}

class MathOnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }
};

TEST_P(MathOnEveryTarget, IsWithinTwoUlpOverTheWholeRange) {
  std::printf("| function | max ulp | at |\n| --- | --- | --- |\n");
  for (Op op : functions()) {
    const auto& x = samples();
    const auto y = apply(op, x);
    double worst = 0;
    float at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double error = ulps(y[i], oracle::unary(op, x[i]));
      if (error > worst) {
        worst = error;
        at = x[i];
      }
    }
    const std::string name(dialect::name(op));
    std::printf("| %s | %.2f | %a |\n", name.c_str(), worst, at);
    EXPECT_LE(worst, kMost)
        << name << " at " << at << ", " << oracle::unary(op, at) << " but "
        << apply(op, {at})[0];
  }
}

TEST_P(MathOnEveryTarget, KeepsTwoOperandFunctionsWithinTwoUlp) {
  std::mt19937 rng(5);
  std::vector<float> x, y;
  std::normal_distribution<float> normal(0, 10);
  for (int i = 0; i < 300000; ++i) {
    // Any bits; moderate values; whole numbers beside each other.
    const auto bits = [&] { return std::bit_cast<float>(uint32_t(rng())); };
    x.push_back(i % 3 == 0 ? bits() : i % 3 == 1 ? normal(rng) : rng() % 9);
    y.push_back(i % 3 == 0 ? bits() : i % 3 == 1 ? normal(rng) : rng() % 9);
  }
  const float kInf = std::numeric_limits<float>::infinity();
  const float edges[] = {
      0.0f,
      -0.0f,
      1.0f,
      -1.0f,
      0.5f,
      -0.5f,
      2.0f,
      -2.0f,
      3.0f,
      -3.0f,
      kInf,
      -kInf,
      std::numeric_limits<float>::quiet_NaN(),
      1e-45f,
      3e38f};
  for (float a : edges) {
    for (float b : edges) {
      x.push_back(a);
      y.push_back(b);
    }
  }
  for (Op op : {Op::Pow, Op::Atan2, Op::Fmod, Op::Div}) {
    const auto out = apply(op, x, y);
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = oracle::binary(op, x[i], y[i]);
      const double error = ulps(out[i], exact);
      if (error > worst) {
        worst = error;
        at = i;
      }
      if (exact == 0 && out[i] == 0) {
        EXPECT_EQ(std::signbit(exact), std::signbit(out[i]))
            << dialect::name(op) << ' ' << x[i] << ' ' << y[i];
      }
    }
    const std::string name(dialect::name(op));
    std::printf("| %s | %.2f | %a, %a |\n", name.c_str(), worst, x[at], y[at]);
    EXPECT_LE(worst, kMost)
        << name << " of " << x[at] << " and " << y[at] << " is "
        << oracle::binary(op, x[at], y[at]) << " but " << out[at];
  }
}

TEST_P(MathOnEveryTarget, KeepsTheSignOfZero) {
  for (Op op : {Op::Expm1, Op::Log1p, Op::Sin,   Op::Tan,   Op::SinPi,
                Op::TanPi, Op::Asin,  Op::Atan,  Op::Sinh,  Op::Tanh,
                Op::Asinh, Op::Atanh, Op::Sqrt,  Op::Floor, Op::Ceil,
                Op::Round, Op::Rint,  Op::Trunc, Op::Sign,  Op::Erf}) {
    const auto y = apply(op, {0.0f, -0.0f});
    EXPECT_EQ(std::bit_cast<uint32_t>(y[0]), 0u) << dialect::name(op);
    EXPECT_EQ(std::bit_cast<uint32_t>(y[1]), 0x80000000u) << dialect::name(op);
  }
  EXPECT_EQ(
      apply(Op::Rsqrt, {-0.0f})[0], -std::numeric_limits<float>::infinity());
}

TEST_P(MathOnEveryTarget, RoundsToShorterTypesAsMlxDoes) {
  for (auto [op, bits, least, most] :
       {std::tuple{Op::RoundHalf, 10, -14, 65504.0f},
        std::tuple{Op::RoundBfloat, 7, -126, 0x1.fep127f}}) {
    const auto y = apply(op, samples());
    for (size_t i = 0; i < y.size(); ++i) {
      const float exact = oracle::round_to(samples()[i], bits, least, most);
      ASSERT_EQ(ulps(y[i], exact), 0) << dialect::name(op) << samples()[i];
    }
  }
}

// One of each set of targets that run the same code.
std::vector<int64_t> targets() {
  std::vector<int64_t> targets;
  std::set<StepFunction> seen;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    if (seen.insert(find_step(Op::Exp, Type::Float)).second) {
      targets.push_back(rest & -rest);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  return targets;
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    MathOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
