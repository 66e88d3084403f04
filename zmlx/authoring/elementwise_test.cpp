// SPDX-License-Identifier: MIT
#include "zmlx/authoring/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "mlx/compile.h"
#include "zmlx/authoring/expect_close.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;

const char* const kMish = "x * tanh(log(1 + exp(x)))";

mx::array composed_mish(const mx::array& x) {
  return x * mx::tanh(mx::log(mx::array(1.0f) + mx::exp(x)));
}

mx::array sample(mx::Shape shape, float low = -3, float high = 3) {
  return mx::random::uniform(
      low, high, std::move(shape), mx::float32, mx::random::key(7));
}

// The gradient of the sum of f's result.
mx::array grad(
    const std::function<mx::array(const mx::array&)>& f,
    const mx::array& x) {
  return mx::grad([&](const mx::array& v) { return mx::sum(f(v)); })(x);
}

TEST(Elementwise, MatchesComposedOperations) {
  const auto mish = elementwise(kMish);
  for (const auto& shape :
       {mx::Shape{},
        mx::Shape{1},
        mx::Shape{17},
        mx::Shape{3, 5, 7},
        mx::Shape{2, 1, 1, 1, 3},
        mx::Shape{100'003}}) {
    const auto x = sample(shape);
    expect_close(mish(x), composed_mish(x), 4e-6f);
  }
}

TEST(Elementwise, TellsNanFromNumbers) {
  std::vector<float> values(37, 1.0f);
  values[3] = values[30] = NAN;
  values[4] = INFINITY;
  const mx::array x(values.begin(), {37});
  const mx::array expected = mx::astype(mx::isnan(x), mx::float32);
  for (const char* text : {"isnan(x) ? 1.0f : 0.0f", "x != x ? 1.0f : 0.0f"}) {
    mx::array same = mx::array_equal(elementwise(text)(x), expected);
    EXPECT_TRUE(same.item<bool>()) << text;
  }
}

TEST(Elementwise, TakesEmptyArrays) {
  const auto mish = elementwise(kMish);
  EXPECT_EQ(mish(mx::zeros({0})).shape(), mx::Shape{0});
  const auto y = mish(mx::zeros({3, 0, 2}));
  mx::eval(y);
  EXPECT_EQ(y.shape(), (mx::Shape{3, 0, 2}));
  EXPECT_EQ(grad(mish, mx::zeros({0, 4})).shape(), (mx::Shape{0, 4}));
}

TEST(Elementwise, KeepsTheFloatTypeOfItsInputs) {
  const auto twice = elementwise("x * 2 + 0.125f");
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    const auto x = mx::astype(sample({300}), dtype);
    const auto wide =
        mx::astype(x, mx::float32) * mx::array(2.0f) + mx::array(0.125f);
    expect_close(twice(x), mx::astype(wide, dtype), 0);
  }
  const auto sum = binary("sum", "a + b");
  EXPECT_EQ(
      sum(mx::zeros({2}, mx::float16), mx::zeros({2}, mx::bfloat16)).dtype(),
      mx::float32);
  EXPECT_EQ(
      sum(mx::zeros({2}, mx::float16), mx::zeros({2}, mx::int32)).dtype(),
      mx::float16);
}

TEST(Elementwise, ReadsIntegersAsFloats) {
  const auto half = elementwise("x / 2");
  for (const auto dtype :
       {mx::int8,
        mx::uint8,
        mx::int16,
        mx::uint16,
        mx::int32,
        mx::uint32,
        mx::int64,
        mx::uint64}) {
    expect_close(
        half(mx::array({1, 2, 7}, dtype)), mx::array({0.5f, 1.0f, 3.5f}));
  }
  expect_close(half(mx::array({true, false})), mx::array({0.5f, 0.0f}));
}

TEST(Elementwise, BroadcastsAndTakesAnyStrides) {
  const auto f = binary("f", "a * b + x");
  const auto a = sample({4, 1, 5}), b = sample({3, 1});
  expect_close(f(a, b), a * b + a);
  const auto wide = sample({6, 8});
  const auto part = mx::slice(wide, {1, 7}, {6, -9}, {2, -3});
  const auto turned = mx::transpose(sample({3, 3}));
  expect_close(f(part, turned), part * turned + part);
  const auto row = mx::broadcast_to(sample({3}), {4, 3});
  expect_close(f(row, sample({4, 3})), row * sample({4, 3}) + row);
}

TEST(Elementwise, DoesNotOverwriteWhatOthersHold) {
  const auto twice = elementwise("x * 2");
  const auto x = mx::array({1.0f, 2.0f});
  const auto y = twice(x);
  expect_close(y, mx::array({2.0f, 4.0f}));
  expect_close(x, mx::array({1.0f, 2.0f}));
  expect_close(twice(twice(twice(x + x))), mx::array({16.0f, 32.0f}));
  const auto both = binary("both", "a - b");
  const auto z = x + x;
  expect_close(both(z, z), mx::array({0.0f, 0.0f}));
}

TEST(Elementwise, PropagatesNanAndInfinity) {
  const auto values = mx::array({NAN, INFINITY, -INFINITY, 0.0f, -0.0f});
  expect_close(
      elementwise("exp(x) + x")(values),
      mx::array({NAN, INFINITY, -INFINITY, 1.0f, 1.0f}));
  expect_close(
      elementwise("1 / x")(values),
      mx::array({NAN, 0.0f, -0.0f, INFINITY, -INFINITY}));
}

TEST(Elementwise, DifferentiatesAsComposedOperations) {
  const auto mish = elementwise(kMish);
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    const auto x = mx::astype(sample({5, 9}), dtype);
    const auto wide = mx::astype(x, mx::float32);
    const float tolerance = dtype == mx::float32 ? 1e-5f
        : dtype == mx::float16                   ? 2e-3f
                                                 : 1e-2f;
    expect_close(
        grad(mish, x), mx::astype(grad(composed_mish, wide), dtype), tolerance);
  }
}

