// SPDX-License-Identifier: MIT
// x W^T for weights that are not quantised, as one CPU primitive.
#pragma once

#include <optional>

#include "mlx/mlx.h"

namespace zmlx::dense {

namespace mx = mlx::core;

/// x (..., cols) times the transpose of weight (rows, cols), plus bias (rows):
/// (..., rows) in x's type, with float32 accumulation. All of them float32,
/// float16 or bfloat16, each of its own type; the weight is read as stored.
/// CPU only. Differentiable through stock MLX in what is not quantised. Throws
/// std::invalid_argument on a mismatch.
mx::array dense_matmul(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias = std::nullopt);

} // namespace zmlx::dense
