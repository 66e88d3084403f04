// SPDX-License-Identifier: MIT
// Builds row programs: totals are named freely, and the passes come out.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "zmlx/dialect/graph.h"
#include "zmlx/dialect/row_program.h"

namespace zmlx::dialect {

/// A row program under construction: one graph for all its expressions.
class RowGraph {
 public:
  using Id = Graph::Id;
  struct Total {
    Combine combine;
    float init;
    Id value;
  };

  RowGraph(int num_elements, int num_row_values)
      : num_elements_(num_elements), num_row_values_(num_row_values) {}
  explicit RowGraph(const RowProgram& program);

  Graph& graph() {
    return graph_;
  }
  /// Nodes of the inputs; numbers beyond those given to the constructor add
  /// inputs.
  Id element(int number);
  Id row_value(int number);
  /// The node of a total, once add_total() has made it.
  Id total(int number);
  /// The running value of the total that add_total() makes next: what the
  /// value of a Serial total is made from.
  Id running();

  /// A new total, or the number of an equal one.
  int add_total(Combine combine, float init, Id value);
  /// The number of a total made from the text of an update, `update` being made
  /// from running(): a sum, product, minimum or maximum when it is one.
  int add_update(float init, Id update);

  int num_elements() const {
    return num_elements_;
  }
  int num_row_values() const {
    return num_row_values_;
  }
  const std::vector<Total>& totals() const {
    return totals_;
  }

  /// Values for each element, and for the row; to be filled.
  std::vector<Id> write, finish;

  /// The program, with each total in the earliest pass that it can be in, and
  /// without those that nothing needs.
  RowProgram build() const;

 private:
  struct Schedule;
  Schedule schedule() const;
  FlatExpression flatten(
      const Schedule& schedule,
      std::span<const Id> values,
      int pass,
      bool rows) const;

  Graph graph_;
  int num_elements_, num_row_values_;
  std::vector<Total> totals_;
};

/// An update read as "running, combined with value".
struct Update {
  Combine combine;
  Graph::Id value;
};

/// How `update` uses `running`; none where it is no sum, product, minimum or
/// maximum of running and a value without it.
std::optional<Update>
recognize_update(Graph& graph, Graph::Id update, Graph::Id running);

} // namespace zmlx::dialect
