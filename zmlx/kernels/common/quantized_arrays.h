// SPDX-License-Identifier: MIT
// Weights as MLX arrays, quantised or not, and the views that kernels read.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "mlx/mlx.h"
#include "zmlx/kernels/common/packed_matrix.h"
#include "zmlx/kernels/common/row_blocks.h"

namespace zmlx::quant {

namespace mx = mlx::core;

/// A (rows, cols) matrix, or a stack (experts, rows, cols) of them, as
/// mlx.core.quantize makes it: words (..., rows, cols * bits / 32) uint32,
/// scales and biases (..., rows, cols / group_size) of float32, float16 or
/// bfloat16.
struct QuantizedArrays {
  mx::array words, scales, biases;
  int bits, group_size;
  /// Anything but affine has uint8 scales, which stand in for biases too.
  cpu::Scheme scheme = cpu::Scheme::Affine;

  /// The biases as MLX's own operations take them.
  std::optional<mx::array> mlx_biases(mx::Dtype dtype) const;
  /// Likewise the scales.
  mx::array mlx_scales(mx::Dtype dtype) const;
  /// The weights as MLX makes floats of them, (..., rows, cols).
  mx::array mlx_floats(mx::Dtype dtype) const;
  /// The same in blocks, which CPU kernels then read instead; or null.
  std::shared_ptr<const cpu::RowBlocks> blocks = nullptr;
};

/// The scheme that MLX calls so; none: an unknown one.
std::optional<cpu::Scheme> scheme_named(const std::string& mode);
const char* name_of(cpu::Scheme scheme);

/// Whether MLX 0.32.4 may compute x W^T wrongly on CUDA: see the definition.
bool misread_on_cuda(const QuantizedArrays& w);
/// What is taken there instead: the same with a second group of zeros a row.
mx::array product_in_two_groups(const mx::array& x, const QuantizedArrays& w);

/// x W^T by stock MLX, in x's type.
mx::array mlx_product(const mx::array& x, const QuantizedArrays& w);

/// A matrix, or a stack of them, in either form: packed, or row-contiguous
/// floats (..., rows, cols) of float32, float16 or bfloat16.
using AnyArrays = std::variant<QuantizedArrays, mx::array>;

int rows_of(const AnyArrays& w);
int cols_of(const AnyArrays& w);

/// float32, float16 or bfloat16.
bool is_float(mx::Dtype dtype);

/// Evaluates the array; a copy where its rows are not contiguous. Does not ask
/// MLX's own contiguous(), which may copy mapped weights all the same: it goes
/// by the size of their buffers, which they do not have.
mx::array row_contiguous(mx::array array);

/// Why the CPU kernels cannot take these arrays, or "".
std::string why_unsupported(const QuantizedArrays& w);

/// Shape and format, without values.
cpu::PackedMatrix shape_of(const QuantizedArrays& w);
/// The view that kernels read; evaluated arrays only.
cpu::PackedMatrix view(const QuantizedArrays& w);
/// The view of the arrays themselves, whether there are blocks or not.
cpu::PackedMatrix view_of_rows(const QuantizedArrays& w);

/// Likewise of a row-contiguous (..., rows, cols) matrix of floats.
cpu::DenseMatrix dense_view(const mx::array& weight);

} // namespace zmlx::quant
