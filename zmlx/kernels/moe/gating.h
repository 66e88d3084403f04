// SPDX-License-Identifier: MIT
// The routers of plain mixtures, as functions; zmlx::moe::route has all others.
#pragma once

#include <optional>
#include <utility>

#include "mlx/mlx.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// Weights (..., k) float32 and experts (..., k) uint32, best first and ties to
/// the lowest index, of x (..., experts) float32, float16 or bfloat16. With
/// norm_topk_prob and no expert_bias: a softmax over the k largest. Else p =
/// softmax over all + expert_bias (experts), of which the k largest count and
/// are divided by their sum where norm_topk_prob says so. Differentiable in
/// both arrays, through the weights. Throws std::invalid_argument on a
/// mismatch.
std::pair<mx::array, mx::array> topk_gating_softmax(
    const mx::array& x,
    int k = 2,
    const std::optional<mx::array>& expert_bias = std::nullopt,
    bool norm_topk_prob = true);

/// topk_gating_softmax(x, 2).
std::pair<mx::array, mx::array> top2_gating_softmax(const mx::array& x);

} // namespace zmlx::moe
