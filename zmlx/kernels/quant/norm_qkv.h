// SPDX-License-Identifier: MIT
// A layer's norm with the products that its result goes through, of queries,
// keys and values for the most part, as one primitive.
#pragma once

#include <optional>
#include <vector>

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::quant {

/// A matrix (rows, dim) in MLX's packing, and what is added to its products:
/// (rows) or none.
struct PackedLinear {
  QuantizedArrays weight;
  std::optional<mx::array> bias = std::nullopt;
};

/// What rms_norm_qkv() reads besides its input.
struct NormQkv {
  mx::array norm_weight; // (dim)
  float eps;
  /// The norm's weight is 1 + norm_weight, rounded to norm_weight's type.
  bool one_plus = false;
  std::vector<PackedLinear> linears; // one to three
};

/// n W^T + bias for each linear, n = x / sqrt(mean(x^2) + eps) * weight.
/// x (..., dim) of float32, float16 or bfloat16. Returns arrays (..., rows) of
/// x's type with float32 inside; on a GPU fewer than 8 rows are one kernel, and
/// more go through stock MLX's operations in x's type.
/// Differentiable, through stock MLX, in x, the norm's weight and biases.
/// Throws std::invalid_argument on a mismatch.
std::vector<mx::array> rms_norm_qkv(const mx::array& x, const NormQkv& with);

} // namespace zmlx::quant
