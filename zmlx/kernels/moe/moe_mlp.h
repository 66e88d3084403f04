// SPDX-License-Identifier: MIT
// A whole mixture-of-experts block, or a gated dense layer, as one primitive.
#pragma once

#include <optional>

#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/moe/router.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// gate and up: (..., hidden, dim), down: (..., dim, hidden), with a first axis
/// of experts in moe_mlp and none in swiglu_mlp.
struct ExpertArrays {
  quant::QuantizedArrays gate, up, down;
};

/// Router, experts and their weighted sum. x (..., dim) of float32, float16 or
/// bfloat16; router_weight (experts, dim); expert_bias (experts) float32 or
/// none. Returns x's shape and type, with float32 inside. CPU only. Formula:
/// mlx_lm models/lfm2_moe.py. Throws std::invalid_argument on a mismatch.
mx::array moe_mlp(
    const mx::array& x,
    const RouterSpec& router,
    const quant::QuantizedArrays& router_weight,
    const std::optional<mx::array>& expert_bias,
    const ExpertArrays& experts);

/// down(silu(gate x) * (up x)), likewise.
mx::array swiglu_mlp(const mx::array& x, const ExpertArrays& weights);

} // namespace zmlx::moe
