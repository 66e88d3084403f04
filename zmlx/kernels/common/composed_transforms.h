// SPDX-License-Identifier: MIT
// Gradients of an operation on rows through composed MLX operations that
// compute the same.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "zmlx/runtime/transformed_op.h"

namespace zmlx {

/// An operation on the rows of its first input; the other inputs are weights.
struct RowOp {
  using Function =
      std::function<std::vector<mx::array>(const std::vector<mx::array>&)>;
  const char* name;
  Function run;
  /// The same of MLX operations; called only for derivatives.
  Function composed;
  /// Places of the inputs that have gradients; others get zeros.
  std::vector<int> differentiable;
};

/// Whether one of the arrays is under a transformation of MLX.
bool traced(const std::vector<mx::array>& arrays);

/// run(inputs), transformed as composed is.
std::vector<mx::array> differentiable_op(
    const RowOp& op,
    const std::vector<mx::array>& inputs);

/// vmap of such a function: at once where only the rows are mapped over, else
/// one by one. Returns outputs and their axes.
std::pair<std::vector<mx::array>, std::vector<int>> mapped_rows(
    const RowOp::Function& run,
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes);

} // namespace zmlx
