// SPDX-License-Identifier: MIT
#include "zmlx/dialect/row_derivative.h"

#include <algorithm>

#include "zmlx/dialect/derivative.h"
#include "zmlx/dialect/row_graph.h"

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

// Slopes of every expression of a program by each of its inputs and totals.
class RowDerivatives {
 public:
  explicit RowDerivatives(const RowProgram& program)
      : rows_(program),
        num_elements_(program.num_elements),
        num_row_values_(program.num_row_values),
        num_totals_(program.num_totals()),
        write_(rows_.write),
        finish_(rows_.finish) {
    rows_.write.clear();
    rows_.finish.clear();
    for (int t = 0; t < num_totals_; ++t) {
      values_.push_back(rows_.totals()[t].value);
    }
  }

  RowProgram vjp(std::span<const int> inputs);
  RowProgram jvp(std::span<const int> inputs);

 private:
  struct Slopes {
    std::vector<Id> values, write, finish; // -1: zero
  };

  Graph& graph() {
    return rows_.graph();
  }
  Id input(int number) {
    return number < num_elements_ ? rows_.element(number)
                                  : rows_.row_value(number - num_elements_);
  }
  Slopes slopes(Id variable) {
    Slopes made;
    made.values = derivatives(graph(), values_, variable);
    made.write = derivatives(graph(), write_, variable);
    made.finish = derivatives(graph(), finish_, variable);
    return made;
  }
  void add(Id& sum, Id a, Id b) {
    if (a >= 0 && b >= 0) {
      const Id term = graph().mul(a, b);
      sum = sum < 0 ? term : graph().add(sum, term);
    }
  }
  Id or_zero(Id id) {
    return id < 0 ? graph().constant(0.0f) : id;
  }
  Id total_of(Id value) {
    return rows_.total(rows_.add_total(Combine::Sum, 0.0f, value));
  }
  Id weight(int total);
  Id product_weight(const RowGraph::Total& made, Id total);
  Id for_elements(const Slopes& slopes, int first_total);

  RowGraph rows_;
  int num_elements_, num_row_values_, num_totals_;
  std::vector<Id> write_, finish_, values_;
  std::vector<Id> adjoints_; // of totals: values of the row, or -1
};

// d total / d value at an element.
Id RowDerivatives::weight(int total) {
  const auto made = rows_.totals()[total]; // a copy: totals grow
  const Id node = rows_.total(total);
  Graph& g = graph();
  const Id one = g.constant(1.0f), zero = g.constant(0.0f);
  if (made.combine == Combine::Sum) {
    return one;
  }
  if (made.combine == Combine::Product) {
    return product_weight(made, node);
  }
  const Id hit = g.make(Op::Equal, made.value, node);
  const Id count = total_of(g.select(hit, one, zero));
  return g.select(hit, g.div(one, count), zero);
}

// The product of all other values: total / value, but where there are zeros
// the product of the rest, at the only zero.
Id RowDerivatives::product_weight(const RowGraph::Total& made, Id total) {
  Graph& g = graph();
  const Id one = g.constant(1.0f), zero = g.constant(0.0f);
  const Id is_zero = g.make(Op::Equal, made.value, zero);
  const Id zeros = total_of(g.select(is_zero, one, zero));
  const Id others = rows_.total(rows_.add_total(
      Combine::Product, made.init, g.select(is_zero, one, made.value)));
  const Id only = g.make(Op::And, g.make(Op::Equal, zeros, one), is_zero);
  return g.select(
      g.make(Op::Equal, zeros, zero),
      g.div(total, made.value),
      g.select(only, others, zero));
}

// The cotangents of outputs and later totals, times their slopes: a value for
// each element.
Id RowDerivatives::for_elements(const Slopes& slopes, int first_total) {
  Id sum = -1;
  for (size_t i = 0; i < write_.size(); ++i) {
    add(sum,
        rows_.element(num_elements_ + static_cast<int>(i)),
        slopes.write[i]);
  }
  for (int t = first_total; t < num_totals_; ++t) {
    if (adjoints_[t] >= 0 && slopes.values[t] >= 0) {
      add(sum, adjoints_[t], graph().mul(weight(t), slopes.values[t]));
    }
  }
  return sum;
}

