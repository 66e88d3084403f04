// SPDX-License-Identifier: MIT
// Parts of models that reason over a variable number of recurrent steps.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::vlsp {

namespace mx = mlx::core;

// Arrays have any strides and any float type; float32 inside, results have the
// type that their inputs promote to. Gradients of any order, jvp, vmap and
// compile of MLX work on them.

/// silu(gate) * up + residual; the three broadcast.
mx::array silu_mul_residual(
    const mx::array& gate,
    const mx::array& up,
    const mx::array& residual);

/// sigmoid(x) * k_max: how many steps a token takes, not rounded.
mx::array depth_gate_sigmoid(const mx::array& x, float k_max = 8);

/// h + alpha * silu(rms_norm(h) * w_norm) * gate over the last axis: h and gate
/// (..., dim), w_norm (dim), alpha a scalar or what broadcasts with h. Throws
/// std::invalid_argument for a scalar h.
mx::array fused_recurrent_step(
    const mx::array& h,
    const mx::array& w_norm,
    const mx::array& gate,
    const mx::array& alpha,
    float eps = 1e-6f);

/// (r - mean) / sqrt(variance + eps) of each row of rewards (prompts, samples):
/// the advantages of group-relative policy optimisation (Shao et al.,
/// arXiv:2402.03300), in two passes. Throws std::invalid_argument for a scalar.
mx::array grpo_advantage_norm(const mx::array& rewards, float eps = 1e-6f);

} // namespace zmlx::vlsp
