// SPDX-License-Identifier: MIT
// Values that a pass over a row computes and its write step needs again.
#pragma once

#include <optional>

#include "zmlx/dialect/row_program.h"

namespace zmlx::dialect {

/// A program whose write step takes a value from a pass instead of computing
/// it again, as exp(x - max) of a softmax.
struct KeptValue {
  int pass;
  /// The pass's expression with one more output, the value.
  FlatExpression values;
  /// The write expression with one more input, the value, after the elements.
  FlatExpression write;
};

/// The value that saves most, if any saves more than keeping it costs. No pass
/// is Serial.
std::optional<KeptValue> find_kept_value(const RowProgram& program);

} // namespace zmlx::dialect
