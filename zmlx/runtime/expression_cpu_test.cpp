// SPDX-License-Identifier: MIT
// CpuExpression against the oracle, lane by lane.
#include "zmlx/runtime/expression_cpu.h"

#include <bit>
#include <cmath>
#include <random>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "zmlx/runtime/expression_oracle.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

using dialect::FlatExpression;
using dialect::Instruction;
using dialect::Op;
using dialect::Type;

Instruction input(int number) {
  return {.op = Op::Input, .bits = static_cast<uint32_t>(number)};
}
Instruction constant(float value) {
  return {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)};
}
Instruction step(Op op, int a, int b = -1, int c = -1) {
  return {.op = op, .args = {a, b, c}};
}

std::vector<float> floats(const mx::array& array) {
  auto flat = mx::flatten(mx::contiguous(mx::astype(array, mx::float32)));
  flat.eval();
  return {flat.data<float>(), flat.data<float>() + flat.size()};
}

// An allocated array of that shape, as a primitive's outputs are.
mx::array fresh(const mx::Shape& shape, mx::Dtype dtype = mx::float32) {
  auto array = mx::contiguous(mx::ones(shape, dtype));
  array.eval();
  return array;
}

mx::array random_array(const mx::Shape& shape, int seed) {
  auto array =
      mx::random::normal(shape, mx::float32, 0, 3, mx::random::key(seed));
  array.eval();
  return array;
}

void expect_same(float got, float want, const std::string& where) {
  EXPECT_TRUE(
      std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want) ||
      (std::isnan(got) && std::isnan(want)) || (got == 0 && want == 0))
      << where << ": " << got << " for " << want;
}

// Runs the expression on the inputs and compares each lane with the oracle,
// whose operations must be exact.
void check(
    const FlatExpression& expression,
    const std::vector<mx::array>& inputs,
    const mx::Shape& shape) {
  std::vector<mx::array> outputs;
  for (size_t i = 0; i < expression.outputs.size(); ++i) {
    outputs.push_back(fresh(shape));
  }
  CpuExpression(expression).run(inputs, outputs);
  std::vector<std::vector<float>> in, out;
  for (const auto& x : inputs) {
    in.push_back(floats(mx::broadcast_to(x, shape)));
  }
  for (const auto& y : outputs) {
    out.push_back(floats(y));
  }
  std::vector<float> lane(inputs.size());
  for (size_t i = 0; i < outputs[0].size(); ++i) {
    for (size_t k = 0; k < lane.size(); ++k) {
      lane[k] = in[k][i];
    }
    const auto values = oracle::run(expression, lane.data());
    for (size_t k = 0; k < out.size(); ++k) {
      expect_same(
          out[k][i],
          std::bit_cast<float>(values[expression.outputs[k]]),
          "lane " + std::to_string(i) + " of output " + std::to_string(k));
    }
    if (testing::Test::HasFailure()) {
      return;
    }
  }
}

// Expressions of random exact operations.
class Generator {
 public:
  explicit Generator(int seed) : rng_(seed) {}

  FlatExpression expression(int num_inputs, int length) {
    FlatExpression e;
    e.num_inputs = num_inputs;
    for (int i = 0; i < num_inputs; ++i) {
      e.code.push_back(input(i));
    }
    e.code.push_back(constant(0.75f));
    e.code.push_back({.op = Op::Constant, .type = Type::Int, .bits = 5});
    e.code.push_back({.op = Op::Constant, .type = Type::Bool, .bits = 1});
    while (static_cast<int>(e.code.size()) < length) {
      add(e.code);
    }
    for (int i = static_cast<int>(e.code.size()) - 1; e.outputs.size() < 3;
         --i) {
      if (e.code[i].type == Type::Float) {
        e.outputs.push_back(i);
      }
    }
    return e;
  }

 private:
  int any(const std::vector<Instruction>& code, Type type) {
    for (;;) {
      const auto i = static_cast<int>(rng_() % code.size());
      if (code[i].type == type) {
        return i;
      }
    }
  }

  template <size_t N>
  Op one_of(const Op (&ops)[N]) {
    return ops[rng_() % N];
  }

