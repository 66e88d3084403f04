// SPDX-License-Identifier: MIT
// One side of bench/expressions.py: for each line "CASE SIDE" of its input runs
// that once and prints its seconds. Checks first that all sides agree.
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "mlx/mlx.h"
#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"
#include "zmlx/runtime/thread_team.h"

namespace mx = mlx::core;
using Arrays = std::vector<mx::array>;
using Function = std::function<mx::array(const Arrays&)>;

namespace {

struct Case {
  Arrays inputs;
  std::map<std::string, Function> sides;
  double tolerance; // of the sides' largest difference
};

Function compiled(const Function& f) {
  const auto g = mx::compile([f](const Arrays& in) { return Arrays{f(in)}; });
  return [g](const Arrays& in) { return g(in)[0]; };
}

Case make_case(Arrays inputs, double tolerance, Function ours, Function stock) {
  mx::eval(inputs);
  return {
      std::move(inputs),
      {{"zmlx", ours}, {"mlx", stock}, {"mlx_compile", compiled(stock)}},
      tolerance};
}

mx::array normal(const mx::Shape& shape, int seed) {
  return mx::random::normal(shape, mx::float32, 0, 1, mx::random::key(seed));
}

std::map<std::string, Case> cases() {
  const auto mish = zmlx::elementwise("x * tanh(log(1 + exp(x)))");
  const auto copy = zmlx::elementwise("x");
  const auto swiglu = zmlx::binary("swiglu", "a * kk_sigmoid(a) * b");
  const auto softmax = zmlx::map_reduce(
      {.pass1 = {"-INFINITY", "max(acc1, x)"},
       .pass2 = {"0.0f", "acc2 + exp(x - s1)"},
       .write = "exp(x - s1) / s2"});
  const auto sum = zmlx::reduce({.init = "0.0f", .update = "acc + v"});
  const auto column_sum =
      zmlx::reduce({.init = "0.0f", .update = "acc + v", .axis = 0});
  const mx::Shape square{4096, 4096}, layer{16, 1024, 1024};
  const auto half = [&](int seed) {
    return mx::astype(normal(layer, seed), mx::float16);
  };
  std::map<std::string, Case> cases;
  cases["mish"] = make_case(
      {normal({1 << 24}, 1)},
      1e-5,
      [=](const Arrays& in) { return mish(in[0]); },
      [](const Arrays& in) {
        const auto& x = in[0];
        return x * mx::tanh(mx::log(1.0f + mx::exp(x)));
      });
  cases["copy"] = make_case(
      {normal({1 << 24}, 1)},
      0,
      [=](const Arrays& in) { return copy(in[0]); },
      [](const Arrays& in) { return mx::copy(in[0]); });
  cases["swiglu_f16"] = make_case(
      {half(2), half(3)},
      0.02, // stock rounds each step to float16
      [=](const Arrays& in) { return swiglu(in[0], in[1]); },
      [](const Arrays& in) { return in[0] * mx::sigmoid(in[0]) * in[1]; });
  cases["softmax"] = make_case(
      {normal(square, 4)},
      1e-6,
      [=](const Arrays& in) { return softmax(in[0]); },
      [](const Arrays& in) {
        const auto e = mx::exp(in[0] - mx::max(in[0], -1, true));
        return e / mx::sum(e, -1, true);
      });
  cases["softmax"].sides["mlx"] = [](const Arrays& in) {
    return mx::softmax(in[0], -1);
  };
  cases["row_sum"] = make_case(
      {normal(square, 5)},
      1e-3,
      [=](const Arrays& in) { return sum(in[0]); },
      [](const Arrays& in) { return mx::sum(in[0], -1); });
  cases["column_sum"] = make_case(
      {normal(square, 5)},
      1e-3,
      [=](const Arrays& in) { return column_sum(in[0]); },
      [](const Arrays& in) { return mx::sum(in[0], 0); });
  return cases;
}

void check(const std::string& name, const Case& c) {
  const auto want = c.sides.at("mlx")(c.inputs);
  for (const auto& [side, function] : c.sides) {
    auto difference = mx::max(
        mx::abs(
            mx::astype(function(c.inputs), mx::float32) -
            mx::astype(want, mx::float32)));
    if (!(difference.item<float>() <= c.tolerance)) {
      std::cerr << name << ": " << side << " is off by "
                << difference.item<float>() << '\n';
      std::exit(1);
    }
  }
}

template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  const auto result = f();
  const auto end = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(end - start).count();
}

// A new expression on 1024 values, from its text to its result.
double first_call(const mx::array& x) {
  static int number = 0;
  const auto text =
      "x * tanh(log(1 + exp(x))) + " + std::to_string(++number) + ".5f";
  return seconds([&] {
    auto y = zmlx::elementwise(text)(x);
    y.eval();
    return y;
  });
}

} // namespace

int main() {
  mx::set_default_device(mx::Device::cpu);
  const auto all = cases();
  for (const auto& [name, c] : all) {
    check(name, c);
  }
  auto x = normal({1024}, 1);
  x.eval();
  std::cout << "threads " << zmlx::num_threads() << std::endl;
  for (std::string name, side; std::cin >> name >> side;) {
    if (name == "first_call") {
      std::cout << first_call(x) << std::endl;
      continue;
    }
    const auto& c = all.at(name);
    const auto& function = c.sides.at(side);
    std::cout << seconds([&] {
      auto y = function(c.inputs);
      y.eval();
      return y;
    }) << std::endl;
  }
}
