// SPDX-License-Identifier: MIT
// A piece of CPU work as one MLX primitive.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// What a CPU operation computes. Arrays are evaluated and may be strided;
/// outputs are allocated, row contiguous, and to be filled. What it throws (a
/// std::exception) reaches whoever evaluates or waits for them, by MLX 0.32.4.
using CpuTask = std::function<void(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs)>;

struct CpuOutput {
  mx::Shape shape;
  mx::Dtype dtype;
  /// The input whose buffer this output takes over, updated in place; it is
  /// copied first when somebody else still holds it.
  std::optional<int> updates = std::nullopt;
};

/// Builds a primitive that runs task on the default CPU stream when evaluated.
/// Not differentiable: vjp and vmap throw MLX's error naming `name`.
std::vector<mx::array> cpu_op(
    const char* name,
    std::vector<mx::array> inputs,
    const std::vector<CpuOutput>& outputs,
    CpuTask task);

} // namespace zmlx
