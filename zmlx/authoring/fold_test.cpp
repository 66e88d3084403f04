// SPDX-License-Identifier: MIT
// Constants folded while an expression is built, against the operations in
// double.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "zmlx/dialect/graph.h"
#include "zmlx/runtime/expression_oracle.h"

namespace zmlx {
namespace {

using dialect::Graph;
using dialect::Op;
using dialect::Type;

const std::vector<float> kFloats = {
    0.0f,     -0.0f,     1.0f,  -1.0f,   0.5f,       -0.5f,     1.5f,
    2.5f,     -2.5f,     3.0f,  0.1f,    -7.3f,      88.0f,     -104.0f,
    1e-30f,   -1e-40f,   3e38f, 65504.f, 65520.f,    6e-8f,     1.00390625f,
    INFINITY, -INFINITY, NAN,   1e10f,   16777216.f, -0.99999f, 0.7071f};
const std::vector<int32_t> kInts =
    {0, 1, -1, 2, 7, -9, 31, 33, INT32_MAX, INT32_MIN};

// The folded node against the same operation run on inputs.
void expect_folds(Op op, Type type, const std::vector<uint32_t>& operands) {
  Graph folded;
  dialect::FlatExpression flat;
  std::vector<Graph::Id> ids;
  dialect::Instruction step{.op = op};
  for (const uint32_t bits : operands) {
    const Type own = op == Op::Select && ids.empty() ? Type::Bool : type;
    ids.push_back(
        own == Type::Float     ? folded.constant(std::bit_cast<float>(bits))
            : own == Type::Int ? folded.constant_int(static_cast<int32_t>(bits))
                               : folded.constant_bool(bits != 0));
    step.args[flat.code.size()] = static_cast<int>(flat.code.size());
    flat.code.push_back({.op = Op::Constant, .type = own, .bits = bits});
  }
  ids.resize(3, -1);
  const auto& got = folded.at(folded.make(op, ids[0], ids[1], ids[2]));
  step.type = got.type;
  flat.code.push_back(step);
  const uint32_t wanted = oracle::run(flat, nullptr).back();
  ASSERT_EQ(got.op, Op::Constant);
  if (got.type != Type::Float) {
    EXPECT_EQ(got.bits, wanted) << name(op) << " of " << operands[0];
    return;
  }
  const float a = got.as_float(), b = std::bit_cast<float>(wanted);
  const bool near = (std::isnan(a) && std::isnan(b)) || a == b ||
      std::abs(a - b) <= std::abs(b) * 1.2e-7f;
  EXPECT_TRUE(near) << name(op) << " of " << std::bit_cast<float>(operands[0])
                    << ": " << a << ", wanted " << b;
}

bool takes_floats(Op op) {
  return op != Op::Constant && op != Op::Input && op != Op::ToFloat &&
      !(op >= Op::Rem && op <= Op::Shr);
}

bool takes_ints(Op op) {
  return (op >= Op::Neg && op <= Op::NotEqual) || op == Op::ToFloat ||
      op == Op::Select;
}

TEST(Fold, GivesWhatTheOperationsMean) {
  for (int i = 0; i < dialect::kNumOps; ++i) {
    const Op op = static_cast<Op>(i);
    const int count = dialect::arity(op);
    for (const float x : kFloats) {
      for (const float y : kFloats) {
        const auto a = std::bit_cast<uint32_t>(x);
        const auto b = std::bit_cast<uint32_t>(y);
        if (takes_floats(op)) {
          expect_folds(
              op,
              Type::Float,
              count == 1             ? std::vector{a}
                  : count == 2       ? std::vector{a, b}
                  : op == Op::Select ? std::vector{uint32_t{x > y}, a, b}
                                     : std::vector{a, b, a});
        }
      }
    }
    for (const int32_t x : kInts) {
      for (const int32_t y : kInts) {
        const auto a = static_cast<uint32_t>(x), b = static_cast<uint32_t>(y);
        if (takes_ints(op)) {
          expect_folds(
              op,
              Type::Int,
              count == 1       ? std::vector{a}
                  : count == 2 ? std::vector{a, b}
                               : std::vector{uint32_t{x > y}, a, b});
        }
      }
    }
  }
  for (const Op op : {Op::And, Op::Or, Op::Xor}) {
    for (const uint32_t pair : {0u, 1u, 2u, 3u}) {
      expect_folds(op, Type::Bool, {pair & 1, pair >> 1});
    }
  }
}

} // namespace
} // namespace zmlx
