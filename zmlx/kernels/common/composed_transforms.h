// SPDX-License-Identifier: MIT
// Gradients of an operation on rows through composed MLX operations that
// compute the same.
#pragma once

#include <functional>
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

/// run(inputs), transformed as composed is; of all inputs only the first can be
/// mapped over by vmap.
std::vector<mx::array> differentiable_op(
    const RowOp& op,
    const std::vector<mx::array>& inputs);

} // namespace zmlx
