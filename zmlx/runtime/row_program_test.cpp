// SPDX-License-Identifier: MIT
// CpuRowProgram against sums in double, however rows lie in memory.
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "zmlx/runtime/expression_cpu.h"
#include "zmlx/runtime/expression_oracle.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

using dialect::Combine;
using dialect::FlatExpression;
using dialect::Instruction;
using dialect::Op;
using dialect::RowProgram;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Instruction input(int number) {
  return {.op = Op::Input, .bits = static_cast<uint32_t>(number)};
}
Instruction constant(float value) {
  return {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)};
}
Instruction step(Op op, int a, int b = -1, int c = -1) {
  return {.op = op, .args = {a, b, c}};
}

FlatExpression one(int number) {
  return {{input(number)}, {0}, number + 1};
}

RowProgram softmax() {
  RowProgram p;
  p.num_elements = 1;
  p.passes = {
      {one(0), {{Combine::Max, -kInfinity}}},
      {{{input(0), input(1), step(Op::Sub, 0, 1), step(Op::Exp, 2)}, {3}, 2},
       {{Combine::Sum, 0}}}};
  p.write = {
      {input(0),
       input(1),
       step(Op::Sub, 0, 1),
       step(Op::Exp, 2),
       input(2),
       step(Op::Div, 3, 4)},
      {5},
      3};
  return p;
}

// One pass with all four combinations, each a result.
RowProgram all_combinations() {
  RowProgram p;
  p.num_elements = 1;
  p.num_row_values = 1;
  p.passes = {
      {{{input(0),
         input(1),
         step(Op::Mul, 0, 1),
         constant(1),
         step(Op::Fma, 0, 3, 3)},
        {2, 4, 0, 0},
        2},
       {{Combine::Sum, 0.5f},
        {Combine::Product, 2},
        {Combine::Min, 7},
        {Combine::Max, -7}}}};
  p.finish = {
      {input(0), input(1), input(2), input(3), input(4), step(Op::Add, 0, 1)},
      {1, 2, 3, 4, 5},
      5};
  return p;
}

// total = total / 2 + x, a result that depends on the order, and its square.
RowProgram serial() {
  RowProgram p;
  p.num_elements = 1;
  p.passes = {
      {{{input(0),
         constant(0.5f),
         input(1),
         step(Op::Fma, 2, 1, 0),
         step(Op::Add, 0, 2)},
        {3, 4},
        3},
       {{Combine::Serial, 3}, {Combine::Sum, 0}}}};
  p.write = {{input(0), input(1), step(Op::Sub, 0, 1)}, {2}, 3};
  p.finish = {{input(0), input(1)}, {0, 1}, 2};
  return p;
}

std::vector<float> floats(const mx::array& array) {
  auto flat = mx::flatten(mx::contiguous(mx::astype(array, mx::float32)));
  flat.eval();
  return {flat.data<float>(), flat.data<float>() + flat.size()};
}

mx::array fresh(const mx::Shape& shape, mx::Dtype dtype = mx::float32) {
  auto array = mx::contiguous(mx::ones(shape, dtype));
  array.eval();
  return array;
}

mx::array random_array(const mx::Shape& shape, int seed) {
  auto array = mx::random::uniform(
      -1.0f, 1.0f, shape, mx::float32, mx::random::key(seed));
  array.eval();
  return array;
}

