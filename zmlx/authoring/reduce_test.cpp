// SPDX-License-Identifier: MIT
#include "zmlx/authoring/reduce.h"

#include <gtest/gtest.h>

#include <cmath>

#include "mlx/compile.h"
#include "zmlx/authoring/expect_close.h"
#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/row_graph.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;
using Function = std::function<mx::array(const mx::array&)>;

mx::array sample(mx::Shape shape, float low = -2, float high = 2) {
  return mx::random::uniform(
      low, high, std::move(shape), mx::float32, mx::random::key(3));
}

// The gradient of sum(f(x) * weights), weights being unlike one another.
mx::array grad(const Function& f, const mx::array& x) {
  return mx::grad([&](const mx::array& v) {
    const auto y = f(v);
    const auto weights = mx::astype(
        mx::sin(
            mx::reshape(
                mx::arange(static_cast<double>(y.size()), mx::float32),
                y.shape())),
        y.dtype());
    return mx::sum(y * weights);
  })(x);
}

RowOperation softmax(int axis = -1) {
  return map_reduce(
      {.pass1 = {"-INFINITY", "max(acc1, x)", "max(a, b)"},
       .pass2 = {"0.0f", "acc2 + exp(x - s1)", "a + b"},
       .write = "exp(x - s1) / s2",
       .name = "softmax",
       .axis = axis});
}

TEST(Reduce, SumsMultipliesAndFindsExtremes) {
  const auto x = sample({3, 4, 57});
  expect_close(
      reduce({.init = "0", .update = "acc + v"})(x), mx::sum(x, -1), 2e-5f);
  expect_close(reduce({.init = "1", .update = "acc * v"})(x), mx::prod(x, -1));
  expect_close(
      reduce({.init = "-INFINITY", .update = "max(acc, v)"})(x),
      mx::max(x, -1));
  expect_close(
      reduce({.init = "INFINITY", .update = "v < acc ? v : acc"})(x),
      mx::min(x, -1));
  expect_close(
      reduce(
          {.init = "0.0f",
           .update = "acc + v * v",
           .finalize = "sqrt(acc / D)"})(x),
      mx::sqrt(mx::mean(mx::square(x), -1)));
  expect_close(
      reduce({.init = "3", .update = "fma(v, v, acc) - 1", .finalize = "s"})(x),
      mx::array(3.0f) + mx::sum(mx::square(x) - mx::array(1.0f), -1),
      2e-5f);
}

TEST(Reduce, FollowsTheOrderOfTheRowWhereItMust) {
  const auto decay = reduce({.init = "0", .update = "0.5f * acc + v"});
  expect_close(
      decay(mx::array({1.0f, 2.0f, 3.0f, 8.0f, 8.0f, 8.0f}, {2, 3})),
      mx::array({4.25f, 14.0f}));
}

TEST(Reduce, DifferentiatesUpdatesInOrder) {
  const auto decay =
      reduce({.init = "0", .update = "0.5f * acc + v * v", .axis = 0});
  const auto x = sample({6, 3});
  const auto powers = mx::reshape(
      mx::array({0.03125f, 0.0625f, 0.125f, 0.25f, 0.5f, 1.0f}), {6, 1});
  const Function composed = [&](const mx::array& v) {
    return mx::sum(powers * mx::square(v), 0);
  };
  expect_close(decay(x), composed(x));
  expect_close(grad(decay, x), grad(composed, x));
  const auto twice = [&](const Function& f) {
    return grad([&](const mx::array& v) { return grad(f, v); }, x);
  };
  expect_close(twice(decay), twice(composed));
  const auto dx = sample({6, 3}, 0, 1);
  expect_close(mx::jvp(decay, x, dx).second, mx::jvp(composed, x, dx).second);
  const auto each = [&](const Function& f) {
    return mx::vmap([&](const mx::array& v) { return grad(f, v); })(
        sample({4, 6, 3}));
  };
  expect_close(each(decay), each(composed));
  // Longer than the pieces that rows are cut into.
  const auto far = mx::reshape(
      mx::power(mx::array(0.5f), mx::arange(129.0, -1.0, -1.0)), {130, 1});
  const auto z = sample({130, 2});
  expect_close(
      grad(decay, z),
      grad(
          [&](const mx::array& v) { return mx::sum(far * mx::square(v), 0); },
          z));
  // One total in order among others, which its value and the result use.
  const auto mixed = map_reduce(
      {.pass1 = {"0", "acc1 + x"},
       .pass2 = {"1", "acc2 * 0.5f + x * s1"},
       .write = "x * s2 / D"});
  const auto sums = [](const mx::array& v) { return mx::sum(v, -1, true); };
  const auto steps = mx::array({0.125f, 0.25f, 0.5f, 1.0f});
  const Function stock = [&](const mx::array& v) {
    return v * (mx::array(0.0625f) + sums(v) * sums(v * steps)) /
        mx::array(4.0f);
  };
  const auto y = sample({3, 4});
  expect_close(mixed(y), stock(y));
  expect_close(grad(mixed, y), grad(stock, y));
  EXPECT_EQ(
      error([&] { grad(decay, mx::zeros({16385, 1})); }),
      "[reduce] a gradient of an update that is no sum, product, minimum or "
      "maximum needs rows of at most 16384 elements, got 16385.");
}

