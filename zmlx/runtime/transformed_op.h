// SPDX-License-Identifier: MIT
// Gives an operation a gradient and vmap of one's own.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// What MLX's transformations do with an operation. May throw.
struct OpTransforms {
  using Arrays = std::vector<mx::array>;
  /// Gradients of all inputs from inputs, cotangents and outputs.
  std::function<Arrays(const Arrays&, const Arrays&, const Arrays&)> vjp;
  /// Tangents of the outputs from inputs, tangents and the inputs they are of.
  std::function<Arrays(const Arrays&, const Arrays&, const std::vector<int>&)>
      jvp;
  /// Outputs and their axes from inputs and their axes (-1: not mapped).
  std::function<std::pair<Arrays, std::vector<int>>(
      const Arrays&,
      const std::vector<int>&)>
      vmap;
};

/// The outputs of one primitive as outputs of another that computes the same
/// and is transformed as told. mx::custom_function would not do: its vmap also
/// visits the primitive inside. Inputs from num_inputs on are hidden from the
/// transformations.
std::vector<mx::array> transformed_op(
    const std::vector<mx::array>& outputs,
    size_t num_inputs,
    OpTransforms transforms);

} // namespace zmlx
