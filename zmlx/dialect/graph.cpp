// SPDX-License-Identifier: MIT
#include "zmlx/dialect/graph.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "zmlx/dialect/scalar.h"

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

bool is_compare(Op op) {
  return op == Op::Less || op == Op::LessEqual || op == Op::Equal ||
      op == Op::NotEqual;
}

bool commutes(Op op) {
  return op == Op::Add || op == Op::Mul || op == Op::And || op == Op::Or ||
      op == Op::Xor || op == Op::Equal || op == Op::NotEqual;
}

bool is_power_of_two(float value) {
  int exponent = 0;
  return std::isnormal(value) && std::isnormal(1.0f / value) &&
      std::abs(std::frexp(value, &exponent)) == 0.5f;
}

} // namespace

size_t Graph::Hash::operator()(const Instruction& node) const {
  uint64_t hash =
      static_cast<uint64_t>(node.op) * 4 + static_cast<uint64_t>(node.type);
  for (const int arg : node.args) {
    hash = hash * 0x9e3779b97f4a7c15u + static_cast<uint32_t>(arg);
    hash ^= hash >> 29;
  }
  hash = hash * 0x9e3779b97f4a7c15u + node.bits;
  return static_cast<size_t>(hash ^ (hash >> 32));
}

Id Graph::node(const Instruction& instruction) {
  const auto [place, added] = known_.try_emplace(instruction, size());
  if (added) {
    nodes_.push_back(instruction);
  }
  return place->second;
}

Id Graph::constant(float value) {
  return node(
      {.op = Op::Constant,
       .type = Type::Float,
       .bits = std::bit_cast<uint32_t>(value)});
}

Id Graph::constant_int(int32_t value) {
  return node(
      {.op = Op::Constant,
       .type = Type::Int,
       .bits = static_cast<uint32_t>(value)});
}

Id Graph::constant_bool(bool value) {
  return node({.op = Op::Constant, .type = Type::Bool, .bits = value});
}

Id Graph::input(int number) {
  return node(
      {.op = Op::Input,
       .type = Type::Float,
       .bits = static_cast<uint32_t>(number)});
}

bool Graph::is(Id id, float value) const {
  const auto& node = nodes_[id];
  return node.op == Op::Constant && node.type == Type::Float &&
      node.bits == std::bit_cast<uint32_t>(value);
}

Id Graph::make(Op op, Id a, Id b, Id c) {
  Instruction made{.op = op, .args = {a, b, c}};
  const Type operands = op == Op::Select ? type(b) : type(a);
  made.type = is_compare(op) ? Type::Bool
      : op == Op::ToFloat    ? Type::Float
      : op == Op::ToInt      ? Type::Int
                             : operands;
  if (op == Op::Select && operands == Type::Bool) {
    return make(
        Op::Or, make(Op::And, a, b), make(Op::And, make(Op::Not, a), c));
  }
  if (commutes(op)) { // the order in which it was first written stays
    auto turned = made;
    std::swap(turned.args[0], turned.args[1]);
    if (const auto found = known_.find(turned); found != known_.end()) {
      return found->second;
    }
  }
  if (const auto folded = fold(made)) {
    return *folded;
  }
  const auto simpler =
      made.type == Type::Float ? simplify_float(made) : simplify_logic(made);
  return simpler ? *simpler : node(made);
}

std::optional<Id> Graph::fold(const Instruction& made) {
  uint32_t bits[3] = {};
  for (int i = 0; i < arity(made.op); ++i) {
    const auto& operand = nodes_[made.args[i]];
    if (operand.op != Op::Constant) {
      return std::nullopt;
    }
    bits[i] = operand.bits;
  }
  const Type operands = nodes_[made.args[made.op == Op::Select]].type;
  return node(
      {.op = Op::Constant,
       .type = made.type,
       .bits = evaluate(made.op, operands, bits[0], bits[1], bits[2])});
}

