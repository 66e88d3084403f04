// SPDX-License-Identifier: MIT
// A whole mixture-of-experts block, or a dense feed-forward layer, as one
// primitive.
#pragma once

#include <optional>

#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/moe/activation.h"
#include "zmlx/kernels/moe/router.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// A matrix (rows, cols), or a stack of them, quantised or not, and what is
/// added to its products: (rows), or (experts, rows).
struct Projection {
  quant::AnyArrays weight;
  std::optional<mx::array> bias;

  Projection(
      quant::AnyArrays weight,
      std::optional<mx::array> bias = std::nullopt)
      : weight(std::move(weight)), bias(std::move(bias)) {}
  Projection(quant::QuantizedArrays weight) : weight(std::move(weight)) {}
  Projection(mx::array weight) : weight(std::move(weight)) {}
};

/// gate and up: (..., hidden, dim), down: (..., dim, hidden), with a first axis
/// of experts in moe_mlp and none in gated_mlp.
struct ExpertArrays {
  std::optional<Projection> gate;
  Projection up, down;
  Activation activation = {};
};

/// Router, experts and their weighted sum. x (..., dim) of float32, float16 or
/// bfloat16; router's weight (experts, dim); expert_bias (experts) float or
/// none. Returns x's shape and type, with float32 inside; on a GPU many tokens
/// are computed in x's type, by stock MLX's products.
/// Differentiable in x and in what is not quantised, through stock MLX.
/// Throws std::invalid_argument on a mismatch.
mx::array moe_mlp(
    const mx::array& x,
    const RouterSpec& spec,
    const Projection& router,
    const std::optional<mx::array>& expert_bias,
    const ExpertArrays& experts);

/// down(activation(gate x, up x)), likewise.
mx::array gated_mlp(const mx::array& x, const ExpertArrays& weights);

} // namespace zmlx::moe