TEST(Reduce, TakesAnyAxisShapeAndType) {
  const auto total = reduce({.init = "0", .update = "acc + v"});
  EXPECT_EQ(total(sample({7})).shape(), mx::Shape{});
  const auto middle =
      reduce({.init = "0", .update = "acc + v", .axis = 1, .keepdims = true});
  const auto x = sample({4, 5, 6});
  expect_close(middle(x), mx::sum(x, 1, true));
  const auto turned = mx::transpose(x, {2, 0, 1});
  expect_close(total(turned), mx::sum(turned, -1));
  for (const auto dtype : {mx::float16, mx::bfloat16}) {
    const auto y = mx::astype(x, dtype);
    expect_close(
        total(y),
        mx::astype(mx::sum(mx::astype(y, mx::float32), -1), dtype),
        1e-2f);
  }
  expect_close(total(mx::array({1, 2, 3})), mx::array(6.0f));
  expect_close(total(mx::array({true, true, false})), mx::array(2.0f));
}

TEST(Reduce, OfNothingIsItsStart) {
  const auto total = reduce({.init = "2", .update = "acc + v"});
  expect_close(total(mx::zeros({3, 0})), mx::full({3}, 2.0f));
  EXPECT_EQ(total(mx::zeros({0, 3})).shape(), mx::Shape{0});
  mx::eval(total(mx::zeros({0, 3})));
}

TEST(Reduce, TakesSeveralInputs) {
  const auto dot =
      reduce({.init = "0", .update = "acc + a * b", .inputs = {"a", "b"}});
  const auto a = sample({3, 4, 9}), b = sample({4, 1});
  const auto composed = [&](const Arrays& in) {
    return mx::sum(in[0] * in[1], -1);
  };
  expect_close(dot(a, b), composed({a, b}));
  const auto weigh = [](const mx::array& y) {
    return mx::sum(y * mx::sin(mx::reshape(mx::arange(12.0), {3, 4})));
  };
  const auto ours = mx::grad(
      [&](const Arrays& in) { return weigh(dot(in)); }, {0, 1})(Arrays{a, b});
  const auto theirs =
      mx::grad([&](const Arrays& in) { return weigh(composed(in)); }, {0, 1})(
          Arrays{a, b});
  expect_close(ours[0], theirs[0]);
  expect_close(ours[1], theirs[1]);
}

TEST(Reduce, DifferentiatesAsComposedOperations) {
  const auto x = sample({5, 33});
  const auto check = [&](const ReduceSpec& spec, const Function& composed) {
    expect_close(grad(reduce(spec), x), grad(composed, x), 2e-5f);
  };
  check({.init = "0", .update = "acc + sin(v)"}, [](const mx::array& v) {
    return mx::sum(mx::sin(v), -1);
  });
  check(
      {.init = "0", .update = "acc + v * v", .finalize = "sqrt(acc / D)"},
      [](const mx::array& v) { return mx::sqrt(mx::mean(mx::square(v), -1)); });
  check(
      {.init = "-1e30f", .update = "max(acc, v * v)"},
      [](const mx::array& v) { return mx::max(mx::square(v), -1); });
  check(
      {.init = "1", .update = "acc * v", .finalize = "acc * acc"},
      [](const mx::array& v) { return mx::square(mx::prod(v, -1)); });
  check(
      {.init = "0", .update = "if (v > 0) acc += v; return acc;"},
      [](const mx::array& v) {
        return mx::sum(mx::maximum(v, mx::array(0.0f)), -1);
      });
}

