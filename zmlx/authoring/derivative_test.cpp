// SPDX-License-Identifier: MIT
// Symbolic derivatives against differences of the same expression in float64.
#include "zmlx/dialect/derivative.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/print.h"
#include "zmlx/runtime/expression_oracle.h"

namespace zmlx {
namespace {

using dialect::FlatExpression;
using dialect::Op;
using dialect::Type;

// An expression in double; Int and Bool lanes are whole numbers in double.
double evaluate(const FlatExpression& flat, const std::vector<double>& inputs) {
  std::vector<double> lanes;
  for (const auto& step : flat.code) {
    const auto in = [&](int i) { return lanes[step.args[i]]; };
    switch (step.op) {
      case Op::Constant:
        lanes.push_back(
            step.type == Type::Float
                ? double{step.as_float()}
                : double{
                      step.type == Type::Int ? 1.0 * step.as_int()
                                             : 1.0 * step.bits});
        break;
      case Op::Input:
        lanes.push_back(inputs[step.bits]);
        break;
      case Op::Less:
        lanes.push_back(in(0) < in(1));
        break;
      case Op::LessEqual:
        lanes.push_back(in(0) <= in(1));
        break;
      case Op::Equal:
        lanes.push_back(in(0) == in(1));
        break;
      case Op::NotEqual:
        lanes.push_back(in(0) != in(1));
        break;
      case Op::And:
        lanes.push_back(in(0) != 0 && in(1) != 0);
        break;
      case Op::Select:
        lanes.push_back(in(0) != 0 ? in(1) : in(2));
        break;
      case Op::ToFloat:
      case Op::RoundHalf:
      case Op::RoundBfloat:
        lanes.push_back(in(0));
        break;
      case Op::ToInt:
        lanes.push_back(std::trunc(in(0)));
        break;
      case Op::Fma:
        lanes.push_back(in(0) * in(1) + in(2));
        break;
      default:
        lanes.push_back(
            step.args[1] < 0 ? oracle::unary(step.op, in(0))
                             : oracle::binary(step.op, in(0), in(1)));
    }
  }
  return lanes[flat.outputs[0]];
}

FlatExpression parse(const std::string& text) {
  return dialect::parse_expression({"test", text}, {"x", "y"});
}

FlatExpression slope_of(const FlatExpression& flat, int input) {
  return dialect::vjp_of(flat, std::vector<int>{input});
}

// Fourth-order central difference.
double difference(const std::function<double(double)>& f, double at) {
  const double h = 1e-3 * std::max(1e-2, std::abs(at));
  return (8 * (f(at + h) - f(at - h)) - (f(at + 2 * h) - f(at - 2 * h))) /
      (12 * h);
}

void expect_slopes(
    const std::string& text,
    const std::vector<std::pair<double, double>>& points) {
  const auto flat = parse(text);
  for (int input = 0; input < 2; ++input) {
    const auto slope = slope_of(flat, input);
    const auto second = slope_of(slope, input);
    for (const auto& [x, y] : points) {
      std::vector<double> at = {x, y};
      const auto along = [&](const FlatExpression& f, double cotangent) {
        return difference(
            [&](double value) {
              auto moved = at;
              moved[input] = value;
              moved.push_back(cotangent);
              return evaluate(f, moved);
            },
            at[input]);
      };
      const std::vector<double> seeded = {x, y, 0.5, 1.0};
      const double first = evaluate(slope, seeded) / 0.5;
      const double wanted = along(flat, 1.0);
      EXPECT_NEAR(first, wanted, 2e-6 * (1 + std::abs(wanted)))
          << text << " by input " << input << " at " << x << ", " << y;
      const double curve = evaluate(second, seeded);
      const double wanted_curve = along(slope, 0.5);
      EXPECT_NEAR(curve, wanted_curve, 2e-5 * (1 + std::abs(wanted_curve)))
          << text << " twice by input " << input << " at " << x << ", " << y;
    }
  }
}

using Points = std::vector<std::pair<double, double>>;
const Points kAnywhere =
    {{-1.7, 0.4}, {-0.31, -2.2}, {0.27, 1.3}, {1.9, -0.6}, {3.3, 2.1}};
const Points kPositive = {{0.13, 0.7}, {0.9, 2.2}, {2.7, 0.31}, {14.0, 1.9}};
const Points kUnit = {{-0.83, 0.2}, {-0.12, 0.3}, {0.35, -0.6}, {0.71, 0.9}};

TEST(Derivative, MatchesDifferencesForEveryFunction) {
  for (const std::string name :
       {"abs",   "exp",   "exp2",  "exp10",    "expm1",     "sin",     "cos",
        "sinpi", "cospi", "atan",  "sinh",     "cosh",      "tanh",    "asinh",
        "floor", "ceil",  "round", "rint",     "trunc",     "fract",   "sign",
        "erf",   "erfc",  "half",  "bfloat",   "sigmoid",   "silu",    "gelu",
        "tan",   "relu",  "int",   "softplus", "gelu_tanh", "saturate"}) {
    expect_slopes(name + "(x)", kAnywhere);
  }
  for (const std::string name :
       {"log", "log2", "log10", "log1p", "sqrt", "rsqrt"}) {
    expect_slopes(name + "(x)", kPositive);
  }
  for (const std::string name : {"asin", "acos", "atanh", "tanpi"}) {
    expect_slopes(name + "(x * 0.45f)", kUnit);
  }
  expect_slopes("acosh(x + 1)", kPositive);
}

TEST(Derivative, MatchesDifferencesForEveryOperator) {
  for (const std::string text :
       {"x + y * x",
        "x - y - x * x",
        "x / y",
        "-(x * y) / (1 + x * x)",
        "max(x, y) * min(x, y * y)",
        "x < y ? x * x : y * x",
        "fma(x, y, x)",
        "atan2(x, y)",
        "fmod(x, y)",
        "copysign(x, y)",
        "clamp(x, -1, y * y) + mix(x, y, 0.3f)",
        "x * step(0.1f, y) + smoothstep(-2, 4, x)",
        "fdim(x, y) + median3(x, y, 0.5f)",
        "x > 0 && y > 0 ? x * y : x - y",
        "float t = exp(x * 0.3f); for (int i = 0; i < 3; ++i) t = t * y + x; t",
        "ldexp(x, 3) * pow(x, 3) + pow(x * x, 1.5f)"}) {
    expect_slopes(text, kAnywhere);
  }
  expect_slopes("pow(x, y)", kPositive);
  expect_slopes("powr(x, y)", kPositive);
}

float at(const std::string& text, float x, float y = 0, int input = 0) {
  const float inputs[] = {x, y, 1.0f};
  const auto slope = slope_of(parse(text), input);
  return std::bit_cast<float>(oracle::run(slope, inputs)[slope.outputs[0]]);
}

TEST(Derivative, TakesTheSideOfTiesThatMlxTakes) {
  EXPECT_EQ(at("max(x, 0.0f)", 0), 0);
  EXPECT_EQ(at("max(0.0f, x)", 0), 1);
  EXPECT_EQ(at("min(x, y)", 2, 2, 0), 0);
  EXPECT_EQ(at("min(x, y)", 2, 2, 1), 1);
  EXPECT_EQ(at("abs(x)", 0), 0);
  EXPECT_EQ(at("clamp(x, 0, 1)", 0), 0);
  EXPECT_EQ(at("clamp(x, 0, 1)", 1), 0);
}

TEST(Derivative, StaysFiniteWhereTheValueSaturates) {
  EXPECT_EQ(at("log(1 + exp(x))", 200), 1);
  EXPECT_EQ(at("log(1 + exp(x))", -200), 0);
  EXPECT_EQ(at("x * tanh(log(1 + exp(x)))", 200), 1);
  EXPECT_EQ(at("1 / (1 + exp(-x))", -200), 0);
  EXPECT_EQ(at("x > 0 ? sqrt(x) : 0.0f", -1), 0);
  EXPECT_EQ(at("pow(x, 2)", 0), 0);
  EXPECT_EQ(at("pow(x, 0)", 0), 0);
  EXPECT_EQ(at("pow(x, y)", 0, 2, 1), 0);
}

TEST(Derivative, OfSiluStaysSmall) {
  const auto flat = parse("x * kk_sigmoid(x)");
  EXPECT_EQ(
      dialect::print(
          slope_of(flat, 0), std::vector<std::string>{"x", "y", "g"}),
      "const float t1 = kk_sigmoid(x);\n"
      "return g * (t1 + x * (t1 * (1.0f - t1)));");
}

TEST(Derivative, ForwardAgreesWithReverse) {
  const auto flat = parse("x * exp(y) + sin(x * y)");
  const auto reverse = dialect::vjp_of(flat, std::vector<int>{0, 1});
  const auto forward = dialect::jvp_of(flat, std::vector<int>{0, 1});
  ASSERT_EQ(reverse.outputs.size(), 2u);
  auto by_x = reverse, by_y = reverse;
  by_y.outputs = {reverse.outputs[1]};
  const double x = 0.7, y = -0.4, dx = 0.3, dy = 1.9;
  EXPECT_NEAR(
      evaluate(forward, {x, y, dx, dy}),
      dx * evaluate(by_x, {x, y, 1}) + dy * evaluate(by_y, {x, y, 1}),
      1e-12);
}

} // namespace
} // namespace zmlx
