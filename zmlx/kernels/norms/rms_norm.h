// SPDX-License-Identifier: MIT
// RMS normalisation: a primitive of its own on the CPU, where stock MLX
// composes it, and the text of common/norm_rows.h elsewhere and under
// differentiation.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::norms {

namespace mx = mlx::core;

/// x / sqrt(mean(x^2) + eps) * weight over the last axis. x: (..., dim)
/// float32, float16 or bfloat16; weight: (dim) of any of them. Returns x's
/// shape and type; float32 inside. Differentiable in both. Zhang and Sennrich,
/// arXiv:1910.07467.
mx::array
rms_norm(const mx::array& x, const mx::array& weight, float eps = 1e-6f);

} // namespace zmlx::norms
