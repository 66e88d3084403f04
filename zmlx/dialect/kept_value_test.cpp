// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kept_value.h"

#include <gtest/gtest.h>

namespace zmlx::dialect {
namespace {

Instruction input(int number) {
  return {.op = Op::Input, .bits = static_cast<uint32_t>(number)};
}
Instruction step(Op op, int a, int b = -1) {
  return {.op = op, .args = {a, b, -1}};
}

// Passes max(x) and sum(f(x - max)), then `write`.
RowProgram two_passes(FlatExpression write) {
  RowProgram p;
  p.num_elements = 1;
  p.passes = {
      {{{input(0)}, {0}, 1}, {{Combine::Max, 0}}},
      {{{input(0), input(1), step(Op::Sub, 0, 1), step(Op::Exp, 2)}, {3}, 2},
       {{Combine::Sum, 0}}}};
  p.write = std::move(write);
  return p;
}

TEST(KeptValue, IsTheLargestThatBothCompute) {
  const auto kept = find_kept_value(two_passes(
      {{input(2),
        input(1),
        input(0),
        step(Op::Sub, 2, 1),
        step(Op::Exp, 3),
        step(Op::Div, 4, 0)},
       {5},
       3}));
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->pass, 1);
  EXPECT_EQ(kept->values.outputs, (std::vector<int>{3, 3}));
  // The sum has become input 3, the value is input 1.
  EXPECT_EQ(
      kept->write,
      (FlatExpression{{input(3), input(1), step(Op::Div, 1, 0)}, {2}, 4}));
}

TEST(KeptValue, IsNoneWhereItSavesOneStepOnly) {
  EXPECT_FALSE(find_kept_value(two_passes(
      {{input(0), input(1), step(Op::Sub, 0, 1), input(2), step(Op::Sub, 2, 3)},
       {4},
       3})));
}

TEST(KeptValue, IsNoneWithoutAWriteStepOrOfTotalsAlone) {
  EXPECT_FALSE(find_kept_value(two_passes({})));
  auto p = two_passes({{input(1), step(Op::Exp, 0), step(Op::Sin, 1)}, {2}, 3});
  p.passes[1].values = {{input(1), step(Op::Exp, 0), step(Op::Sin, 1)}, {2}, 2};
  EXPECT_FALSE(find_kept_value(p));
}

} // namespace
} // namespace zmlx::dialect
