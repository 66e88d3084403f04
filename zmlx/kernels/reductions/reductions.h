// SPDX-License-Identifier: MIT
// Reductions of the last axis, each a few lines of text.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::reductions {

namespace mx = mlx::core;

// x has at least one axis, any strides and any float type; totals are float32.
// Results have x's shape less its last axis and x's type. Gradients of any
// order, jvp, vmap and compile of MLX work on them. Throws
// std::invalid_argument for a scalar.

/// The sum; 0 of no elements.
mx::array sum(const mx::array& x);

/// The sum over the number of elements; NaN of none.
mx::array mean(const mx::array& x);

/// The largest element, -inf of none; NaN where there is one.
mx::array max(const mx::array& x);

/// The mean of (x - mean)^2, in two passes.
mx::array var(const mx::array& x);

/// sqrt(var + eps).
mx::array standard_deviation(const mx::array& x, float eps = 1e-6f);

/// The place of the largest element, the first of equal ones; of the first NaN
/// where there is one. uint32. Rows have 1 to 2^24 elements.
mx::array argmax(const mx::array& x);

} // namespace zmlx::reductions
