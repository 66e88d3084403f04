// SPDX-License-Identifier: MIT
// The kernels that expressions print to, run as raw kernels on the default
// device, against the CPU's execution of the same expressions.
#include <gtest/gtest.h>

#include <cmath>

#include "zmlx/authoring/kernel.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/derivative.h"
#include "zmlx/dialect/expression_kernel.h"
#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/row_derivative.h"
#include "zmlx/dialect/row_graph.h"
#include "zmlx/runtime/expression_cpu.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;
using dialect::KernelBody;
using dialect::Layout;

mx::array sample(mx::Shape shape, int seed, float low = -3, float high = 3) {
  return mx::random::uniform(
      low,
      high,
      std::move(shape),
      mx::float32,
      mx::random::key(seed),
      mx::Device::cpu);
}

Arrays run_text(
    const KernelBody& text,
    const Arrays& inputs,
    const std::vector<mx::Shape>& shapes,
    int groups,
    int threads) {
  KernelSource source{
      .outputs = {},
      .body = text.body,
      .header = text.header,
      .ensure_row_contiguous = false};
  source.name = "printed";
  for (size_t i = 0; i < inputs.size(); ++i) {
    source.inputs.push_back(concat("x", i));
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    source.outputs.push_back(concat("y", i));
  }
  KernelLaunch launch;
  launch.grid = KernelSize{groups * threads};
  launch.threadgroup = KernelSize{threads};
  launch.output_shapes = shapes;
  launch.output_dtypes = std::vector<mx::Dtype>(shapes.size(), mx::float32);
  return Kernel(source)(inputs, launch);
}

// Arrays to write to.
Arrays allocate(const std::vector<mx::Shape>& shapes) {
  Arrays made;
  for (const auto& shape : shapes) {
    made.push_back(mx::zeros(shape, mx::float32, mx::Device::cpu));
  }
  mx::eval(made);
  return made;
}

void expect_close(const Arrays& got, const Arrays& wanted, float tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].shape(), wanted[i].shape());
    EXPECT_TRUE(
        mx::allclose(got[i], wanted[i], tolerance, tolerance, true)
            .item<bool>())
        << i << ": " << got[i] << "\nwanted\n"
        << wanted[i];
  }
}

dialect::Elements floats(size_t inputs, size_t outputs, int wide) {
  return {
      std::vector<std::string>(inputs, "float"),
      std::vector<std::string>(outputs, "float"),
      wide};
}

// Both forms of an expression with a result for every input's derivative.
void check(const std::string& text, const Arrays& inputs) {
  const std::vector<std::string> all = {"x", "y", "z"};
  const std::vector<std::string> names(
      all.begin(), all.begin() + inputs.size());
  const auto flat = dialect::parse_expression({"test", text}, names);
  auto whole = mx::broadcast_arrays(inputs, mx::Device::cpu);
  mx::eval(whole);
  std::vector<Layout> layouts;
  for (const auto& input : whole) {
    layouts.push_back(
        input.flags().row_contiguous ? Layout::Flat
            : input.data_size() == 1 ? Layout::Single
                                     : Layout::Strided);
  }
  const bool scalar = whole[0].ndim() == 0;
  const bool strided = std::ranges::count(layouts, Layout::Strided) > 0;
  if (!scalar && !strided) { // as vectors
    const auto size = static_cast<int>(whole[0].size());
    for (size_t i = 0; i < whole.size(); ++i) {
      whole[i] = layouts[i] == Layout::Flat
          ? mx::reshape(whole[i], {size}, mx::Device::cpu)
          : mx::as_strided(inputs[i], {size}, {0}, 0, mx::Device::cpu);
    }
    mx::eval(whole);
  }
  const std::vector<mx::Shape> shapes = {whole[0].shape()};
  auto wanted = allocate(shapes);
  CpuExpression(flat).run(whole, wanted);
  for (const int wide : {1, 4, 8}) {
    if (wide > 1 && (scalar || strided)) {
      break;
    }
    const int per_group = 32 * dialect::elements_per_thread(wide);
    const int groups =
        (static_cast<int>(whole[0].size()) + per_group - 1) / per_group;
    expect_close(
        run_text(
            dialect::elementwise_kernel(
                flat, layouts, floats(whole.size(), 1, wide), scalar),
            whole,
            shapes,
            groups,
            32),
        wanted,
        1e-5f);
  }
}

