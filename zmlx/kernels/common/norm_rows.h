// SPDX-License-Identifier: MIT
// Normalisations over the last axis, with and without a residual sum, scale,
// shift and dropout: one text for all backends, with gradients.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::norm {

namespace mx = mlx::core;

/// Which one.
struct Form {
  /// Subtracts the mean (LayerNorm) or does not (RMSNorm).
  bool centred = false;
  float eps = 0;
  /// Also returns x + residual, of x's type.
  bool returns_sum = false;
  /// The probability with which a result becomes 0; others are divided by
  /// 1 - p. See dropout_mask.h.
  double dropout = 0;
  uint64_t seed = 0;
};

/// (h - mean) / sqrt(variance + eps) * weight + bias with h = x + residual, in
/// float32 and rounded once, of x's shape and type. x and residual: (..., dim)
/// of one shape; weight and bias: (dim). The variance takes a walk of its own
/// and is never negative. Differentiable in everything: sums over rows are
/// float32 at least, whatever the types. op: who asks, for errors. run: a
/// primitive that computes the same from the arrays that there are, or null.
std::vector<mx::array> normalise(
    const char* op,
    const Form& form,
    const mx::array& x,
    const std::optional<mx::array>& residual,
    const std::optional<mx::array>& weight,
    const std::optional<mx::array>& bias = std::nullopt,
    const std::function<std::vector<mx::array>(const std::vector<mx::array>&)>&
        run = nullptr);

/// The gradient of a plain RMS normalisation in x, of x's shape and type.
mx::array rms_gradient(
    const char* op,
    const mx::array& x,
    const mx::array& weight,
    const mx::array& cotangent,
    float eps);

} // namespace zmlx::norm
