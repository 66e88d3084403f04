// SPDX-License-Identifier: MIT
// x W^T for weights in MLX's affine packing, as one CPU primitive.
#pragma once

#include <optional>

#include "mlx/mlx.h"
#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::quant {

namespace mx = mlx::core;

/// x (..., cols) float32, float16 or bfloat16, strided or not, times the
/// transpose of w (rows, cols), plus bias (rows): (..., rows) in x's type, with
/// float32 accumulation. CPU only. Differentiable through stock MLX in what is
/// not quantised. Throws std::invalid_argument on a mismatch.
mx::array quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias = std::nullopt);

/// The same of stock MLX's operations, with a gradient in x by the CPU kernels
/// (see product_gradient.h); for checked arguments.
mx::array composed_quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias);

} // namespace zmlx::quant