std::optional<Id> Graph::simplify_float(const Instruction& made) {
  const auto [a, b, c] = made.args;
  const Op inner = nodes_[a].op;
  switch (made.op) {
    case Op::Neg:
      return inner == Op::Neg ? std::optional(nodes_[a].args[0]) : std::nullopt;
    case Op::Abs:
      return inner == Op::Abs ? std::optional(a)
          : inner == Op::Neg  ? std::optional(make(Op::Abs, nodes_[a].args[0]))
                              : std::nullopt;
    case Op::Add:
    case Op::Sub:
      return simplify_sum(made);
    case Op::Mul:
      return simplify_product(made);
    case Op::Div:
      return simplify_quotient(made);
    case Op::Pow:
      return simplify_power(made);
    case Op::Tanh:
      return tanh_of_softplus(a);
    case Op::Min:
    case Op::Max:
      return a == b ? std::optional(a) : std::nullopt;
    case Op::RoundHalf:
    case Op::RoundBfloat:
    case Op::Floor:
    case Op::Ceil:
    case Op::Round:
    case Op::Rint:
    case Op::Trunc:
      return inner == made.op ? std::optional(a) : std::nullopt;
    case Op::Select:
      return simplify_logic(made);
    default:
      return std::nullopt;
  }
}

std::optional<Id> Graph::simplify_sum(const Instruction& made) {
  const auto [a, b, c] = made.args;
  const bool adds = made.op == Op::Add;
  // The zero that changes no value: x + -0, x - +0.
  if (is(b, adds ? -0.0f : 0.0f)) {
    return a;
  }
  if (adds && is(a, -0.0f)) {
    return b;
  }
  if (nodes_[b].op == Op::Neg) {
    return make(adds ? Op::Sub : Op::Add, a, nodes_[b].args[0]);
  }
  if (adds && nodes_[a].op == Op::Neg) {
    return sub(b, nodes_[a].args[0]);
  }
  return std::nullopt;
}

std::optional<Id> Graph::simplify_product(const Instruction& made) {
  const auto [a, b, c] = made.args;
  for (const auto& [x, y] : {std::pair(a, b), std::pair(b, a)}) {
    if (is(y, 1.0f)) {
      return x;
    }
    if (is(y, -1.0f)) {
      return neg(x);
    }
    if (nodes_[x].op == Op::Neg) {
      return is_constant(y) ? mul(nodes_[x].args[0], neg(y))
                            : neg(mul(nodes_[x].args[0], y));
    }
  }
  return std::nullopt;
}

// top / bottom with bottom = 1 + exp(z), whose derivative would overflow: a
// Sigmoid times what top has besides 1 or exp(z).
std::optional<Id> Graph::logistic(Id top, Id bottom) {
  if (nodes_[bottom].op != Op::Add) {
    return std::nullopt;
  }
  auto [one, power, unused] = nodes_[bottom].args;
  if (!is(one, 1.0f)) {
    std::swap(one, power);
  }
  if (!is(one, 1.0f) || nodes_[power].op != Op::Exp) {
    return std::nullopt;
  }
  const Id z = nodes_[power].args[0];
  if (top == power) {
    return make(Op::Sigmoid, z);
  }
  if (nodes_[top].op == Op::Mul) {
    const auto [x, y, none] = nodes_[top].args;
    if (x == power || y == power) {
      return mul(make(Op::Sigmoid, z), x == power ? y : x);
    }
  }
  return mul(top, make(Op::Sigmoid, neg(z)));
}

// tanh(log(1 + e)) with e = exp(z) is n / (n + 2) with n = e (e + 2), to full
// relative precision, and 1 long before n overflows.
std::optional<Id> Graph::tanh_of_softplus(Id inner) {
  const auto [a, b, c] = nodes_[inner].args;
  Id power = -1;
  if (nodes_[inner].op == Op::Log1p) {
    power = a;
  } else if (nodes_[inner].op == Op::Log && nodes_[a].op == Op::Add) {
    const auto [x, y, none] = nodes_[a].args;
    power = is(x, 1.0f) ? y : is(y, 1.0f) ? x : -1;
  }
  if (power < 0 || nodes_[power].op != Op::Exp) {
    return std::nullopt;
  }
  const Id two = constant(2.0f);
  const Id n = mul(power, add(power, two));
  return select(
      make(Op::Less, constant(0x1p15f), power),
      constant(1.0f),
      div(n, add(n, two)));
}

std::optional<Id> Graph::simplify_quotient(const Instruction& made) {
  const auto [a, b, c] = made.args;
  if (is(b, 1.0f)) {
    return a;
  }
  if (is(b, -1.0f)) {
    return neg(a);
  }
  if (nodes_[a].op == Op::Neg) {
    return neg(div(nodes_[a].args[0], b));
  }
  if (nodes_[b].op == Op::Neg) {
    return neg(div(a, nodes_[b].args[0]));
  }
  if (is_constant(b) && is_power_of_two(nodes_[b].as_float())) {
    return mul(a, constant(1.0f / nodes_[b].as_float()));
  }
  return logistic(a, b);
}

