// SPDX-License-Identifier: MIT
// Quantised weights as MLX arrays, and the view of them that kernels read.
#pragma once

#include <string>

#include "mlx/mlx.h"
#include "zmlx/kernels/common/packed_matrix.h"

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

/// float32, float16 or bfloat16.
bool is_float(mx::Dtype dtype);

/// Why the CPU kernels cannot take these arrays, or "".
std::string why_unsupported(const QuantizedArrays& w, const std::string& mode);

/// The view that kernels read; evaluated arrays only.
cpu::PackedMatrix view(const QuantizedArrays& w);

/// Likewise of a row-contiguous (..., rows, cols) matrix of floats.
cpu::DenseMatrix dense_view(const mx::array& weight);

} // namespace zmlx::quant
