// SPDX-License-Identifier: MIT
#include "zmlx/dialect/parse.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "zmlx/base/error.h"
#include "zmlx/dialect/print.h"
#include "zmlx/dialect/scalar.h"

namespace zmlx::dialect {
namespace {

// The value of a flat expression at the given inputs.
float run(const FlatExpression& flat, const std::vector<float>& inputs) {
  std::vector<uint32_t> lanes;
  for (const auto& step : flat.code) {
    if (step.op == Op::Constant) {
      lanes.push_back(step.bits);
    } else if (step.op == Op::Input) {
      lanes.push_back(std::bit_cast<uint32_t>(inputs[step.bits]));
    } else {
      uint32_t args[3] = {};
      for (int i = 0; i < arity(step.op); ++i) {
        args[i] = lanes[step.args[i]];
      }
      const Type type = flat.code[step.args[step.op == Op::Select]].type;
      lanes.push_back(evaluate(step.op, type, args[0], args[1], args[2]));
    }
  }
  return std::bit_cast<float>(lanes[flat.outputs[0]]);
}

FlatExpression flat(const std::string& text, const std::string& header = "") {
  return parse_expression(
      {"test", text}, {"x", "y"}, Functions({"test", header}));
}

float value(const std::string& text, float x = 0, float y = 0) {
  return run(flat(text), {x, y});
}

std::string error(const std::string& text, const std::string& header = "") {
  try {
    flat(text, header);
  } catch (const std::invalid_argument& failure) {
    return failure.what();
  }
  return "no error";
}

TEST(Parse, FollowsPrecedenceOfC) {
  EXPECT_EQ(value("2 + 3 * 4"), 14);
  EXPECT_EQ(value("(2 + 3) * 4"), 20);
  EXPECT_EQ(value("10 - 4 - 3"), 3);
  EXPECT_EQ(value("24 / 4 / 2"), 3);
  EXPECT_EQ(value("-x * -y", 2, 3), 6);
  EXPECT_EQ(value("- -x", 2), 2);
  EXPECT_EQ(value("1 + 2 < 4 && 3 > 2 || 0"), 1);
  EXPECT_EQ(value("x < y ? x : y < 0 ? 1 : 2", 5, 3), 2);
  EXPECT_EQ(value("6 & 3 == 3"), 0); // == binds tighter than &
  EXPECT_EQ(value("1 | 2 ^ 3 & 2"), 1);
  EXPECT_EQ(value("1 << 2 + 1"), 8);
  EXPECT_EQ(value("!x == 1", 0), 1);
  EXPECT_EQ(value("~0"), -1);
}

TEST(Parse, ComputesLiteralsAsTheirTypes) {
  EXPECT_EQ(value("x * (1 / 2)", 8), 0);
  EXPECT_EQ(value("x * (1 / 2.0)", 8), 4);
  EXPECT_EQ(value("x * 1 / 2", 7), 3.5f);
  EXPECT_EQ(value("7 % 3 + -7 % 3"), 0);
  EXPECT_EQ(value("7 / 0"), 0);
  EXPECT_EQ(value("0x10"), 16);
  EXPECT_EQ(value("0x1p-3f"), 0.125f);
  EXPECT_EQ(value("0x1.8p1"), 3);
  EXPECT_EQ(value("1e-3f"), 1e-3f);
  EXPECT_EQ(value(".5f + 1.f + 1F"), 2.5f);
  EXPECT_EQ(value("1e2"), 100);
  EXPECT_EQ(value("0.1h"), 0.0999755859375f);
  EXPECT_EQ(value("3u"), 3);
  EXPECT_EQ(value("0xffffffffu"), -1);
  EXPECT_EQ(value("true + true"), 2);
  EXPECT_EQ(value("2147483647 + 1"), -2147483648.0f);
}

TEST(Parse, Casts) {
  EXPECT_EQ(value("(float)x", 2.5f), 2.5f);
  EXPECT_EQ(value("float(1) / 2"), 0.5f);
  EXPECT_EQ(value("(T)1 / (T)4"), 0.25f);
  EXPECT_EQ(value("static_cast<float>(1) / 2"), 0.5f);
  EXPECT_EQ(value("(int)x / 2", 5.9f), 2);
  EXPECT_EQ(value("int(x)", -1.9f), -1);
  EXPECT_EQ(value("int(x)", 1e20f), 2147483648.0f);
  EXPECT_EQ(value("bool(x) + bool(y)", 0.5f, 0), 1);
  EXPECT_EQ(value("(half)x", 0.1f), 0.0999755859375f);
  EXPECT_EQ(value("bfloat16_t(x)", 1.00390625f), 1.0f);
  EXPECT_EQ(value("-(float)x", 2), -2);
}

TEST(Parse, CallsMetalFunctions) {
  EXPECT_EQ(value("metal::exp(x)", 0), 1);
  EXPECT_EQ(value("metal::precise::sqrt(x)", 9), 3);
  EXPECT_EQ(value("fast::sqrt(x)", 9), 3);
  EXPECT_EQ(value("max(1, 2) / 4"), 0); // ints stay ints
  EXPECT_EQ(value("max(1, 2.0f) / 4"), 0.5f);
  EXPECT_EQ(value("select(x, y, x > y)", 1, 2), 1);
  EXPECT_EQ(value("select(x, y, x < y)", 1, 2), 2);
  EXPECT_EQ(value("clamp(x, -1, 1)", 5), 1);
  EXPECT_EQ(value("mix(x, y, 0.25f)", 0, 4), 1);
  EXPECT_EQ(value("step(x, y)", 1, 1), 1);
  EXPECT_EQ(value("step(x, y)", 1, 0.5f), 0);
  EXPECT_EQ(value("smoothstep(0, 2, x)", 1), 0.5f);
  EXPECT_EQ(value("fmod(x, y)", -7, 3), -1);
  EXPECT_EQ(value("mad(x, y, 1)", 2, 3), 7);
  EXPECT_EQ(value("fract(x)", -0.25f), 0.75f);
  EXPECT_EQ(value("sign(x)", -3), -1);
  EXPECT_EQ(value("median3(x, y, 1.0f)", 0, 5), 1);
  EXPECT_EQ(value("ldexp(x, 127) * 2", 1), INFINITY);
  EXPECT_EQ(value("ldexp(x, -140)", std::ldexp(1.0f, 120)), 0x1p-20f);
  EXPECT_EQ(value("isnan(x) + isinf(x) * 2", INFINITY), 2);
  EXPECT_EQ(value("isnan(x)", NAN), 1);
  EXPECT_EQ(value("isfinite(x)", NAN), 0);
  EXPECT_EQ(value("signbit(x)", -0.0f), 1);
  EXPECT_EQ(value("fdim(x, y)", 5, 3), 2);
  EXPECT_TRUE(std::isnan(value("powr(x, 2)", -1)));
  EXPECT_EQ(value("expf(x) + fabsf(x)", 0), 1);
  EXPECT_EQ(value("max(x, NAN)", 3), 3);
  EXPECT_FLOAT_EQ(value("kk_silu(x)", 2), 2 / (1 + std::exp(-2.0f)));
  EXPECT_FLOAT_EQ(value("gelu(x)", 2), 1.9544997f);
  EXPECT_FLOAT_EQ(value("kk_gelu_tanh(x)", 2), 1.9545977f);
  EXPECT_EQ(value("softplus(x)", 200), 200);
  EXPECT_FLOAT_EQ(value("M_PI_F / M_PI"), 1);
  EXPECT_EQ(value("-INFINITY"), -INFINITY);
}

TEST(Parse, RunsStatements) {
  EXPECT_EQ(value("float t = x * x; t + 1", 3), 10);
  EXPECT_EQ(value("float t = x * x;\nreturn t + 1;", 3), 10);
  EXPECT_EQ(value("const auto t = 3; t / 2", 3), 1);
  EXPECT_EQ(value("int t = 5.5f; t *= 2.5f; return t;"), 12);
  EXPECT_EQ(
      value("float a = 1, b = 2; a -= b; b /= 4; ++a; a-- ; a + b"), -0.5f);
  EXPECT_EQ(value("// a comment\nx /* here */ + 1", 1), 2);
  EXPECT_EQ(value("float t = 1; { float t = 2; t += 1; } return t;"), 1);
  EXPECT_EQ(value("half t(0.1f); return t;"), 0.0999755859375f);
}

TEST(Parse, ChoosesBetweenBranches) {
  const std::string text =
      "float t = 0; if (x > 0) { t = x; } else if (x < -1) t = -1; t";
  EXPECT_EQ(value(text, 3), 3);
  EXPECT_EQ(value(text, -3), -1);
  EXPECT_EQ(value(text, -0.5f), 0);
  const std::string early =
      "if (x > 1) return 10; if (x > 0) { return 20.5f; } return x;";
  EXPECT_EQ(value(early, 2), 10);
  EXPECT_EQ(value(early, 0.5f), 20.5f);
  EXPECT_EQ(value(early, -4), -4);
}

TEST(Parse, UnrollsLoops) {
  EXPECT_EQ(
      value("float s = 0; for (int i = 0; i < 4; ++i) { s += x * i; } s", 2),
      12);
  EXPECT_EQ(
      value("float s = 1; for (int i = 3; i > 0; i -= 2) s *= x; return s;", 3),
      9);
  EXPECT_EQ(value("float s = x; for (int i = 0; i < 0; i++) s = 7; s", 5), 5);
  EXPECT_EQ(
      value(
          "for (int i = 0; i < 9; ++i) { if (i * 2 > x) return i; } return -1;",
          5),
      3);
}

TEST(Parse, InlinesFunctionsOfTheHeader) {
  const std::string header =
      "#include <metal_stdlib>\nusing namespace metal;\n"
      "template <typename T>\ninline T square(T v) { return v * v; }\n"
      "static float both(float a, int n) { float b = square(a); return b * n; }";
  EXPECT_EQ(run(flat("both(x, y)", header), {3, 2.9f}), 18);
}

TEST(Parse, SharesEqualParts) {
  const auto code = flat("exp(x) * exp(x) + (y + x) * (x + y)").code;
  int exps = 0, sums = 0;
  for (const auto& step : code) {
    exps += step.op == Op::Exp;
    sums += step.op == Op::Add;
  }
  EXPECT_EQ(exps, 1);
  EXPECT_EQ(sums, 2);
}

TEST(Parse, SimplifiesOnlyWhatKeepsTheValue) {
  EXPECT_EQ(flat("x * 1 + (-0.0f)"), flat("x"));
  EXPECT_EQ(flat("-(-x) / 1"), flat("x"));
  EXPECT_EQ(flat("x - (-y)"), flat("x + y"));
  EXPECT_EQ(flat("x / 4"), flat("x * 0.25f"));
  EXPECT_EQ(flat("pow(x, 2)"), flat("x * x"));
  EXPECT_EQ(flat("1 / (1 + exp(-x))"), flat("sigmoid(x)"));
  EXPECT_EQ(flat("exp(x) / (exp(x) + 1)"), flat("sigmoid(x)"));
  EXPECT_TRUE(std::isnan(value("x * 0", NAN)));
  EXPECT_TRUE(std::isnan(value("x - x", INFINITY)));
  EXPECT_EQ(1 / value("x + 0", -0.0f), INFINITY); // -0 + 0 = +0
}

TEST(Parse, PointsAtUnknownNames) {
  EXPECT_EQ(
      error("x * tnh(x)"),
      "[test] functions must be Metal's, kk_ helpers or defined in header, "
      "got 'tnh' at column 5. Did you mean 'tanh'?\n"
      "  x * tnh(x)\n"
      "      ^~~");
  EXPECT_EQ(
      error("x + qqqq"),
      "[test] names must be inputs, locals or constants, got 'qqqq' at "
      "column 5. Names here: x, y.\n"
      "  x + qqqq\n"
      "      ^~~~");
  EXPECT_EQ(
      error("float t = x;\nreturn t * u;"),
      "[test] names must be inputs, locals or constants, got 'u' at line 2, "
      "column 12. Names here: x, y, t.\n"
      "  return t * u;\n"
      "             ^");
}

TEST(Parse, PointsAtWrongUse) {
  const auto expect = [](const std::string& text, const std::string& part) {
    const std::string message = error(text);
    EXPECT_NE(message.find(part), std::string::npos) << text << "\n" << message;
  };
  expect("exp(x, y)", "exp() must have 1 argument but has 2, got 'exp'");
  expect("clamp(x)", "clamp() must have 3 arguments but has 1");
  expect("x +", "a value must come here, got the end of the text at column 4");
  expect("", "every path must end in a value or return");
  expect("(x", "')' must come here");
  expect("x y", "an operator or the end of the statement must come here");
  expect("x; y", "a value must be used or be the last statement");
  expect("x % 2", "both operands must be int, got '%' at column 3. Try: fmod");
  expect("x | 2", "both operands must be int");
  expect("~x", "the operand must be int");
  expect("(uint)x", "types must be float, half, bfloat, int, bool or T");
  expect("double(x)", "types must be");
  expect("1.2.3", "a literal must be a number");
  expect("1e99f", "a literal must fit a float");
  expect("12abc", "a literal must be a number");
  expect("4294967296", "an int literal must fit 32 bits");
  expect("3000000000", "an int literal must fit 32 bits");
  expect("x = 2; x", "what is assigned must be a local variable");
  expect("const float t = 1; t = 2; t", "must be a local variable");
  expect("if (x > 0) return 1;", "every path must end in a value or return");
  expect("while (x) {}", "statements must be if, for, return");
  expect("for (int i = 0; i < x; ++i) {} x", "loop bounds must be known");
  expect("for (int i = 0; i < 1; ) {} x", "must take at most 100000 steps");
  expect("float t; t", "a declaration must give a value");
  expect("float x2 = 1; { float z = 1; } z", "got 'z'");
  expect("x @ y", "an operator or the end of the statement must come here");
  expect("\xff", "got '?'");
  expect("sqrt", "names must be inputs, locals or constants, got 'sqrt'");
  expect("a.x", "names must be");
}

TEST(Parse, EndsOnTextsWithoutEnd) {
  EXPECT_NE(error(std::string(5000, '(')).find("nesting"), std::string::npos);
  EXPECT_NE(
      error(std::string(5000, '!') + "x").find("nesting"), std::string::npos);
  EXPECT_NE(
      error("f(x)", "float f(float a) { return f(a); }").find("nesting"),
      std::string::npos);
  std::string header = "float f0(float a) { return a + 1; }";
  for (int i = 1; i < 20; ++i) {
    header += concat(
        "float f", i, "(float a) { return f", i - 1, "(f", i - 1, "(a)); }");
  }
  EXPECT_NE(error("f19(x)", header).find("steps"), std::string::npos);
}

TEST(Parse, ChecksNamesOfInputs) {
  const auto names = [](const std::vector<std::string>& list) {
    return [list] { check_names("test", list); };
  };
  EXPECT_NO_THROW(names({"x", "x_1"})());
  EXPECT_THROW(names({"1x"})(), std::invalid_argument);
  EXPECT_THROW(names({""})(), std::invalid_argument);
  EXPECT_THROW(names({"a b"})(), std::invalid_argument);
  EXPECT_THROW(names({"x", "x"})(), std::invalid_argument);
  EXPECT_THROW(names({"float"})(), std::invalid_argument);
  EXPECT_THROW(names({"return"})(), std::invalid_argument);
}

TEST(Print, ReadsBackToTheSameProgram) {
  const std::vector<std::string> names = {"x", "y"};
  for (const std::string text :
       {"x",
        "-x * -(y - 1)",
        "x - (y - 1) / (x / y) + -3.5f",
        "x < y ? x : (y < 0.1f ? -x : 2e-30f)",
        "!(x < y && y <= 3) || x == y ? INFINITY : -INFINITY",
        "(x < y) ^ (y < 1) ? NAN : 1",
        "int(x) / 3 % 5 << 2 >> 1 & 7 | 8 ^ ~int(y)",
        "int(x) + (-2147483647 - 1)",
        "min(int(x), 3) + abs(int(y)) + bool(x)",
        "float t = exp(x); t * t + half(t) - bfloat(y)",
        "pow(x, y) + atan2(x, y) + fmod(x, y) + copysign(x, y) + fma(x, y, 1)",
        "exp2(x) + exp10(x) + expm1(x) + log2(x) + log10(x) + log1p(x)",
        "sin(x) + cos(x) + tan(x) + sinpi(x) + cospi(x) + tanpi(x)",
        "asin(x) + acos(x) + atan(x) + sinh(x) + cosh(x) + tanh(x)",
        "asinh(x) + acosh(x) + atanh(x) + sqrt(x) + rsqrt(x) + log(x)",
        "floor(x) + ceil(x) + round(x) + rint(x) + trunc(x) + fract(x)",
        "sign(x) + erf(x) + erfc(x) + sigmoid(x) + abs(x) + max(x, y)"}) {
    const auto once = flat(text);
    const std::string printed = print(once, names);
    EXPECT_EQ(flat(printed), once) << text << "\n" << printed;
  }
}

} // namespace
} // namespace zmlx::dialect