TEST(Elementwise, SumsGradientsOverBroadcastAxes) {
  const auto f = map("f", "a * tanh(b) + c * c", {"a", "b", "c"});
  const auto composed = [](const Arrays& in) {
    return mx::sum(in[0] * mx::tanh(in[1]) + in[2] * in[2]);
  };
  const Arrays in = {sample({4, 1, 3}), sample({2, 1}), sample({})};
  const auto ours =
      mx::grad([&](const Arrays& v) { return mx::sum(f(v)); }, {0, 1, 2})(in);
  const auto theirs = mx::grad(
      std::function<mx::array(const Arrays&)>(composed), {0, 1, 2})(in);
  for (int i = 0; i < 3; ++i) {
    expect_close(ours[i], theirs[i], 1e-5f);
  }
}

TEST(Elementwise, HasSecondAndThirdDerivatives) {
  const auto f = elementwise("exp(x) * sin(x)");
  const auto x = sample({11}, -1, 1);
  const auto first = [&](const mx::array& v) { return grad(f, v); };
  const auto second = [&](const mx::array& v) { return grad(first, v); };
  const auto e = mx::exp(x), two = mx::array(2.0f);
  expect_close(second(x), two * e * mx::cos(x), 1e-5f);
  expect_close(grad(second, x), two * e * (mx::cos(x) - mx::sin(x)), 1e-5f);
}

TEST(Elementwise, PushesTangentsForward) {
  const auto f = binary("f", "a * exp(b)");
  const auto a = sample({3, 1}), b = sample({2});
  const auto da = sample({3, 1}, 0, 1), db = sample({2}, 0, 1);
  const auto [value, tangent] = mx::jvp(
      [&](const Arrays& in) { return Arrays{f(in)}; }, {a, b}, {da, db});
  expect_close(value[0], a * mx::exp(b));
  expect_close(tangent[0], mx::exp(b) * (da + a * db), 1e-5f);
}