// The outputs of the program, by the oracle, row by row.
std::vector<std::vector<double>> expected(
    const RowProgram& p,
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs) {
  mx::Shape row_shape = shape;
  row_shape[axis] = 1;
  std::vector<std::vector<float>> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool element = static_cast<int>(i) < p.num_elements;
    in.push_back(
        floats(mx::broadcast_to(inputs[i], element ? shape : row_shape)));
  }
  const int64_t length = shape[axis];
  int64_t inner = 1, rows = 1;
  for (int i = 0; i < static_cast<int>(shape.size()); ++i) {
    inner *= i > axis ? shape[i] : 1;
    rows *= i == axis ? 1 : shape[i];
  }
  std::vector<std::vector<double>> out(
      p.write.outputs.size() + p.finish.outputs.size());
  for (size_t k = 0; k < out.size(); ++k) {
    out[k].resize(k < p.write.outputs.size() ? rows * length : rows);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const auto at = [&](int64_t i) {
      return (row / inner * length + i) * inner + row % inner;
    };
    std::vector<float> fixed; // row inputs and totals
    for (size_t i = p.num_elements; i < in.size(); ++i) {
      fixed.push_back(in[i][row]);
    }
    const auto lanes = [&](const FlatExpression& e,
                           int64_t i,
                           const std::vector<float>& more) {
      std::vector<float> values;
      for (int k = 0; k < p.num_elements; ++k) {
        values.push_back(in[k][at(i)]);
      }
      values.insert(values.end(), fixed.begin(), fixed.end());
      values.insert(values.end(), more.begin(), more.end());
      std::vector<float> results;
      const auto bits = oracle::run(e, values.data());
      for (int output : e.outputs) {
        results.push_back(std::bit_cast<float>(bits[output]));
      }
      return results;
    };
    for (const auto& pass : p.passes) {
      std::vector<double> totals;
      for (const auto& r : pass.reductions) {
        totals.push_back(r.init);
      }
      for (int64_t i = 0; i < length; ++i) {
        const auto values =
            lanes(pass.values, i, {totals.begin(), totals.end()});
        for (size_t k = 0; k < totals.size(); ++k) {
          const double v = values[k];
          switch (pass.reductions[k].combine) {
            case Combine::Sum:
              totals[k] += v;
              break;
            case Combine::Product:
              totals[k] *= v;
              break;
            case Combine::Min:
              totals[k] = std::fmin(totals[k], v);
              break;
            case Combine::Max:
              totals[k] = std::fmax(totals[k], v);
              break;
            case Combine::Serial:
              totals[k] = v;
          }
        }
      }
      fixed.insert(fixed.end(), totals.begin(), totals.end());
    }
    for (int64_t i = 0; i < length && !p.write.outputs.empty(); ++i) {
      const auto values = lanes(p.write, i, {});
      for (size_t k = 0; k < values.size(); ++k) {
        out[k][at(i)] = values[k];
      }
    }
    if (!p.finish.outputs.empty()) {
      const auto bits = oracle::run(p.finish, fixed.data());
      for (size_t k = 0; k < p.finish.outputs.size(); ++k) {
        out[p.write.outputs.size() + k][row] =
            std::bit_cast<float>(bits[p.finish.outputs[k]]);
      }
    }
  }
  return out;
}

std::vector<std::vector<float>> run(
    const RowProgram& p,
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs) {
  mx::Shape row_shape = shape;
  row_shape.erase(row_shape.begin() + axis);
  std::vector<mx::array> outputs;
  for (size_t k = 0; k < p.write.outputs.size(); ++k) {
    outputs.push_back(fresh(shape));
  }
  for (size_t k = 0; k < p.finish.outputs.size(); ++k) {
    outputs.push_back(fresh(row_shape));
  }
  CpuRowProgram(p).run(shape, axis, inputs, outputs);
  std::vector<std::vector<float>> results;
  for (const auto& output : outputs) {
    results.push_back(floats(output));
  }
  return results;
}

void check(
    const RowProgram& p,
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs) {
  const auto got = run(p, shape, axis, inputs);
  const auto want = expected(p, shape, axis, inputs);
  for (size_t k = 0; k < want.size(); ++k) {
    ASSERT_EQ(got[k].size(), want[k].size());
    for (size_t i = 0; i < want[k].size(); ++i) {
      // Values about 1 cancel in a sum.
      const double size = std::abs(want[k][i]) + 0.05 + 0.01 * shape[axis];
      ASSERT_TRUE(
          std::abs(got[k][i] - want[k][i]) <= 4e-6 * size ||
          got[k][i] == want[k][i])
          << "output " << k << " at " << i << " of axis " << axis << ": "
          << got[k][i] << " for " << want[k][i];
    }
  }
}

const std::vector<mx::Shape>& shapes() {
  static const std::vector<mx::Shape> shapes = {
      {1},
      {5},
      {300},
      {3, 64},
      {70, 33},
      {2, 3, 40},
      {2, 100, 20},
      {4, 5, 1, 6}};
  return shapes;
}

TEST(CpuRowProgram, MatchesTheOracleAlongEveryAxis) {
  for (const auto& shape : shapes()) {
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
      mx::Shape row_shape = shape;
      row_shape[axis] = 1;
      const auto x = random_array(shape, 1), row = random_array(row_shape, 2);
      check(softmax(), shape, axis, {x});
      check(all_combinations(), shape, axis, {x, row});
      check(serial(), shape, axis, {x});
    }
  }
}

