// SPDX-License-Identifier: MIT
// Parts of the references that kernels are checked against. In float64 they are
// exact to about 1e-15, where MLX's own exp() keeps float32's accuracy.
#pragma once

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx::reference {

/// A constant of like's type.
mx::array number(double value, const mx::array& like);

/// exp(x); in float64 through expm1, which MLX has in full accuracy.
mx::array exp(const mx::array& x);

/// 1 / (1 + exp(-x)).
mx::array sigmoid(const mx::array& x);

/// x * sigmoid(x).
mx::array silu(const mx::array& x);

/// x Phi(x) by its tanh approximation.
mx::array gelu_tanh(const mx::array& x);

/// log(1 + exp(x)).
mx::array softplus(const mx::array& x);

/// Over the last axis, in x's type.
mx::array softmax(const mx::array& x);

/// How many values of the last axis go before each: larger ones, and equal ones
/// in earlier places; NaN last. int32.
mx::array ranks(const mx::array& scores);

/// The places of the k best of the last axis, best first, in the order of
/// ranks.
mx::array best(const mx::array& scores, int k);

/// x / sqrt(mean(x^2) + eps) * weight over the last axis, in x's type; MLX's
/// own kernel where x is not float64.
mx::array rms_norm(const mx::array& x, const mx::array& weight, double eps);

/// An affine-quantised matrix in scales' type; bits and group_size from params.
mx::array dequantized(
    const mx::array& words,
    const mx::array& scales,
    const mx::array& biases,
    const Params& params);

/// x W^T of such a matrix: mlx.core.quantized_matmul, but dense in float64.
mx::array quantized_matmul(
    const mx::array& x,
    const mx::array& words,
    const mx::array& scales,
    const mx::array& biases,
    const Params& params);

/// A parameter as a whole number.
int whole(const Params& params, const char* name);

} // namespace zmlx::reference
