// SPDX-License-Identifier: MIT
// Builds expressions: every node once, simplified as it is made.
#pragma once

#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

/// A growing set of nodes, operands before use. Nodes are named by their index.
/// What is simplified keeps the value (NaN, infinities, signed zeros) within
/// the accuracy of the operations; exp(z) / (1 + exp(z)) becomes Sigmoid, which
/// does not overflow.
class Graph {
 public:
  using Id = int;

  Id constant(float value);
  Id constant_int(int32_t value);
  Id constant_bool(bool value);
  Id input(int number);

  /// The node of an operation; operands must have the types that Op asks for.
  Id make(Op op, Id a, Id b = -1, Id c = -1);

  Id neg(Id a) {
    return make(Op::Neg, a);
  }
  Id add(Id a, Id b) {
    return make(Op::Add, a, b);
  }
  Id sub(Id a, Id b) {
    return make(Op::Sub, a, b);
  }
  Id mul(Id a, Id b) {
    return make(Op::Mul, a, b);
  }
  Id div(Id a, Id b) {
    return make(Op::Div, a, b);
  }
  Id select(Id condition, Id yes, Id no) {
    return make(Op::Select, condition, yes, no);
  }
  /// The node converted as C does; to Bool means "is not zero".
  Id convert(Id a, Type to);

  const Instruction& at(Id id) const {
    return nodes_[id];
  }
  Type type(Id id) const {
    return nodes_[id].type;
  }
  int size() const {
    return static_cast<int>(nodes_.size());
  }
  bool is_constant(Id id) const {
    return nodes_[id].op == Op::Constant;
  }
  /// Whether a node is the Float constant `value`, sign of zero included.
  bool is(Id id, float value) const;

  /// Copies an expression in, with `inputs` in place of its inputs; returns
  /// the nodes of its outputs.
  std::vector<Id> append(
      const FlatExpression& expression,
      std::span<const Id> inputs);

  /// The program that computes `outputs` and nothing else.
  FlatExpression flatten(std::span<const Id> outputs, int num_inputs) const;

 private:
  struct Hash {
    size_t operator()(const Instruction& node) const;
  };

  Id node(const Instruction& instruction);
  std::optional<Id> fold(const Instruction& node);
  std::optional<Id> simplify_float(const Instruction& node);
  std::optional<Id> simplify_sum(const Instruction& node);
  std::optional<Id> simplify_product(const Instruction& node);
  std::optional<Id> simplify_quotient(const Instruction& node);
  std::optional<Id> simplify_power(const Instruction& node);
  std::optional<Id> simplify_logic(const Instruction& node);
  std::optional<Id> logistic(Id top, Id bottom);
  std::optional<Id> tanh_of_softplus(Id inner);

  std::vector<Instruction> nodes_;
  std::unordered_map<Instruction, Id, Hash> known_;
};

} // namespace zmlx::dialect
