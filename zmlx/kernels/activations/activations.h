// SPDX-License-Identifier: MIT
// Activations: one line of text each, on every backend, differentiable.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::activations {

namespace mx = mlx::core;

// Each takes any shape and strides and any float type, computes in float32, and
// returns x's shape and type (float32 for integers). Gradients of any order,
// jvp, vmap and compile of MLX work on them.

/// exp(x).
mx::array exp(const mx::array& x);

/// The natural logarithm of x.
mx::array log(const mx::array& x);

/// tanh(x).
mx::array tanh(const mx::array& x);

/// 1 / (1 + exp(-x)), without overflow.
mx::array sigmoid(const mx::array& x);

/// max(x, 0); its derivative at 0 is 0.
mx::array relu(const mx::array& x);

/// max(x, 0)^2.
mx::array relu2(const mx::array& x);

/// x * sigmoid(x).
mx::array silu(const mx::array& x);

/// x * Phi(x) with the normal distribution's Phi. Hendrycks and Gimpel,
/// arXiv:1606.08415.
mx::array gelu(const mx::array& x);

/// The same by its approximation through tanh.
mx::array gelu_tanh(const mx::array& x);

/// log(1 + exp(x)), without overflow.
mx::array softplus(const mx::array& x);

/// x * tanh(softplus(x)). Misra, arXiv:1908.08681.
mx::array mish(const mx::array& x);

/// x where x > 0, else alpha * (exp(x) - 1). alpha must be finite. Clevert,
/// Unterthiner and Hochreiter, arXiv:1511.07289.
mx::array elu(const mx::array& x, float alpha = 1.0f);

} // namespace zmlx::activations
