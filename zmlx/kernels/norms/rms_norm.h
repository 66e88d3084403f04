// SPDX-License-Identifier: MIT
// RMS normalisation as one CPU primitive; stock MLX composes it there.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::norms {

namespace mx = mlx::core;

/// x / sqrt(mean(x^2) + eps) * weight over the last axis. x: (..., dim)
/// float32, float16 or bfloat16; weight: (dim) of any of them. Returns x's
/// shape and type; float32 inside. CPU only. Zhang and Sennrich,
/// arXiv:1910.07467.
mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps);

} // namespace zmlx::norms