TEST(Elementwise, VectorizesOverAnyAxis) {
  const auto f = binary("f", "a - 2 * b");
  const auto b = sample({5, 3, 4});
  const auto two = mx::array(2.0f);
  const auto g =
      mx::vmap([&](const Arrays& in) { return Arrays{f(in)}; }, {0, 2}, {1});
  expect_close(
      g({sample({4, 3}), b})[0],
      mx::moveaxis(
          mx::expand_dims(sample({4, 3}), 1) - two * mx::moveaxis(b, 2, 0),
          0,
          1));
}

TEST(Elementwise, VectorizesWithAnInputHeldFixed) {
  const auto f = binary("f", "a * b");
  const auto a = sample({4, 3}), b = sample({3});
  const auto g =
      mx::vmap([&](const Arrays& in) { return Arrays{f(in)}; }, {0, -1}, {0});
  expect_close(g({a, b})[0], a * b);
  const auto slope = mx::vmap(
      [&](const Arrays& in) {
        return Arrays{
            grad([&](const mx::array& v) { return f(v, in[1]); }, in[0])};
      },
      {0, -1},
      {0});
  expect_close(slope({a, b})[0], mx::broadcast_to(b, {4, 3}));
}

TEST(Elementwise, WorksInsideCompile) {
  const auto mish = elementwise(kMish);
  const auto twice =
      mx::compile(std::function<Arrays(const Arrays&)>([&](const Arrays& in) {
        return Arrays{mish(in[0]) + mish(in[0]), grad(mish, in[0])};
      }));
  for (const int size : {3, 3, 50}) {
    const auto x = sample({size});
    const auto got = twice({x});
    expect_close(got[0], composed_mish(x) + composed_mish(x), 1e-5f);
    expect_close(got[1], grad(composed_mish, x), 1e-5f);
  }
  const auto shapeless = mx::compile(
      std::function<Arrays(const Arrays&)>(
          [&](const Arrays& in) { return Arrays{mish(in[0])}; }),
      true);
  for (const int size : {3, 50}) {
    const auto x = sample({size});
    expect_close(shapeless({x})[0], composed_mish(x), 1e-5f);
  }
}

TEST(Elementwise, TakesGivenGradients) {
  const auto tripled = elementwise(
      "tanh(x)",
      {.grad_expr = {"s * (1 - y * y) + 0 * x"},
       .grad_prelude = "float s = 3 * g;"});
  const auto x = sample({20});
  const auto three = mx::array(3.0f), one = mx::array(1.0f);
  const auto y = mx::tanh(x);
  expect_close(grad(tripled, x), three * (one - y * y), 1e-5f);
  const auto slope = [&](const mx::array& v) { return grad(tripled, v); };
  expect_close(grad(slope, x), mx::array(-6.0f) * y * (one - y * y), 1e-5f);
  const auto tangent = mx::jvp(tripled, x, mx::full({20}, 2.0f)).second;
  expect_close(tangent, mx::array(6.0f) * (one - y * y), 1e-5f);

  const auto product =
      binary("product", "a * b", {.grad_expr = {"g * b", "2 * g * a"}});
  const auto got =
      mx::grad([&](const Arrays& in) { return mx::sum(product(in)); }, {0, 1})(
          Arrays{x, y});
  expect_close(got[0], y);
  expect_close(got[1], mx::array(2.0f) * x);
}

TEST(Elementwise, TakesHelpersFromAHeader) {
  const auto f = elementwise(
      "square(x) + 1",
      {.header = "inline float square(float v) { return v * v; }"});
  const auto x = sample({9});
  expect_close(f(x), x * x + mx::array(1.0f));
  expect_close(grad(f, x), mx::array(2.0f) * x);
}