  void add(std::vector<Instruction>& code) {
    const Op unary_floats[] = {
        Op::Neg,
        Op::Abs,
        Op::Sqrt,
        Op::Floor,
        Op::Ceil,
        Op::Round,
        Op::Rint,
        Op::Trunc,
        Op::Fract,
        Op::RoundHalf,
        Op::RoundBfloat,
        Op::Sign};
    const Op binaries[] = {
        Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Min, Op::Max};
    const Op compares[] = {Op::Less, Op::LessEqual, Op::Equal, Op::NotEqual};
    const Op ints[] = {Op::Rem, Op::And, Op::Or, Op::Xor, Op::Shl, Op::Shr};
    const Op bools[] = {Op::And, Op::Or, Op::Xor};
    const auto number = rng_() % 2 ? Type::Float : Type::Int;
    Instruction next;
    const auto make = [&](Op op, Type type, std::vector<Type> args) {
      next = {.op = op, .type = type};
      for (size_t k = 0; k < args.size(); ++k) {
        next.args[k] = any(code, args[k]);
      }
    };
    switch (rng_() % 11) {
      case 0:
      case 1:
        make(one_of(unary_floats), Type::Float, {Type::Float});
        break;
      case 2:
      case 3:
        make(one_of(binaries), number, {number, number});
        break;
      case 4:
        make(one_of(compares), Type::Bool, {number, number});
        break;
      case 5:
        make(one_of(ints), Type::Int, {Type::Int, Type::Int});
        break;
      case 6:
        make(one_of(bools), Type::Bool, {Type::Bool, Type::Bool});
        break;
      case 7:
        make(Op::Select, number, {Type::Bool, number, number});
        break;
      case 8:
        rng_() % 2 ? make(
                         Op::ToFloat,
                         Type::Float,
                         {rng_() % 2 ? Type::Int : Type::Bool})
                   : make(
                         Op::ToInt,
                         Type::Int,
                         {rng_() % 2 ? Type::Float : Type::Bool});
        break;
      case 9:
        rng_() % 2
            ? make(
                  Op::Fma, Type::Float, {Type::Float, Type::Float, Type::Float})
            : make(Op::CopySign, Type::Float, {Type::Float, Type::Float});
        break;
      default:
        rng_() % 2
            ? make(Op::Not, Type::Bool, {Type::Bool})
            : make(rng_() % 2 ? Op::Neg : Op::Abs, Type::Int, {Type::Int});
    }
    code.push_back(next);
  }

  std::mt19937 rng_;
};

std::vector<int64_t> targets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

