// SPDX-License-Identifier: MIT
// Normalisations over the last axis.
#pragma once

#include <cstdint>
#include <utility>

#include "zmlx/kernels/norms/rms_norm.h"

namespace zmlx::norms {

namespace mx = mlx::core;

// x: (..., dim) of any float type; weight, gamma, beta: (dim) floats; residual:
// of x's shape. Results have x's shape and type, rounded once from float32.
// Differentiable in every array; jvp, vmap and compile of MLX work. Throws
// std::invalid_argument on a mismatch.

/// The gradient of rms_norm in x under the cotangent g:
/// r (g weight - y mean(g weight y)), y = x r.
mx::array rms_norm_grad(
    const mx::array& x,
    const mx::array& weight,
    const mx::array& g,
    float eps = 1e-6f);

/// x / sqrt(mean(x^2) + eps).
mx::array rms_norm_no_weight(const mx::array& x, float eps = 1e-6f);

/// (x - mean) / sqrt(variance + eps) * gamma + beta. Ba, Kiros and Hinton,
/// arXiv:1607.06450. The variance is a mean of squares of x - mean.
mx::array layer_norm(
    const mx::array& x,
    const mx::array& gamma,
    const mx::array& beta,
    float eps = 1e-5f);

/// (x - mean) / sqrt(variance + eps).
mx::array layer_norm_no_weight(const mx::array& x, float eps = 1e-5f);

/// dropout(layer_norm(x, gamma, beta, eps), p, seed) in one pass; see
/// zmlx::transformer::dropout.
mx::array layer_norm_dropout(
    const mx::array& x,
    const mx::array& gamma,
    const mx::array& beta,
    double p,
    uint64_t seed = 0,
    float eps = 1e-5f);

/// rms_norm(x + residual, weight, eps), the sum in float32.
mx::array residual_rms_norm(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps = 1e-6f);

/// The same, and x + residual rounded to x's type.
std::pair<mx::array, mx::array> add_rms_norm(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps = 1e-6f);

} // namespace zmlx::norms