std::optional<Id> Graph::simplify_power(const Instruction& made) {
  const auto [a, b, c] = made.args;
  if (is(b, 0.0f) || is(b, -0.0f)) {
    return constant(1.0f);
  }
  if (is(b, 1.0f)) {
    return a;
  }
  if (is(b, -1.0f)) {
    return div(constant(1.0f), a);
  }
  if (is(b, 2.0f)) {
    return mul(a, a);
  }
  if (is(b, 3.0f)) {
    return mul(mul(a, a), a);
  }
  return std::nullopt;
}

std::optional<Id> Graph::simplify_logic(const Instruction& made) {
  const auto [a, b, c] = made.args;
  const auto inverse = [&](Id x, Id y) {
    return nodes_[x].op == Op::Not && nodes_[x].args[0] == y;
  };
  switch (made.op) {
    case Op::Select:
      if (is_constant(a)) {
        return nodes_[a].bits ? b : c;
      }
      if (b == c) {
        return b;
      }
      if (nodes_[a].op == Op::Not) {
        return select(nodes_[a].args[0], c, b);
      }
      return std::nullopt;
    case Op::Not:
      return nodes_[a].op == Op::Not ? std::optional(nodes_[a].args[0])
                                     : std::nullopt;
    case Op::And:
    case Op::Or: {
      if (made.type != Type::Bool) {
        return std::nullopt;
      }
      const bool is_and = made.op == Op::And;
      if (a == b) {
        return a;
      }
      if (inverse(a, b) || inverse(b, a)) {
        return constant_bool(!is_and);
      }
      for (const auto& [x, y] : {std::pair(a, b), std::pair(b, a)}) {
        if (is_constant(y)) {
          return (nodes_[y].bits != 0) == is_and ? x : y;
        }
      }
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

Id Graph::convert(Id a, Type to) {
  const Type from = type(a);
  if (from == to) {
    return a;
  }
  if (to == Type::Float) {
    return make(Op::ToFloat, a);
  }
  if (to == Type::Int) {
    return make(Op::ToInt, a);
  }
  return make(
      Op::NotEqual, a, from == Type::Float ? constant(0.0f) : constant_int(0));
}

std::vector<Id> Graph::append(
    const FlatExpression& expression,
    std::span<const Id> inputs) {
  std::vector<Id> ids;
  ids.reserve(expression.code.size());
  const auto id = [&](int arg) { return arg < 0 ? -1 : ids[arg]; };
  for (const auto& step : expression.code) {
    if (step.op == Op::Input) {
      ids.push_back(inputs[step.bits]);
    } else if (step.op == Op::Constant) {
      ids.push_back(node(step));
    } else {
      ids.push_back(
          make(step.op, id(step.args[0]), id(step.args[1]), id(step.args[2])));
    }
  }
  std::vector<Id> outputs;
  for (const int output : expression.outputs) {
    outputs.push_back(ids[output]);
  }
  return outputs;
}

FlatExpression Graph::flatten(std::span<const Id> outputs, int num_inputs)
    const {
  std::vector<int> place(nodes_.size(), -1);
  for (const Id output : outputs) {
    place[output] = 0;
  }
  for (Id id = size() - 1; id >= 0; --id) {
    if (place[id] == 0) {
      for (int i = 0; i < arity(nodes_[id].op); ++i) {
        place[nodes_[id].args[i]] = 0;
      }
    }
  }
  FlatExpression flat;
  flat.num_inputs = num_inputs;
  for (Id id = 0; id < size(); ++id) {
    if (place[id] != 0) {
      continue;
    }
    Instruction step = nodes_[id];
    for (int i = 0; i < arity(step.op); ++i) {
      step.args[i] = place[step.args[i]];
    }
    place[id] = static_cast<int>(flat.code.size());
    flat.code.push_back(step);
  }
  for (const Id output : outputs) {
    assert(type(output) == Type::Float);
    flat.outputs.push_back(place[output]);
  }
  return flat;
}

} // namespace zmlx::dialect
