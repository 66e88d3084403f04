// SPDX-License-Identifier: MIT
// Weighted sums of products with chosen matrices in Metal's dialect, for the
// devices that are not the CPU: MLX's products there round each one to a narrow
// type, and its CUDA ones are wrong for inputs that are broadcast.
#pragma once

#include <functional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// The same of MLX's operations, for gradients in inputs of floats.
using Composed = std::function<mx::array(const std::vector<mx::array>&)>;

/// gather_qmm_combine() of {act, weights, gate, indices} as a kernel of the
/// default device, summed in float32; checked arguments only.
mx::array gather_by_kernel(
    const std::vector<mx::array>& inputs,
    const Composed& composed);

/// gather_qmm_combine_quantized() of {act, words, scales, biases, gate,
/// indices}, likewise, of any number of bits up to 8.
mx::array gather_by_kernel(
    const std::vector<mx::array>& inputs,
    int bits,
    int group_size,
    const Composed& composed);

} // namespace zmlx::moe