TEST(PrintedKernel, ComputesWhatTheExpressionSays) {
  const auto x = sample({5, 61}, 1), y = sample({5, 61}, 2);
  check(
      "exp(x) + exp2(y) * exp10(x * 0.3f) + expm1(y) - log(abs(x)) + "
      "log2(abs(y)) * log10(abs(x)) + log1p(abs(y)) + sin(x) * cos(y) + "
      "atan(x) + sinh(y) - cosh(x) + tanh(y) + asinh(x) + acosh(abs(y) + 1) + "
      "atanh(x / 4) + asin(x / 4) * acos(y / 4) + atan2(x, y)",
      {x, y});
  check(
      "erf(x) + erfc(y) + sigmoid(x) + sinpi(x) * cospi(y) + sqrt(abs(x)) + "
      "rsqrt(abs(y)) + floor(x) + ceil(y) + round(x) + rint(y) + trunc(x) + "
      "fract(y) + sign(x) + fmod(x, y) + copysign(x, y) + fma(x, y, x) + "
      "pow(abs(x), y) + max(x, y) * min(x, y)",
      {x, y});
  check(
      "int a = x * 100; int b = y * 3; bool c = a > b && x < 1; "
      "a / b + a % b * 2 + (a << 2) + (a >> b) + (a & b | 5 ^ b) + ~a + "
      "abs(a) + min(a, b) + (c ? half(x) : bfloat(y)) + !c + "
      "(c != (y > 0) ? INFINITY : NAN)",
      {x, y});
}

// Values of 16 bits, whose functions are quicker.
TEST(PrintedKernel, RoundsToNarrowTypes) {
  const auto x = mx::concatenate(
      {sample({509}, 1, -12, 12),
       sample({500}, 2, -0.3f, 0.3f),
       mx::array({0.0f, -0.0f, INFINITY, -INFINITY, NAN, 100.0f, -100.0f})},
      0,
      mx::Device::cpu);
  const auto flat = dialect::parse_expression(
      {"test",
       "isnan(y) ? tanh(x) + 2 * sigmoid(x) : "
       "tanh(x) + 2 * sigmoid(x) + exp(min(x, 9)) / (y + 1) - log(1 + abs(x))"},
      std::vector<std::string>{"x", "y"});
  const Arrays in = {x, mx::abs(x, mx::Device::cpu)};
  mx::eval(in);
  auto wanted = allocate({x.shape()});
  CpuExpression(flat).run(in, wanted);
  const dialect::Elements types{{"float", "float"}, {"bfloat16_t"}, 8};
  const auto text = dialect::elementwise_kernel(
      flat, std::vector<Layout>(2, Layout::Flat), types, false);
  const KernelSource source{
      .name = "narrow",
      .inputs = {"x0", "x1"},
      .outputs = {"y0"},
      .body = text.body,
      .header = text.header};
  KernelLaunch launch;
  launch.grid = KernelSize{128};
  launch.threadgroup = KernelSize{32};
  launch.output_shapes = std::vector<mx::Shape>{x.shape()};
  launch.output_dtypes = std::vector<mx::Dtype>{mx::bfloat16};
  const auto got = mx::astype(Kernel(source)(in, launch)[0], mx::float32);
  EXPECT_TRUE(mx::allclose(got, wanted[0], 0.0042f, 1e-4f, true).item<bool>());
}

