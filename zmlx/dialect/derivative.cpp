// SPDX-License-Identifier: MIT
#include "zmlx/dialect/derivative.h"

#include <cmath>
#include <numbers>

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

// Derivatives of nodes, each computed once. -1 is a zero.
class Derivatives {
 public:
  Derivatives(Graph& graph, Id variable)
      : graph_(graph), known_(static_cast<size_t>(graph.size()), -1) {
    // Nodes are in topological order, so no recursion is needed.
    const int count = graph.size();
    for (Id id = 0; id < count; ++id) {
      if (id == variable) {
        known_[id] = graph_.constant(1.0f);
      } else if (graph_.type(id) == Type::Float) {
        known_[id] = of(id);
      }
    }
  }

  Id operator[](Id id) const {
    return known_[id];
  }

 private:
  Id number(double value) {
    return graph_.constant(static_cast<float>(value));
  }
  Id plus(Id a, Id b) {
    return a < 0 ? b : b < 0 ? a : graph_.add(a, b);
  }
  Id minus(Id a, Id b) {
    return b < 0 ? a : a < 0 ? graph_.neg(b) : graph_.sub(a, b);
  }
  Id times(Id a, Id b) {
    return a < 0 || b < 0 ? -1 : graph_.mul(a, b);
  }
  Id over(Id a, Id b) {
    return a < 0 ? -1 : graph_.div(a, b);
  }
  Id choose(Id condition, Id a, Id b) {
    if (a < 0 && b < 0) {
      return -1;
    }
    return graph_.select(
        condition, a < 0 ? number(0) : a, b < 0 ? number(0) : b);
  }
  Id square(Id a) {
    return graph_.mul(a, a);
  }
  // (1 - a) * (1 + a): 1 - a^2 without cancellation at a = 1.
  Id one_minus_square(Id a) {
    return graph_.mul(graph_.sub(number(1), a), graph_.add(number(1), a));
  }

  Id of(Id id);
  Id of_function(Id id, Id a, Id da);
  Id of_inverse_function(Op op, Id a, Id da);
  Id of_pow(Id y, Id a, Id b, Id da, Id db);
  Id of_atan2(Id a, Id b, Id da, Id db);

  Graph& graph_;
  std::vector<Id> known_;
};

Id Derivatives::of(Id id) {
  const Instruction node = graph_.at(id); // a copy: the graph grows
  const auto [a, b, c] = node.args;
  const Id da = a < 0 ? -1 : known_[a];
  const Id db = b < 0 ? -1 : known_[b];
  const Id dc = c < 0 ? -1 : known_[c];
  if (da < 0 && db < 0 && dc < 0) {
    return -1;
  }
  switch (node.op) {
    case Op::Neg:
      return graph_.neg(da);
    case Op::Add:
      return plus(da, db);
    case Op::Sub:
      return minus(da, db);
    case Op::Mul:
      return plus(times(da, b), times(a, db));
    case Op::Div:
      return minus(over(da, b), over(times(id, db), b));
    case Op::Min:
      return choose(graph_.make(Op::Less, a, b), da, db);
    case Op::Max:
      return choose(graph_.make(Op::Less, b, a), da, db);
    case Op::Select:
      return choose(a, db, dc);
    case Op::Fma:
      return plus(plus(times(da, b), times(a, db)), dc);
    case Op::Pow:
      return of_pow(id, a, b, da, db);
    case Op::Atan2:
      return of_atan2(a, b, da, db);
    case Op::Fmod:
      return minus(da, times(graph_.make(Op::Trunc, graph_.div(a, b)), db));
    case Op::CopySign: // the sign of a times the sign of b
      return times(
          da,
          graph_.mul(
              graph_.make(Op::CopySign, number(1), a),
              graph_.make(Op::CopySign, number(1), b)));
    default:
      return of_function(id, a, da);
  }
}

Id Derivatives::of_pow(Id y, Id a, Id b, Id da, Id db) {
  Id base = -1, exponent = -1;
  if (da >= 0) {
    const Id less = graph_.sub(b, number(1));
    base = times(graph_.mul(b, graph_.make(Op::Pow, a, less)), da);
  }
  if (db >= 0) {
    const Id slope = graph_.mul(graph_.make(Op::Log, a), y);
    const Id zero = graph_.make(Op::Equal, a, number(0));
    exponent = times(graph_.select(zero, number(0), slope), db);
  }
  return plus(base, exponent);
}

Id Derivatives::of_atan2(Id a, Id b, Id da, Id db) {
  const Id size = graph_.add(square(a), square(b));
  return over(minus(times(b, da), times(a, db)), size);
}

