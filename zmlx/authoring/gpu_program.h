// SPDX-License-Identifier: MIT
// Expressions on a GPU: printed to a kernel that MLX compiles.
#pragma once

#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

class Program;
class Rows;

/// Computes the outputs of a program, from within eval_gpu of a primitive.
void run_on_gpu(
    const Program& program,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream);

/// The same for a row program along an axis.
void run_on_gpu(
    const Rows& rows,
    int axis,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream);

} // namespace zmlx