TEST(PrintedKernel, ReadsEveryLayout) {
  const auto x = sample({4, 7, 40}, 1);
  const auto turned = mx::transpose(sample({40, 7, 4}, 2), mx::Device::cpu);
  check("x + 2 * y - z", {x, turned, sample({7, 1}, 3)});
  check("x * y", {x, mx::array(3.0f)});
  check("x * y", {mx::array(2.0f), mx::array(3.0f)});
}

void check_rows(
    const dialect::RowProgram& program,
    const Arrays& inputs,
    const std::vector<mx::Shape>& shapes,
    int axis) {
  const auto& shape = inputs[0].shape();
  auto ready = inputs;
  mx::eval(ready);
  auto wanted = allocate(shapes);
  CpuRowProgram(program).run(shape, axis, ready, wanted);
  const int from_end = static_cast<int>(shape.size()) - axis;
  const int groups = static_cast<int>(inputs[0].size()) / shape[axis];
  for (const int wide : {1, 4}) {
    if (wide > 1 && (from_end > 1 || shape[axis] % wide != 0)) {
      break;
    }
    for (const int threads : {32, 128}) {
      expect_close(
          run_text(
              dialect::rows_kernel(
                  program,
                  floats(inputs.size(), shapes.size(), wide),
                  from_end),
              ready,
              shapes,
              groups,
              threads),
          wanted,
          1e-5f);
    }
  }
}

TEST(PrintedKernel, ComputesRowsAndTheirGradients) {
  dialect::RowGraph rows(1, 1);
  auto& graph = rows.graph();
  const auto x = rows.element(0), scale = rows.row_value(0);
  const auto most = rows.total(
      rows.add_total(dialect::Combine::Max, -INFINITY, graph.mul(x, scale)));
  const auto power =
      graph.make(dialect::Op::Exp, graph.sub(graph.mul(x, scale), most));
  const auto sum = rows.total(rows.add_total(dialect::Combine::Sum, 0, power));
  const auto product = rows.total(rows.add_total(
      dialect::Combine::Product, 2, graph.add(x, graph.constant(0.5f))));
  rows.write = {graph.div(power, sum)};
  rows.finish = {graph.add(most, product)};
  const auto program = rows.build();
  const auto a = sample({3, 50, 4}, 1, -1, 1);
  const auto b =
      mx::broadcast_to(sample({3, 1, 1}, 2), {3, 1, 4}, mx::Device::cpu);
  const mx::Shape whole = {3, 50, 4}, row = {3, 1, 4};
  check_rows(program, {a, b}, {whole, row}, 1);
  // Elements side by side.
  check_rows(
      program,
      {sample({3, 52}, 7, -1, 1), sample({3, 1}, 8)},
      {{3, 52}, {3, 1}},
      1);
  const mx::Shape far = {2, 9000};
  check_rows(
      program,
      {sample(far, 9, -0.51f, -0.49f), sample({2, 1}, 10)},
      {far, {2, 1}},
      1);
  // Longer than its threads can keep.
  const mx::Shape longer = {3, 9000, 1};
  check_rows(
      program,
      {sample(longer, 5, -0.51f, -0.49f), sample({3, 1, 1}, 6)},
      {longer, {3, 1, 1}},
      1);
  check_rows(
      dialect::vjp_of(program, std::vector<int>{0, 1}),
      {a, sample(whole, 3), b, sample(row, 4)},
      {whole, row},
      1);
}

TEST(PrintedKernel, WalksInOrder) {
  dialect::RowGraph rows(1, 0);
  auto& graph = rows.graph();
  const auto running = rows.running();
  const auto total = rows.add_update(
      1.0f,
      graph.add(graph.mul(running, graph.constant(0.5f)), rows.element(0)));
  rows.finish = {rows.total(total)};
  rows.write = {graph.sub(rows.element(0), rows.total(total))};
  check_rows(rows.build(), {sample({6, 45}, 1)}, {{6, 45}, {6, 1}}, 1);
}

} // namespace
} // namespace zmlx
