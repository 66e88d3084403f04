// SPDX-License-Identifier: MIT
// LFM2's gated short convolution as one CPU primitive.
#pragma once

#include <optional>
#include <utility>

#include "mlx/mlx.h"

namespace zmlx::conv {

namespace mx = mlx::core;

/// From projected = (B, C, x), thirds of the last axis of (batch, length, 3
/// dim): y = C * conv(B * x), a causal depthwise convolution with weight (dim,
/// taps, 1) and bias (dim) or none over what came before, (batch, taps - 1,
/// dim). Returns y (batch, length, dim) and the last taps - 1 products B * x.
/// float32 only. Formula: mlx_lm models/lfm2.py. Throws std::invalid_argument.
std::pair<mx::array, mx::array> gated_short_conv(
    const mx::array& projected,
    const mx::array& before,
    const mx::array& weight,
    const std::optional<mx::array>& bias);

} // namespace zmlx::conv