RowProgram RowDerivatives::vjp(std::span<const int> inputs) {
  const auto for_row = [&](const Slopes& slopes) {
    Id sum = -1;
    for (size_t i = 0; i < finish_.size(); ++i) {
      add(sum,
          rows_.row_value(num_row_values_ + static_cast<int>(i)),
          slopes.finish[i]);
    }
    return sum;
  };
  const auto plus_total = [&](Id row, Id elements) {
    if (elements < 0) {
      return row;
    }
    const Id total = total_of(elements);
    return row < 0 ? total : graph().add(row, total);
  };
  adjoints_.assign(static_cast<size_t>(num_totals_), -1);
  for (int t = num_totals_ - 1; t >= 0; --t) {
    const Slopes by_total = slopes(rows_.total(t));
    adjoints_[t] = plus_total(for_row(by_total), for_elements(by_total, t + 1));
  }
  // Cotangents are inputs even where nothing depends on them.
  for (size_t i = 0; i < write_.size(); ++i) {
    rows_.element(num_elements_ + static_cast<int>(i));
  }
  for (size_t i = 0; i < finish_.size(); ++i) {
    rows_.row_value(num_row_values_ + static_cast<int>(i));
  }
  for (const int number : inputs) {
    const Slopes by_input = slopes(input(number));
    const Id elements = for_elements(by_input, 0);
    if (number < num_elements_) {
      rows_.write.push_back(or_zero(elements));
    } else {
      rows_.finish.push_back(or_zero(plus_total(for_row(by_input), elements)));
    }
  }
  return rows_.build();
}

RowProgram RowDerivatives::jvp(std::span<const int> inputs) {
  std::vector<Id> tangents;
  std::vector<Slopes> by_input;
  int elements = num_elements_, row_values = num_row_values_;
  for (const int number : inputs) {
    tangents.push_back(
        number < num_elements_ ? rows_.element(elements++)
                               : rows_.row_value(row_values++));
    by_input.push_back(slopes(input(number)));
  }
  // Totals in order, each after those that it is made from.
  for (int t = 0; t < num_totals_; ++t) {
    Id along = -1;
    for (size_t i = 0; i < tangents.size(); ++i) {
      add(along, tangents[i], by_input[i].values[t]);
    }
    Id tangent = -1;
    if (along >= 0) {
      tangent = total_of(graph().mul(weight(t), along));
    }
    tangents.push_back(tangent);
    by_input.push_back(slopes(rows_.total(t)));
  }
  for (size_t output = 0; output < write_.size(); ++output) {
    Id sum = -1;
    for (size_t i = 0; i < tangents.size(); ++i) {
      add(sum, tangents[i], by_input[i].write[output]);
    }
    rows_.write.push_back(or_zero(sum));
  }
  for (size_t output = 0; output < finish_.size(); ++output) {
    Id sum = -1;
    for (size_t i = 0; i < tangents.size(); ++i) {
      add(sum, tangents[i], by_input[i].finish[output]);
    }
    rows_.finish.push_back(or_zero(sum));
  }
  return rows_.build();
}

} // namespace

bool is_differentiable(const RowProgram& program) {
  return std::ranges::all_of(program.passes, [](const RowPass& pass) {
    return std::ranges::none_of(pass.reductions, [](const Reduction& made) {
      return made.combine == Combine::Serial;
    });
  });
}

RowProgram vjp_of(const RowProgram& program, std::span<const int> inputs) {
  return RowDerivatives(program).vjp(inputs);
}

RowProgram jvp_of(const RowProgram& program, std::span<const int> inputs) {
  return RowDerivatives(program).jvp(inputs);
}

} // namespace zmlx::dialect
