// SPDX-License-Identifier: MIT
// x W^T for weights in MLX's affine packing, as one CPU primitive.
#pragma once

#include <optional>
#include <string>

#include "mlx/mlx.h"
#include "zmlx/kernels/quant/packed_matrix.h"

namespace zmlx::quant {

namespace mx = mlx::core;

/// A (rows, cols) matrix, or a stack (experts, rows, cols) of them, as
/// mlx.core.quantize makes it: words (..., rows, cols * bits / 32) uint32,
/// scales and biases (..., rows, cols / group_size) of float32, float16 or
/// bfloat16.
struct QuantizedArrays {
  mx::array words, scales, biases;
  int bits, group_size;
};

/// Why the CPU kernels cannot take these arrays, or "".
std::string why_unsupported(const QuantizedArrays& w, const std::string& mode);

/// The view that kernels read; evaluated arrays only.
cpu::PackedMatrix view(const QuantizedArrays& w);

/// x (..., cols) float32, float16 or bfloat16, strided or not, times the
/// transpose of w (rows, cols), plus bias (rows): (..., rows) in x's type, with
/// float32 accumulation. CPU only. Throws std::invalid_argument on a mismatch.
mx::array quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias = std::nullopt);

} // namespace zmlx::quant