TEST(Reduce, SharesGradientsAmongTies) {
  const auto most = reduce({.init = "-INFINITY", .update = "max(acc, v)"});
  const auto x = mx::array({3.0f, 1.0f, 3.0f, 3.0f});
  const auto third = 1.0f / 3;
  expect_close(
      mx::grad([&](const mx::array& v) { return most(v); })(x),
      mx::array({third, 0.0f, third, third}));
}

TEST(Reduce, DifferentiatesProductsThroughZeros) {
  const auto product = reduce({.init = "1", .update = "acc * v"});
  const auto x =
      mx::array({2.0f, 3.0f, 4.0f, 2.0f, 0.0f, 4.0f, 0.0f, 3.0f, 0.0f}, {3, 3});
  expect_close(
      mx::grad([&](const mx::array& v) { return mx::sum(product(v)); })(x),
      mx::array(
          {12.0f, 8.0f, 6.0f, 0.0f, 8.0f, 0.0f, 0.0f, 0.0f, 0.0f}, {3, 3}));
}

TEST(MapReduce, IsSoftmax) {
  for (const auto& shape :
       {mx::Shape{1},
        mx::Shape{5, 1},
        mx::Shape{3, 1000},
        mx::Shape{2, 3, 17}}) {
    const auto x = sample(shape, -20, 20);
    expect_close(softmax()(x), mx::softmax(x, -1));
    expect_close(softmax(0)(x), mx::softmax(x, 0));
    expect_close(
        grad(softmax(), x),
        grad([](const mx::array& v) { return mx::softmax(v, -1); }, x));
  }
  expect_close(
      softmax()(mx::array({-INFINITY, 0.0f})), mx::array({0.0f, 1.0f}));
  EXPECT_EQ(softmax()(mx::zeros({3, 0})).shape(), (mx::Shape{3, 0}));
  const auto masked = mx::array({-INFINITY, 0.0f, 1.0f, -INFINITY});
  expect_close(
      grad(softmax(), masked),
      grad([](const mx::array& v) { return mx::softmax(v, -1); }, masked));
}

TEST(MapReduce, IsLayerNorm) {
  const auto norm = map_reduce(
      {.pass1 = {"0", "acc1 + x", "a + b"},
       .pass2 = {"0", "float d = x - s1 / D; acc2 + d * d", "a + b"},
       .write = "(x - s1 / D) * rsqrt(s2 / D + 1e-5f) * w + b",
       .inputs = {"x", "w", "b"}});
  const auto composed = [](const Arrays& in) {
    const auto centred = in[0] - mx::mean(in[0], -1, true);
    const auto variance = mx::mean(mx::square(centred), -1, true);
    return centred * mx::rsqrt(variance + mx::array(1e-5f)) * in[1] + in[2];
  };
  const Arrays in = {sample({6, 40}), sample({40}), sample({40}, 0, 1)};
  expect_close(norm(in), composed(in));
  const auto weigh = [](const mx::array& y) {
    return mx::sum(y * mx::sin(mx::reshape(mx::arange(240.0), {6, 40})));
  };
  const auto ours =
      mx::grad([&](const Arrays& v) { return weigh(norm(v)); }, {0, 1, 2})(in);
  const auto theirs = mx::grad(
      [&](const Arrays& v) { return weigh(composed(v)); }, {0, 1, 2})(in);
  for (int i = 0; i < 3; ++i) {
    expect_close(ours[i], theirs[i], 2e-5f);
  }
}

TEST(MapReduce, WorksWithOneTotal) {
  const auto norm = map_reduce(
      {.pass1 = {"0", "acc1 + x * x"},
       .write = "x * rsqrt(s1 / D + 1e-6f)",
       .name = "rms"});
  const auto composed = [](const mx::array& x) {
    return x * mx::rsqrt(mx::mean(mx::square(x), -1, true) + mx::array(1e-6f));
  };
  const auto x = sample({4, 50});
  expect_close(norm(x), composed(x));
  expect_close(grad(norm, x), grad(composed, x));
  const auto half = mx::astype(x, mx::bfloat16);
  expect_close(
      norm(half),
      mx::astype(composed(mx::astype(half, mx::float32)), mx::bfloat16),
      1e-2f);
}

