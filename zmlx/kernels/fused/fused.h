// SPDX-License-Identifier: MIT
// Pairs of small operations as one pass.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::fused {

namespace mx = mlx::core;

// Arrays of any float type and strides, float32 inside, rounded once to the
// type that they promote to. a and b broadcast; bias (dim) goes along the last
// axis of x (..., dim). Differentiable in both; jvp, vmap and compile of MLX
// work. Throws std::invalid_argument on a mismatch.

/// a + b.
mx::array add(const mx::array& a, const mx::array& b);

/// a * b.
mx::array mul(const mx::array& a, const mx::array& b);

/// silu(a) * b.
mx::array silu_mul(const mx::array& a, const mx::array& b);

/// x + bias.
mx::array add_bias(const mx::array& x, const mx::array& bias);

/// gelu_tanh(x + bias).
mx::array bias_gelu_tanh(const mx::array& x, const mx::array& bias);

/// silu(x + bias).
mx::array bias_silu(const mx::array& x, const mx::array& bias);

} // namespace zmlx::fused
