// SPDX-License-Identifier: MIT
// Softmax and its kin over the last axis, each a few lines of text.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::softmax {

namespace mx = mlx::core;

// x has at least one axis, any strides and any float type; totals are float32,
// and results have x's type. Gradients of any order, jvp, vmap and compile of
// MLX work on them. Rows with a NaN or +inf, and rows of -inf alone, are NaN
// where nothing else is said. Throws std::invalid_argument for a scalar.

/// exp(x - max) / sum of exp(x - max).
mx::array softmax(const mx::array& x);

/// x - max - log(sum of exp(x - max)).
mx::array log_softmax(const mx::array& x);

/// y (g - sum of y g): the gradient in x of softmax, from its result y and the
/// cotangent g of y's shape.
mx::array softmax_grad(const mx::array& y, const mx::array& g);

/// log(sum of exp(x)) of each row, without overflow: x's shape less the last
/// axis. Rows of -inf alone give -inf, others with +inf give +inf.
mx::array logsumexp(const mx::array& x);

/// Softmax over the places where mask (bool, broadcasts to x's shape) is true;
/// 0 elsewhere. A row without such a place is all 0. Differentiable in x.
mx::array masked_softmax(const mx::array& x, const mx::array& mask);

/// masked_softmax(scale * x, mask); scale must be finite.
mx::array
scale_mask_softmax(const mx::array& x, const mx::array& mask, float scale);

} // namespace zmlx::softmax