TEST(MapReduce, HasSecondDerivatives) {
  const auto x = sample({3, 8});
  const auto ours = softmax();
  const Function stock = [](const mx::array& v) { return mx::softmax(v, -1); };
  const auto twice = [&](const Function& f) {
    return grad([&](const mx::array& v) { return grad(f, v); }, x);
  };
  expect_close(twice(ours), twice(stock), 2e-5f);
}

TEST(MapReduce, PushesTangentsForward) {
  const auto x = sample({3, 8}), dx = sample({3, 8}, 0, 1);
  const auto ours = mx::jvp(softmax(), x, dx).second;
  const auto theirs =
      mx::jvp([](const mx::array& v) { return mx::softmax(v, -1); }, x, dx);
  expect_close(ours, theirs.second);
}

TEST(MapReduce, Vectorizes) {
  const auto x = sample({3, 8, 5});
  const auto f =
      mx::vmap(std::function<mx::array(const mx::array&)>(softmax(0)), 1, 2);
  expect_close(f(x), mx::moveaxis(mx::softmax(x, 0), 1, 2));
  const auto scaled = map_reduce(
      {.pass1 = {"0", "acc1 + x * w"},
       .write = "x * s1",
       .inputs = {"x", "w"}});
  const auto w = sample({5});
  const auto g = mx::vmap(
      [&](const Arrays& in) { return Arrays{scaled(in)}; }, {0, -1}, {0});
  expect_close(g({x, w})[0], x * mx::sum(x * w, -1, true));
  const auto slope =
      mx::vmap([&](const mx::array& v) { return grad(softmax(), v); });
  EXPECT_EQ(slope(x).shape(), x.shape());
  const auto first = mx::slice(x, {0, 0, 0}, {1, 8, 5});
  expect_close(
      mx::slice(slope(x), {0, 0, 0}, {1, 8, 5}), grad(softmax(), first));
}

TEST(MapReduce, WorksInsideCompile) {
  const auto mean =
      reduce({.init = "0", .update = "acc + v", .finalize = "acc / D"});
  for (const bool shapeless : {false, true}) {
    const auto f = mx::compile(
        std::function<Arrays(const Arrays&)>([&](const Arrays& in) {
          return Arrays{softmax()(in[0]), mean(in[0])};
        }),
        shapeless);
    for (const int length : {4, 9}) {
      const auto x = sample({2, length});
      const auto got = f({x});
      expect_close(got[0], mx::softmax(x, -1));
      expect_close(got[1], mx::mean(x, -1));
    }
  }
}

TEST(MapReduce, RejectsBadInput) {
  EXPECT_EQ(
      error([] { reduce({.init = "D", .update = "acc + v"}); }),
      "[reduce] names must be inputs, locals or constants, got 'D' at column "
      "1.\n  D\n  ^");
  EXPECT_EQ(
      error([] { reduce({.init = "0", .update = "acc + x"}); }),
      "[reduce] names must be inputs, locals or constants, got 'x' at column "
      "7. Names here: D, v, acc.\n  acc + x\n        ^");
  EXPECT_EQ(
      error(
          [] { reduce({.init = "0", .update = "acc + v", .finalize = "v"}); }),
      "[reduce] names must be inputs, locals or constants, got 'v' at column "
      "1. Names here: D, acc, s.\n  v\n  ^");
  EXPECT_EQ(
      error([] {
        map_reduce(
            {.pass1 = {"0", "acc1 + x", "max(a, b)"}, .write = "x / s1"});
      }),
      "[map_reduce] reduce must combine a and b as update 'acc1 + x' does, "
      "got 'max(a, b)'.");
  EXPECT_EQ(
      error([] { softmax()(mx::array(1.0f)); }),
      "[softmax] axis must lie in the shape () of x, got -1.");
  EXPECT_EQ(
      error([] { softmax(2)(mx::zeros({3, 4})); }),
      "[softmax] axis must lie in the shape (3,4) of x, got 2.");
  EXPECT_EQ(
      error([] { softmax()(mx::zeros({3}), mx::zeros({3})); }),
      "[softmax] the number of inputs must be 1, got 2.");
  EXPECT_EQ(
      error([] { grad(softmax(), mx::array({1, 2, 3})); }),
      "[softmax] a gradient needs a floating input, got int32 for input 0.");
}

