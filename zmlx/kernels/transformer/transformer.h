// SPDX-License-Identifier: MIT
// What stands between the matrix products of a transformer block.
#pragma once

#include <cstdint>
#include <utility>

#include "mlx/mlx.h"

namespace zmlx::transformer {

namespace mx = mlx::core;

// Arrays of any float type and strides; float32 inside, rounded once.
// Differentiable in every array; jvp, vmap and compile of MLX work. Throws
// std::invalid_argument on a mismatch.

/// silu(x1) * x2 of the halves x1, x2 of the last axis: (..., 2 dim) to
/// (..., dim). Shazeer, arXiv:2002.05202.
mx::array swiglu(const mx::array& x);

/// gelu_tanh(x1) * x2 of the halves of the last axis.
mx::array geglu(const mx::array& x);

/// silu(gate) * up; the arrays broadcast, and their types promote.
mx::array swiglu2(const mx::array& gate, const mx::array& up);

/// gelu_tanh(gate) * up.
mx::array geglu2(const mx::array& gate, const mx::array& up);

/// swiglu(x + bias); bias: (2 dim). Of x's type.
mx::array bias_swiglu(const mx::array& x, const mx::array& bias);

/// geglu(x + bias).
mx::array bias_geglu(const mx::array& x, const mx::array& bias);

/// x with values set to 0 with probability p, the others divided by 1 - p.
/// 0 <= p < 1. Which ones is a hash of seed, the row's number and the place in
/// the row (common/dropout_mask.h): the same for a seed on every device, other
/// ones for another seed. Gradients use the same places.
mx::array dropout(const mx::array& x, double p, uint64_t seed = 0);

/// rms_norm(x + residual, weight), and that sum; see zmlx::norms.
std::pair<mx::array, mx::array> rmsnorm_residual(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps = 1e-6f);

/// rms_norm(x1 + x2, weight).
mx::array fused_add_rmsnorm(
    const mx::array& x1,
    const mx::array& x2,
    const mx::array& weight,
    float eps = 1e-6f);

/// layer_norm(x + residual, gamma, beta), and that sum.
std::pair<mx::array, mx::array> layernorm_residual(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& gamma,
    const mx::array& beta,
    float eps = 1e-5f);

/// layer_norm(x1 + x2, gamma, beta).
mx::array fused_add_layernorm(
    const mx::array& x1,
    const mx::array& x2,
    const mx::array& gamma,
    const mx::array& beta,
    float eps = 1e-5f);

/// dropout(rms_norm(x, weight), p, seed) in one pass.
mx::array rms_norm_dropout(
    const mx::array& x,
    const mx::array& weight,
    double p,
    uint64_t seed = 0,
    float eps = 1e-6f);

} // namespace zmlx::transformer
