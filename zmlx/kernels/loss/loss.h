// SPDX-License-Identifier: MIT
// Losses over rows of logits, without a temporary of their size.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::loss {

namespace mx = mlx::core;

/// logsumexp(logits) - logits[target] for each row, float32, of targets' shape.
/// logits: (..., classes) of any float type and strides, at most 2^24 classes;
/// targets: (...) integers. A target of ignore_index gives 0 and no gradient;
/// any other outside 0..classes-1 gives NaN, in the gradient too, and nothing
/// is read for it. The gradient of logits, (softmax - onehot) times the
/// cotangent, is made in one pass from logits. Differentiable in logits to any
/// order; jvp, vmap and compile of MLX work. Throws std::invalid_argument on a
/// mismatch.
mx::array softmax_cross_entropy(
    const mx::array& logits,
    const mx::array& targets,
    int ignore_index = -100);

/// That gradient, of logits' shape and type, under the cotangent g (...).
mx::array softmax_cross_entropy_grad(
    const mx::array& logits,
    const mx::array& targets,
    const mx::array& g,
    int ignore_index = -100);

} // namespace zmlx::loss