TEST(CpuExpression, MatchesTheOracleOnRandomExpressionsOnEveryTarget) {
  auto x = random_array({333}, 1);
  auto special = mx::concatenate(
      {random_array({327}, 2),
       mx::array({0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-42f})});
  auto whole = mx::astype(
      mx::multiply(random_array({333}, 3), mx::array(50.0f)), mx::int32);
  mx::eval(special, whole);
  for (auto target : targets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (int seed = 0; seed < 40 && !HasFailure(); ++seed) {
      SCOPED_TRACE(seed);
      check(
          Generator(seed).expression(3, 8 + seed), {x, special, whole}, {333});
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(CpuExpression, TakesEverySize) {
  const FlatExpression e{
      {input(0), constant(2), step(Op::Mul, 0, 1), step(Op::Add, 2, 0)},
      {3},
      1};
  for (int size : {0, 1, 2, 15, 16, 63, 64, 65, 1000, 2048, 2060, 70001}) {
    check(e, {random_array({size}, size)}, {size});
  }
  check(e, {random_array({}, 1)}, {});
}

TEST(CpuExpression, TakesStridedAndBroadcastInputs) {
  const FlatExpression e{
      {input(0), input(1), input(2), step(Op::Fma, 0, 1, 2)}, {3}, 3};
  const auto base = random_array({40, 30, 20}, 1);
  const auto swapped = mx::transpose(random_array({20, 30, 40}, 2), {2, 1, 0});
  const auto sliced = mx::slice(
      random_array({80, 60, 60}, 3), {1, 0, 1}, {80, 60, 60}, {2, 2, 3});
  const auto backwards =
      mx::slice(base, {39, 0, 19}, {-41, 30, -21}, {-1, 1, -1});
  const auto row = random_array({20}, 4);
  const auto column = random_array({40, 1, 1}, 5);
  const auto middle = random_array({30, 1}, 6);
  const auto scalar = random_array({}, 7);
  for (const auto& inputs : std::vector<std::vector<mx::array>>{
           {base, swapped, row},
           {swapped, sliced, column},
           {middle, base, scalar},
           {backwards, scalar, swapped},
           {scalar, scalar, scalar}}) {
    for (auto x : inputs) {
      x.eval();
    }
    const auto shape = inputs[0].size() == 1
        ? mx::Shape{40, 30, 20}
        : mx::broadcast_shapes(
              mx::broadcast_shapes(inputs[0].shape(), inputs[1].shape()),
              base.shape());
    check(e, inputs, shape);
  }
}

TEST(CpuExpression, ReadsAndWritesEveryDtype) {
  const FlatExpression e{{input(0), constant(1), step(Op::Add, 0, 1)}, {2}, 1};
  for (auto dtype :
       {mx::bool_,
        mx::uint8,
        mx::uint16,
        mx::uint32,
        mx::uint64,
        mx::int8,
        mx::int16,
        mx::int32,
        mx::int64,
        mx::float16,
        mx::bfloat16,
        mx::float32}) {
    auto x = mx::astype(mx::abs(random_array({7, 301}, 3)), dtype);
    for (auto in : {x, mx::transpose(x)}) {
      in.eval();
      std::vector<mx::array> out{fresh(in.shape(), dtype)};
      CpuExpression(e).run({in}, out);
      const auto want = floats(
          mx::astype(mx::astype(in, mx::float32) + mx::array(1.0f), dtype));
      EXPECT_EQ(floats(out[0]), want) << dtype;
    }
  }
}

TEST(CpuExpression, ConvertsAtTheEdgesOfEachDtype) {
  const FlatExpression copy{{input(0)}, {0}, 1};
  const auto x = mx::array(
      {3e9f,
       -3e9f,
       NAN,
       INFINITY,
       -INFINITY,
       300.7f,
       -1.0f,
       65520.0f,
       1e-7f,
       -0.5f});
  const auto run = [&](mx::Dtype dtype) {
    std::vector<mx::array> out{fresh(x.shape(), dtype)};
    CpuExpression(copy).run({x}, out);
    return floats(out[0]);
  };
  EXPECT_EQ(
      run(mx::uint8),
      (std::vector<float>{255, 0, 0, 255, 0, 255, 0, 255, 0, 0}));
  EXPECT_EQ(
      run(mx::int32),
      (std::vector<float>{
          2147483647.0f,
          -2147483648.0f,
          0,
          2147483647.0f,
          -2147483648.0f,
          300,
          -1,
          65520,
          0,
          0}));
  EXPECT_EQ(run(mx::bool_), (std::vector<float>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
  for (auto dtype : {mx::float16, mx::bfloat16}) {
    const auto got = run(dtype), want = floats(mx::astype(x, dtype));
    for (size_t i = 0; i < got.size(); ++i) {
      expect_same(got[i], want[i], "value " + std::to_string(i));
    }
  }
}

TEST(CpuExpression, ReadsEveryHalfAndBfloatExactly) {
  const FlatExpression copy{{input(0)}, {0}, 1};
  for (auto dtype : {mx::float16, mx::bfloat16}) {
    auto all = mx::view(mx::astype(mx::arange(0, 65536, 1), mx::uint16), dtype);
    all.eval();
    std::vector<mx::array> out{fresh(all.shape()), fresh(all.shape(), dtype)};
    CpuExpression({{input(0)}, {0, 0}, 1}).run({all}, out);
    const auto want = floats(all), got = floats(out[0]), back = floats(out[1]);
    for (size_t i = 0; i < want.size(); ++i) {
      expect_same(got[i], want[i], "bits " + std::to_string(i));
      expect_same(back[i], want[i], "bits " + std::to_string(i));
    }
  }
}

TEST(CpuExpression, WritesOutputsThatAreInputsConstantsOrTwice) {
  const FlatExpression e{
      {input(0), constant(3), step(Op::Sqrt, 1), step(Op::Add, 0, 1)},
      {0, 1, 2, 3, 3},
      1};
  for (int size : {5, 64, 5000}) {
    check(e, {random_array({size}, 1)}, {size});
  }
}

TEST(CpuExpression, WritesOverAnInput) {
  // Two outputs, both of which need the input that the first replaces.
  const FlatExpression e{
      {input(0), constant(2), step(Op::Add, 0, 1), step(Op::Mul, 0, 1)},
      {2, 3},
      1};
  for (int size : {10, 64, 20000}) {
    auto x = random_array({size}, 1);
    const auto before = floats(x);
    std::vector<mx::array> out{x, fresh({size})};
    CpuExpression(e).run({x}, out);
    for (int i = 0; i < size; ++i) {
      ASSERT_EQ(out[0].data<float>()[i], before[i] + 2);
      ASSERT_EQ(out[1].data<float>()[i], before[i] * 2);
    }
  }
}

TEST(CpuExpression, GivesTheSameBitsForAnyNumberOfThreads) {
  const FlatExpression e{
      {input(0), step(Op::Exp, 0), step(Op::Sin, 1), step(Op::Tanh, 2)},
      {3},
      1};
  const auto x = random_array({300007}, 1);
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<mx::array> out{fresh(x.shape())};
    CpuExpression(e).run({x}, out);
    results.push_back(floats(out[0]));
  }
  set_num_threads(2);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(CpuExpression, ComputesLargeArraysInParts) {
  const FlatExpression e{{input(0), constant(1), step(Op::Add, 0, 1)}, {2}, 1};
  const int size = (5 << 20) + 3; // 20 MiB
  const auto x = random_array({size}, 1);
  std::vector<mx::array> out{fresh({size})};
  CpuExpression(e).run({x}, out);
  EXPECT_TRUE(mx::array_equal(out[0], x + mx::array(1.0f)).item<bool>());
}

} // namespace
} // namespace zmlx
