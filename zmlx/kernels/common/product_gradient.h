// SPDX-License-Identifier: MIT
// Derivatives of products with matrices through our own products: MLX's float
// products run at a few GFLOP/s on CPUs without a BLAS library.
#pragma once

#include <functional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// x W^T by the CPU kernels as one operation, without a gradient: of x (...,
/// in), a row-contiguous weight (out, in) and maybe a bias (out).
std::vector<mx::array> dense_product(const std::vector<mx::array>& inputs);

/// x W^T of MLX's operations, whose gradient is computed by the CPU kernels: g
/// W in x and, where the weight takes part in it, g^T x in the weight. x (...,
/// in) and weight (out, in) of float32, float16 or bfloat16.
mx::array product_for_gradients(const mx::array& x, const mx::array& weight);

/// composed(x), a product with a matrix that has no gradient: g W in x, where
/// dense() makes W (out, in).
mx::array product_for_gradients(
    const mx::array& x,
    const std::function<mx::array(const mx::array& x)>& composed,
    const std::function<mx::array()>& dense);

} // namespace zmlx