TEST(RowGraph, PutsTotalsIntoTheEarliestPass) {
  dialect::RowGraph rows(1, 0);
  auto& graph = rows.graph();
  const auto x = rows.element(0);
  const auto sum = rows.total(rows.add_total(dialect::Combine::Sum, 0, x));
  rows.add_total(dialect::Combine::Product, 1, x); // nobody needs it
  const auto spread = rows.total(rows.add_total(
      dialect::Combine::Sum, 0, graph.mul(graph.sub(x, sum), x)));
  const auto most = rows.total(rows.add_total(dialect::Combine::Max, -1, x));
  EXPECT_EQ(rows.add_total(dialect::Combine::Max, -1, x), 3);
  rows.finish = {graph.add(spread, most)};
  const auto program = rows.build();
  ASSERT_EQ(program.passes.size(), 2u);
  EXPECT_EQ(program.passes[0].reductions.size(), 2u); // sum, most
  EXPECT_EQ(program.passes[1].reductions.size(), 1u);
  EXPECT_EQ(program.finish.num_inputs, 3);
}

TEST(RowGraph, RecognizesUpdates) {
  const auto combine = [](const std::string& text) -> int {
    dialect::Graph graph;
    const auto acc = graph.input(0), v = graph.input(1);
    const dialect::Binding names[] = {{"acc", acc}, {"v", v}};
    const auto update = dialect::parse(graph, {"test", text}, names);
    const auto found = dialect::recognize_update(graph, update, acc);
    return found ? static_cast<int>(found->combine) : -1;
  };
  using dialect::Combine;
  for (const std::string text :
       {"acc + v",
        "v + acc",
        "acc - v",
        "v * v + (acc + 1)",
        "fma(v, 2, acc)",
        "v > 0 ? acc + v : acc",
        "acc"}) {
    EXPECT_EQ(combine(text), static_cast<int>(Combine::Sum)) << text;
  }
  for (const std::string text : {"acc * v", "exp(v) * acc", "acc / v"}) {
    EXPECT_EQ(combine(text), static_cast<int>(Combine::Product)) << text;
  }
  for (const std::string text :
       {"max(acc, v)",
        "fmax(v, acc)",
        "acc < v ? v : acc",
        "v > acc ? v : acc",
        "acc > v ? acc : v"}) {
    EXPECT_EQ(combine(text), static_cast<int>(Combine::Max)) << text;
  }
  for (const std::string text : {"min(acc, v)", "v <= acc ? v : acc"}) {
    EXPECT_EQ(combine(text), static_cast<int>(Combine::Min)) << text;
  }
  for (const std::string text :
       {"v",
        "v - acc",
        "acc * acc + v",
        "acc + v * acc",
        "exp(acc)",
        "acc > 0 ? acc + v : acc",
        "max(acc + v, 0.0f)",
        "2 * acc + v"}) {
    EXPECT_EQ(combine(text), -1) << text;
  }
}

TEST(RowOperation, GivesResultsForElementsAndForTheRow) {
  const auto operation = row_operation(
      {.inputs = {"x", "w"},
       .row_inputs = {"k"},
       .totals =
           {{"sum", "0.0f", "acc + x * w"},
            {"most", "-INFINITY", "max(acc, x - sum)"}},
       .write = {"x * k", "x + most"},
       .finish = {"sum / D"}});
  EXPECT_EQ(operation.input_names(), (std::vector<std::string>{"x", "w", "k"}));
  const auto x = mx::array({1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f}, {2, 3});
  const auto w = mx::array({1.0f, 0.0f, 2.0f});
  const auto k = mx::array({10.0f, 20.0f}, {2, 1});
  const auto results =
      operation.results({x, w, k}, {mx::float16, mx::float32, mx::float32});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].dtype(), mx::float16);
  const auto sum = mx::array({7.0f, 16.0f}, {2, 1});
  const auto most = mx::array({-4.0f, -10.0f}, {2, 1});
  EXPECT_TRUE(mx::array_equal(results[0], x * k).item<bool>());
  EXPECT_TRUE(mx::array_equal(results[1], x + most).item<bool>());
  EXPECT_TRUE(mx::allclose(results[2], sum / mx::array(3.0f)).item<bool>());
}

TEST(RowOperation, NeedsAResult) {
  EXPECT_THROW(row_operation({.inputs = {"x"}}), std::invalid_argument);
}

} // namespace
} // namespace zmlx