TEST(Jit, CompilesAFunction) {
  const auto f =
      jit("float poly(float x, float y) {\n"
          "  float s = 0;\n"
          "  for (int i = 0; i < 3; ++i) { s = s * x + y; }\n"
          "  if (x < 0) { s = -s; }\n"
          "  return s;\n"
          "}");
  EXPECT_EQ(f.input_names(), (std::vector<std::string>{"x", "y"}));
  const auto x = sample({50}), y = sample({50}, 1, 2);
  const auto s = (y * x + y) * x + y;
  expect_close(f(x, y), mx::where(x < mx::array(0.0f), -s, s), 1e-5f);
  EXPECT_EQ(
      error([] { jit("float f() { return 1; }"); }),
      "[jit] a function must have at least 1 parameter, got 0.");
  EXPECT_EQ(
      error([] { jit(""); }),
      "[jit] the text must define a function, got none.");
}

TEST(Elementwise, PrintsItselfAndItsGradient) {
  const auto f = elementwise("x / (1 + exp(-x)) * 1");
  EXPECT_EQ(f.text(), "x * kk_sigmoid(x)");
  EXPECT_EQ(elementwise("x * x").gradient_text(), "g * (x + x)");
  EXPECT_EQ(
      error([&] { f.gradient_text(1); }),
      "[elementwise] input must be 0..0, got 1.");
}

// As it is written, 1 + exp(x) loses the small exp(x).
TEST(Elementwise, KeepsSmallValuesOfTanhOfSoftplus) {
  const std::vector<float> x = {
      -80, -20, -9, -1, 0, 0.5f, 3, 10, 12, 40, 200, INFINITY, -INFINITY, NAN};
  const mx::array in(x.begin(), {static_cast<int>(x.size())});
  for (const char* text : {"tanh(log(1 + exp(x)))", "tanh(log1p(exp(x)))"}) {
    const auto got = elementwise(text)(in);
    mx::eval(got);
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = std::tanh(std::log1p(std::exp(double{x[i]})));
      EXPECT_TRUE(
          std::isnan(want)
              ? std::isnan(got.data<float>()[i])
              : std::abs(got.data<float>()[i] - want) <= 4e-7 * std::abs(want))
          << text << " of " << x[i] << ": " << got.data<float>()[i];
    }
  }
}

TEST(Elementwise, RejectsBadInput) {
  EXPECT_EQ(
      error([] { elementwise("x * tahn(x)", {.name = "mine"}); }),
      "[mine] functions must be Metal's, kk_ helpers or defined in header, "
      "got 'tahn' at column 5. Did you mean 'tanh'?\n"
      "  x * tahn(x)\n"
      "      ^~~~");
  const auto f = binary("f", "a + b");
  EXPECT_EQ(
      error([&] { f(mx::zeros({2})); }),
      "[f] the number of inputs must be 2, got 1.");
  EXPECT_EQ(
      error([&] { f(mx::zeros({2, 3}), mx::zeros({4})); }),
      "[f] input shapes must broadcast together, got (2,3) and (4).");
  EXPECT_EQ(
      error([&] { f(mx::zeros({2}), mx::zeros({2}, mx::complex64)); }),
      "[f] inputs must be real and at most 32 bits, got complex64.");
  EXPECT_EQ(
      error([&] {
        mx::vjp(
            [&](const Arrays& in) { return Arrays{f(in)}; },
            {mx::zeros({2}), mx::zeros({2}, mx::int32)},
            {mx::zeros({2})});
      }),
      "[f] a gradient needs a floating input, got int32 for input 1.");
  EXPECT_EQ(
      error([] { map("m", "1", {}); }),
      "[m] there must be at least 1 input name, got 0.");
  EXPECT_EQ(
      error([] { map("m", "a", {"a", "a"}); }),
      "[m] input names must differ, got 'a' twice.");
  EXPECT_EQ(
      error([] { binary("b", "a * b", {.grad_expr = {"g"}}); }),
      "[b] grad_expr must have one text for each of 2 inputs, got 1.");
  EXPECT_EQ(
      error([] { elementwise("x", {.grad_prelude = "float s = g;"}); }),
      "[elementwise] grad_prelude must come with grad_expr, got none.");
}

} // namespace
} // namespace zmlx
