// SPDX-License-Identifier: MIT
// A program over rows: reductions along the row, then values from their totals.
#pragma once

#include <cstdint>
#include <vector>

#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

/// How the values of a row become one total.
enum class Combine : uint8_t {
  Sum, // in any order
  Product, // in any order
  Min, // Op::Min: NaN is ignored
  Max, // Op::Max: NaN is ignored
  Serial, // in the order of the row: total = value(..., total)
};

/// One total of a pass. The result starts at init and combines every value of
/// the row; a row of length 0 leaves init.
struct Reduction {
  Combine combine = Combine::Sum;
  float init = 0; // Sum, Product, Min, Max: one more operand, used once
};

/// One walk along the row, giving values.outputs.size() totals at once.
///
/// Inputs of `values` in this order: the element inputs, the row inputs, the
/// totals of all earlier passes, and, where any reduction here is Serial, the
/// running totals of this pass. Output i is the value that reductions[i]
/// combines; for Serial it is the new running total.
struct RowPass {
  FlatExpression values;
  std::vector<Reduction> reductions;
};

/// What to do with each row of a (rows, length) problem.
struct RowProgram {
  int num_elements = 0; // inputs with a value for each element
  int num_row_values = 0; // inputs with one value for the row
  std::vector<RowPass> passes;
  /// Outputs with one value for each element. Inputs: elements, row inputs,
  /// all totals. No outputs (and empty code) when there are none.
  FlatExpression write;
  /// Outputs with one value for the row. Inputs: row inputs, all totals.
  FlatExpression finish;

  int num_totals() const {
    int count = 0;
    for (const auto& pass : passes) {
      count += static_cast<int>(pass.reductions.size());
    }
    return count;
  }
  friend bool operator==(const RowProgram&, const RowProgram&);
};

inline bool operator==(const Reduction& a, const Reduction& b) {
  return a.combine == b.combine && a.init == b.init;
}
inline bool operator==(const RowPass& a, const RowPass& b) {
  return a.values == b.values && a.reductions == b.reductions;
}
inline bool operator==(const RowProgram& a, const RowProgram& b) {
  return a.num_elements == b.num_elements &&
      a.num_row_values == b.num_row_values && a.passes == b.passes &&
      a.write == b.write && a.finish == b.finish;
}

} // namespace zmlx::dialect