// y = f(a): f'(a) * da, where id is y.
Id Derivatives::of_function(Id id, Id a, Id da) {
  Graph& g = graph_;
  const Op op = g.at(id).op;
  switch (op) {
    case Op::Abs:
      return times(g.make(Op::Sign, a), da);
    case Op::RoundHalf:
    case Op::RoundBfloat:
    case Op::Fract:
      return da;
    case Op::Exp:
      return times(id, da);
    case Op::Exp2:
      return times(g.mul(id, number(std::numbers::ln2)), da);
    case Op::Exp10:
      return times(g.mul(id, number(std::numbers::ln10)), da);
    case Op::Expm1: // not y + 1, which cancels
      return times(g.make(Op::Exp, a), da);
    case Op::Log:
      return over(da, a);
    case Op::Log2:
      return over(times(da, number(std::numbers::log2e)), a);
    case Op::Log10:
      return over(times(da, number(std::numbers::log10e)), a);
    case Op::Log1p:
      return over(da, g.add(number(1), a));
    case Op::Sin:
      return times(g.make(Op::Cos, a), da);
    case Op::Cos:
      return g.neg(times(g.make(Op::Sin, a), da));
    case Op::Tan:
      return times(g.add(number(1), square(id)), da);
    case Op::SinPi:
      return times(g.mul(number(std::numbers::pi), g.make(Op::CosPi, a)), da);
    case Op::CosPi:
      return times(g.mul(number(-std::numbers::pi), g.make(Op::SinPi, a)), da);
    case Op::TanPi:
      return times(
          g.mul(number(std::numbers::pi), g.add(number(1), square(id))), da);
    case Op::Sinh:
      return times(g.make(Op::Cosh, a), da);
    case Op::Cosh:
      return times(g.make(Op::Sinh, a), da);
    case Op::Tanh:
      return times(g.sub(number(1), square(id)), da);
    case Op::Sqrt:
      return over(times(number(0.5), da), id);
    case Op::Rsqrt:
      return times(g.mul(number(-0.5), g.mul(square(id), id)), da);
    case Op::Erf:
    case Op::Erfc: {
      const double scale = 2 * std::numbers::inv_sqrtpi;
      const Id bell = g.make(Op::Exp, g.neg(square(a)));
      return times(g.mul(number(op == Op::Erf ? scale : -scale), bell), da);
    }
    case Op::Sigmoid:
      return times(g.mul(id, g.sub(number(1), id)), da);
    default:
      return of_inverse_function(op, a, da);
  }
}

Id Derivatives::of_inverse_function(Op op, Id a, Id da) {
  Graph& g = graph_;
  switch (op) {
    case Op::Asin:
      return times(g.make(Op::Rsqrt, one_minus_square(a)), da);
    case Op::Acos:
      return g.neg(times(g.make(Op::Rsqrt, one_minus_square(a)), da));
    case Op::Atan:
      return over(da, g.add(number(1), square(a)));
    case Op::Asinh:
      return times(g.make(Op::Rsqrt, g.add(number(1), square(a))), da);
    case Op::Acosh:
      return times(
          g.make(Op::Rsqrt, g.mul(g.sub(a, number(1)), g.add(a, number(1)))),
          da);
    case Op::Atanh:
      return over(da, one_minus_square(a));
    default: // steps: Floor, Ceil, Round, Rint, Trunc, Sign
      return -1;
  }
}

// The expression in a graph of its own.
struct Loaded {
  Graph graph;
  std::vector<Id> inputs, outputs;

  explicit Loaded(const FlatExpression& expression) {
    for (int i = 0; i < expression.num_inputs; ++i) {
      inputs.push_back(graph.input(i));
    }
    outputs = graph.append(expression, inputs);
  }
};

} // namespace

std::vector<Id>
derivatives(Graph& graph, std::span<const Id> values, Id variable) {
  const Derivatives all(graph, variable);
  std::vector<Id> slopes;
  for (const Id value : values) {
    slopes.push_back(all[value]);
  }
  return slopes;
}

FlatExpression vjp_of(
    const FlatExpression& expression,
    std::span<const int> inputs) {
  Loaded loaded(expression);
  Graph& graph = loaded.graph;
  const int num_outputs = static_cast<int>(loaded.outputs.size());
  std::vector<Id> results;
  for (const int input : inputs) {
    const Derivatives slopes(graph, loaded.inputs[input]);
    Id total = -1;
    for (int i = 0; i < num_outputs; ++i) {
      if (const Id slope = slopes[loaded.outputs[i]]; slope >= 0) {
        const Id cotangent = graph.input(expression.num_inputs + i);
        const Id term = graph.mul(cotangent, slope);
        total = total < 0 ? term : graph.add(total, term);
      }
    }
    results.push_back(total < 0 ? graph.constant(0.0f) : total);
  }
  return graph.flatten(results, expression.num_inputs + num_outputs);
}

FlatExpression jvp_of(
    const FlatExpression& expression,
    std::span<const int> inputs) {
  Loaded loaded(expression);
  Graph& graph = loaded.graph;
  std::vector<Id> totals(loaded.outputs.size(), -1);
  int tangent = expression.num_inputs;
  for (const int input : inputs) {
    const Derivatives slopes(graph, loaded.inputs[input]);
    const Id along = graph.input(tangent++);
    for (size_t i = 0; i < totals.size(); ++i) {
      if (const Id slope = slopes[loaded.outputs[i]]; slope >= 0) {
        const Id term = graph.mul(along, slope);
        totals[i] = totals[i] < 0 ? term : graph.add(totals[i], term);
      }
    }
  }
  for (auto& total : totals) {
    total = total < 0 ? graph.constant(0.0f) : total;
  }
  return graph.flatten(totals, tangent);
}

} // namespace zmlx::dialect
