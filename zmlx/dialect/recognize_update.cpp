// SPDX-License-Identifier: MIT
// Finds the sum, product, minimum or maximum in an update.
#include <cmath>
#include <limits>

#include "zmlx/dialect/row_graph.h"

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

constexpr float kInf = std::numeric_limits<float>::infinity();

class Recognizer {
 public:
  Recognizer(Graph& graph, Id running, Combine combine)
      : graph_(graph), running_(running), combine_(combine) {
    for (Id id = 0; id < graph.size(); ++id) {
      const auto& node = graph.at(id);
      uses_.push_back(id == running);
      for (int i = 0; i < arity(node.op); ++i) {
        uses_[id] = uses_[id] || uses_[node.args[i]];
      }
    }
  }

  bool uses(Id id) const {
    return id < static_cast<Id>(uses_.size()) && uses_[id];
  }

  // What running is combined with in `id`; nothing when it is something else.
  std::optional<Id> rest(Id id) {
    if (id == running_) {
      return neutral();
    }
    if (!uses(id)) {
      return std::nullopt;
    }
    const Instruction node = graph_.at(id);
    const auto [a, b, c] = node.args;
    if (node.op == Op::Select && !uses(a)) {
      const auto yes = rest(b), no = rest(c);
      return yes && no ? std::optional(graph_.select(a, *yes, *no))
                       : std::nullopt;
    }
    if (node.op == Op::Select) {
      return chosen(node);
    }
    if (combine_ == Combine::Sum && node.op == Op::Fma && !uses(a) &&
        !uses(b)) {
      return joined(Op::Add, c, graph_.mul(a, b));
    }
    const Op op = combine_ == Combine::Sum ? Op::Add
        : combine_ == Combine::Product     ? Op::Mul
        : combine_ == Combine::Max         ? Op::Max
                                           : Op::Min;
    if (node.op == op) {
      return uses(a) ? joined(op, a, b) : joined(op, b, a);
    }
    if (node.op == Op::Sub && combine_ == Combine::Sum) {
      return joined(Op::Sub, a, b);
    }
    if (node.op == Op::Div && combine_ == Combine::Product) {
      return joined(Op::Div, a, b);
    }
    return std::nullopt;
  }

 private:
  Id neutral() {
    return graph_.constant(
        combine_ == Combine::Sum           ? 0.0f
            : combine_ == Combine::Product ? 1.0f
            : combine_ == Combine::Max     ? -kInf
                                           : kInf);
  }

  // inner, which uses running, with a value that does not.
  std::optional<Id> joined(Op op, Id inner, Id value) {
    if (uses(value)) {
      return std::nullopt;
    }
    const auto before = rest(inner);
    if (!before) {
      return std::nullopt;
    }
    if (*before != neutral()) {
      return graph_.make(op, *before, value);
    }
    return op == Op::Sub ? graph_.neg(value)
        : op == Op::Div  ? graph_.div(graph_.constant(1.0f), value)
                         : value;
  }

  // running < v ? v : running, and its like.
  std::optional<Id> chosen(const Instruction& select) {
    const auto [condition, yes, no] = select.args;
    const auto& test = graph_.at(condition);
    if (test.op != Op::Less && test.op != Op::LessEqual) {
      return std::nullopt;
    }
    const Id small = test.args[0], big = test.args[1];
    const bool takes_big = yes == big && no == small;
    const bool takes_small = yes == small && no == big;
    const Id value = small == running_ ? big : small;
    if ((small != running_ && big != running_) || uses(value) ||
        !(combine_ == Combine::Max ? takes_big
                                   : combine_ == Combine::Min && takes_small)) {
      return std::nullopt;
    }
    return value;
  }

  Graph& graph_;
  Id running_;
  Combine combine_;
  std::vector<char> uses_;
};

} // namespace

std::optional<Update> recognize_update(Graph& graph, Id update, Id running) {
  for (const auto combine :
       {Combine::Sum, Combine::Product, Combine::Max, Combine::Min}) {
    if (const auto value = Recognizer(graph, running, combine).rest(update)) {
      return Update{combine, *value};
    }
  }
  return std::nullopt;
}

} // namespace zmlx::dialect
