// SPDX-License-Identifier: MIT
// Spreading tokens to experts and summing what the experts make of them.
#pragma once

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::moe {

namespace mx = mlx::core;

// Arrays of any float type and strides; jvp, vmap and compile of MLX work.
// Throws std::invalid_argument on a mismatch.

/// x (..., dim) once for each of k experts: (..., k, dim), a view of x.
/// indices: (..., k) integers, of which only the shape counts.
mx::array moe_dispatch(const mx::array& x, const mx::array& indices);

/// Sum over k of weights (..., k) times expert_outputs (..., k, dim): (...,
/// dim) of expert_outputs' type, summed in float32 in the order of k and
/// rounded once. Differentiable in both, in one pass over expert_outputs.
mx::array moe_combine(
    const mx::array& expert_outputs,
    const mx::array& weights);

/// The same with weights, products and running sums each rounded to
/// expert_outputs' type: the bits of a loop of MLX operations.
mx::array moe_combine_exact(
    const mx::array& expert_outputs,
    const mx::array& weights);

/// The same with a result of float32, rounded nowhere.
mx::array moe_combine_fp32(
    const mx::array& expert_outputs,
    const mx::array& weights);

/// Sum over k of gate (batch, k) times act (batch, k, in) times weights
/// (experts, in, out) of the expert indices (batch, k): (batch, out) of act's
/// type. Only the chosen matrices are read. Differentiable in act, weights and
/// gate.
mx::array gather_qmm_combine(
    const mx::array& act,
    const mx::array& weights,
    const mx::array& gate,
    const mx::array& indices);

/// The same with weights (experts, out, in) in MLX's affine packing.
/// Differentiable in act and gate.
mx::array gather_qmm_combine_quantized(
    const mx::array& act,
    const quant::QuantizedArrays& weights,
    const mx::array& gate,
    const mx::array& indices);

} // namespace zmlx::moe