TEST(CpuRowProgram, TakesStridedBroadcastAndShortTypes) {
  const mx::Shape shape{6, 50, 20};
  const auto swapped = mx::transpose(random_array({20, 50, 6}, 1), {2, 1, 0});
  const auto half = mx::astype(random_array(shape, 2), mx::float16);
  const auto line = mx::astype(random_array({20}, 3), mx::bfloat16);
  for (auto x : {swapped, half, line}) {
    for (int axis = 0; axis < 3; ++axis) {
      x.eval();
      auto row = random_array({1}, 4);
      check(all_combinations(), shape, axis, {x, row});
      check(softmax(), shape, axis, {x});
    }
  }
}

TEST(CpuRowProgram, LeavesInitForEmptyRows) {
  const auto x = fresh({3, 0}), row = random_array({3, 1}, 1);
  const auto got = run(all_combinations(), {3, 0}, 1, {x, row});
  EXPECT_EQ(got[0], std::vector<float>(3, 0.5f));
  EXPECT_EQ(got[3], std::vector<float>(3, -7));
  EXPECT_EQ(
      run(serial(), {0, 20}, 0, {fresh({0, 20})})[1],
      std::vector<float>(20, 3));
  EXPECT_TRUE(run(softmax(), {0, 4}, 1, {fresh({0, 4})})[0].empty());
}

TEST(CpuRowProgram, LetsSerialTotalsReadEachOther) {
  // a, b = b, a + x, and the sum of what b was.
  RowProgram p;
  p.num_elements = 1;
  p.passes = {
      {{{input(0), input(1), input(2), step(Op::Add, 1, 0)}, {2, 3, 2}, 4},
       {{Combine::Serial, 1}, {Combine::Serial, 2}, {Combine::Sum, 0}}}};
  p.finish = {{input(0), input(1), input(2)}, {0, 1, 2}, 3};
  for (int axis : {0, 1}) {
    check(p, {9, 21}, axis, {random_array({9, 21}, 1)});
  }
}

TEST(CpuRowProgram, IgnoresNanInMinimumAndMaximumOnly) {
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  for (int axis : {0, 1}) {
    const auto x = axis == 1 ? mx::array({kNan, 3.0f, kNan, -2.0f}, {1, 4})
                             : mx::array({kNan, 3.0f, kNan, -2.0f}, {4, 1});
    const auto got =
        run(all_combinations(), x.shape(), axis, {x, fresh({1, 1})});
    EXPECT_TRUE(std::isnan(got[0][0]));
    EXPECT_TRUE(std::isnan(got[1][0]));
    EXPECT_EQ(got[2][0], -2);
    EXPECT_EQ(got[3][0], 3);
  }
}

TEST(CpuRowProgram, SumsLongRowsInOrderOfNothingButTheirLength) {
  RowProgram p = softmax();
  p.finish = {{input(0), input(1)}, {0, 1}, 2};
  for (const auto& [shape, axis] :
       {std::pair{mx::Shape{1, 200003}, 1},
        std::pair{mx::Shape{100001, 2}, 0},
        std::pair{mx::Shape{9000, 40}, 0},
        std::pair{mx::Shape{300, 500}, 1}}) {
    const auto x = random_array(shape, 5);
    std::vector<std::vector<std::vector<float>>> results;
    for (int threads : {1, 2, 3}) {
      set_num_threads(threads);
      results.push_back(run(p, shape, axis, {x}));
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
    set_num_threads(2);
    // The total to float's own precision, however long the row.
    double sum = 0;
    const auto values = floats(x);
    const int64_t step = axis == 1 ? 1 : shape[1];
    for (int64_t i = 0; i < shape[axis]; ++i) {
      sum += std::exp(double{values[i * step]} - results[0][1][0]);
    }
    EXPECT_NEAR(results[0][2][0] / sum, 1, 4e-7);
  }
}

TEST(CpuRowProgram, WritesOverItsInput) {
  for (int axis : {0, 1}) {
    auto x = random_array({50, 70}, 1);
    const auto want = run(softmax(), {50, 70}, axis, {x});
    std::vector<mx::array> out{x};
    CpuRowProgram(softmax()).run({50, 70}, axis, {x}, out);
    EXPECT_EQ(floats(x), want[0]);
  }
}

} // namespace
} // namespace zmlx
